"""The simulator finds what is wrong: every planted bug breaks a law, within a bounded number of seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from operon.testing.simulate import LawBroken, World
from simulation.mutants import MUTANTS

BOUND = 500
"""Seeds within which a bug must be found; without one, none of them breaks a law (see test_seeds.py)."""
LONGER = 4000
"""Seeds among which the right faults are looked for."""
FAULTS: dict[str, Callable[[World], bool]] = {
    "a_parent_that_was_taken_over_starts_children": lambda world: world.faults.pauses > 0,
    "nobody_is_told_of_a_line": lambda world: world.faults.notices_lost == 1,
}
"""Bugs that show in few worlds, and with which faults those are."""
SHOWN = {
    "a_batch_is_formed_again": 64,
    "a_failure_is_two_commits": 103,
    "a_parent_that_was_taken_over_starts_children": 112,
    "a_park_does_not_look_whether_it_is_over": 61,
    "a_parking_is_not_waited_for": 35,
    "a_paused_schedule_is_fired": 245,
    "a_record_elsewhere_is_not_looked_for": 29,
    "a_start_on_its_way_looks_lost": 133,
    "cancelling_stops_nothing_here": 23,
    "lingering_entries_are_dropped": 22,
    "nobody_asks_whether_it_has_committed": 167,
    "nobody_is_told_of_a_line": 709,
    "nobody_is_told_what_is_due": 18,
    "that_it_has_cleaned_up_is_said_once": 77,
    "the_last_writer_wins": 14,
    "what_was_missed_is_not_caught_up": 175,
    "who_has_lost_its_claim_forms_a_batch": 64,
}
"""Likewise, and the first world in which each was seen: it is tried before the others, which takes less time."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    with pytest.raises(LawBroken):  # noqa: PT012 - by any of them
        for world in worlds(name):
            world.run()


def worlds(name: str) -> Iterator[World]:
    """Make the worlds in which a bug is looked for."""
    first = SHOWN.get(name, 0)
    if name in FAULTS:
        return filter(FAULTS[name], map(World, dict.fromkeys((first, *range(LONGER)))))
    return map(World, dict.fromkeys((first, *range(BOUND))))
