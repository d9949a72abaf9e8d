"""Which instants of a schedule are fired, by what its row says and what time it is."""

from __future__ import annotations

from typing import Any

import pytest

from operon.core.firing import MOST, due, run_id
from operon.core.timetable import Plan, ScheduleRow, Template

NINE = 1_792_918_800.0
"""2026-10-25T09:00:00Z."""
LEASE = 15.0
MINUTE = 60.0


def row(next_at: float | None = NINE, cron: str = "* * * * *", **plan: Any) -> ScheduleRow:
    options: dict[str, Any] = {"catch_up": "one", "overlap": "skip", **plan}
    return ScheduleRow(Plan("s", cron, "UTC", call=Template("f", "{}"), **options), "app", True, next_at)  # noqa: FBT003


@pytest.mark.parametrize("catch_up", ["skip", "one", "all"])
def test_what_is_in_time_is_fired_by_its_overlap_and_what_is_to_come_is_not(catch_up: str) -> None:
    for late in (0.0, 0.4, LEASE):
        assert due(row(catch_up=catch_up), NINE + late, LEASE) == (((NINE, "skip"),), NINE + MINUTE)
    assert due(row(catch_up=catch_up), NINE - 0.1, LEASE) == ((), NINE)
    assert due(row(None, catch_up=catch_up), NINE, LEASE) == ((), None)


def test_what_is_missed_is_fired_as_it_was_said() -> None:
    """At 09:10:20 the instant of 09:10 is longer ago than a lease, too; at 09:10:10 it is not."""
    after, later = NINE + 10 * MINUTE + 20, NINE + 11 * MINUTE
    assert due(row(catch_up="skip"), after, LEASE) == ((), later)
    assert due(row(catch_up="one"), after, LEASE) == (((NINE + 10 * MINUTE, "skip"),), later)
    assert due(row(catch_up="all"), after, LEASE) == (
        tuple((NINE + minute * MINUTE, "queue") for minute in range(11)),
        later,
    )
    for catch_up in ("skip", "one"):
        assert due(row(catch_up=catch_up), after - 10, LEASE) == (((NINE + 10 * MINUTE, "skip"),), later)


def test_several_that_are_in_time_are_each_fired() -> None:
    """A moment's inattention loses nothing of a schedule that comes every second."""
    instants = [NINE + second for second in range(4)]
    for catch_up, overlap in (("skip", "replace"), ("one", "replace"), ("all", "queue")):
        found = due(row(cron="* * * * * *", catch_up=catch_up, overlap="replace"), NINE + 3.5, LEASE)
        assert found == (tuple((at, overlap) for at in instants), NINE + 4)


def test_one_that_comes_late_alone_is_in_line_where_all_are_made_up_for() -> None:
    daily = row(cron="0 9 * * *", catch_up="all", overlap="replace")
    assert due(daily, NINE + MINUTE, LEASE) == (((NINE, "queue"),), NINE + 1440 * MINUTE)


def test_so_many_are_fired_in_one_commit_and_the_rest_follows() -> None:
    instants, next_at = due(row(cron="* * * * * *", catch_up="all"), NINE + 1000, LEASE)
    assert [at for at, _ in instants] == [NINE + second for second in range(MOST)]
    assert next_at == NINE + MOST
    instants, next_at = due(row(cron="* * * * * *", catch_up="skip"), NINE + 1000, 500.0)
    assert [at for at, _ in instants] == [NINE + 501 + second for second in range(MOST)]
    assert next_at == NINE + 501 + MOST


def test_the_id_is_the_instant_in_utc() -> None:
    assert run_id("a:b", NINE) == "schedule:a:b:2026-10-25T09:00:00Z"
