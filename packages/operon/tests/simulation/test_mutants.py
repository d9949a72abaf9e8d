"""The simulator finds what is wrong: every planted bug breaks a law, within a bounded number of seeds."""

from __future__ import annotations

import pytest

from operon.testing.simulate import LawBroken, simulate
from simulation.mutants import MUTANTS

BOUND = 300
"""Seeds within which a bug must be found; without one, none of them breaks a law (see test_seeds.py)."""
FINDS = {"a_parent_that_was_taken_over_starts_children": (566,), "nobody_is_told_of_a_line": (382,)}
"""Seeds that find what the first do not."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    with pytest.raises(LawBroken):  # noqa: PT012 - by any of them
        for seed in (*FINDS.get(name, ()), *range(BOUND)):
            simulate(seed)
