"""The simulator finds what is wrong: every planted bug breaks a law, within a bounded number of seeds."""

from __future__ import annotations

import pytest

from operon.testing.simulate import LawBroken, simulate
from simulation.mutants import MUTANTS

BOUND = 1500
"""Seeds within which a bug must be found; without one, none of them breaks a law (see test_seeds.py)."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    with pytest.raises(LawBroken):  # noqa: PT012 - by any of them
        for seed in range(BOUND):
            simulate(seed)
