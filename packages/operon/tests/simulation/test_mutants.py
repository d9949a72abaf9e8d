"""The simulator finds what is wrong: every planted bug breaks a law, within a bounded number of seeds."""

from __future__ import annotations

import gc
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
    "a_batch_is_formed_again": 146,
    "a_claim_takes_what_runs": 25,
    "a_clean_up_is_done_once_it_is_taken": 13,
    "a_failure_is_two_commits": 57,
    "a_parent_that_was_taken_over_starts_children": 11,
    "a_park_does_not_look_whether_it_is_over": 7,
    "a_parking_is_not_waited_for": 35,
    "a_partition_is_not_counted": 18,
    "a_paused_schedule_is_fired": 167,
    "a_record_elsewhere_is_not_looked_for": 5,
    "a_run_does_not_wait_for_the_one_before": 14,
    "a_start_on_its_way_looks_lost": 455,
    "a_window_opens_too_early": 15,
    "cancelling_stops_nothing_here": 72,
    "lingering_entries_are_dropped": 22,
    "nobody_asks_whether_it_has_committed": 133,
    "nobody_is_told_of_a_line": 1726,
    "nobody_watches_the_others": 52,
    "nothing_is_recorded_elsewhere": 98,
    "that_it_has_cleaned_up_is_said_once": 38,
    "the_last_writer_wins": 17,
    "what_was_missed_is_not_caught_up": 112,
    "who_claims_waits_for_a_lock": 8,
    "who_has_lost_its_claim_forms_a_batch": 88,
    "who_is_slow_is_buried_at_once": 11,
    "who_wakes_waits_for_a_lock": 30,
}
"""Worlds in which a bug shows after few events: each is tried before the others, which takes less time."""


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # a world that is stopped has some
@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    with pytest.raises(LawBroken):  # noqa: PT012 - by any of them
        for world in worlds(name):
            world.run()
    gc.collect()


def worlds(name: str) -> Iterator[World]:
    """Make the worlds in which a bug is looked for."""
    first = SHOWN.get(name, 0)
    if name in FAULTS:
        return filter(FAULTS[name], map(World, dict.fromkeys((first, *range(LONGER)))))
    return map(World, dict.fromkeys((first, *range(BOUND))))
