"""The simulator finds what is wrong: every planted bug breaks a law, within a bounded number of seeds."""

from __future__ import annotations

import pytest

from operon.testing.simulate import LawBroken, simulate
from simulation.mutants import MUTANTS

BOUND = 150
"""Seeds within which a bug must be found; no harsh one of them breaks a law without a planted bug."""
HARSH = {
    "the_last_writer_wins",
    "the_dead_flag_is_ignored",
    "records_are_replayed_out_of_turn",
    "nobody_is_told_what_is_due",
}
"""What only shows when processes stand still in the middle of a write."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    harsh = name in HARSH
    with pytest.raises(LawBroken):  # noqa: PT012 - by any of them
        for seed in range(BOUND):
            simulate(seed, harsh=harsh)


def test_nothing_is_found_where_nothing_is_planted() -> None:
    for seed in range(BOUND):
        simulate(seed, harsh=True)
