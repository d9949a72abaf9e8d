"""A database that was used before there were schedules goes on as it was, and then has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.world import World
from migrating import migrated, row
from operon.core.commands import Beat, Due, Fire, Fires, KeepSchedule, Schedules
from operon.core.rows import NewWorkflow
from operon.core.timetable import Fired, Firing, Plan, ScheduleRow, Template

ROWS = (row("plain", 0, 0, 1.0), row("later", 0, 0, 4e9))


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, sqlite_path: Path) -> Iterator[World]:
    """A database of the second migration, with rows in it, migrated."""
    url = str(request.getfixturevalue("postgres_url")) if request.param == "postgres" else f"sqlite:///{sqlite_path}"
    with migrated(url, 2, ROWS) as made:
        yield made


def test_what_was_there_goes_on_and_schedules_work(world: World) -> None:
    assert world.ask(Schedules()) == ()
    executor = world.enlist()
    assert world.claim(executor) == ["plain"]
    plan = Plan("s", "* * * * *", "UTC", "one", "skip", Template("greet", "{}"))
    assert world.ask(KeepSchedule(ScheduleRow(plan, "shop", declared=True, next_at=1e9, turn=1)))
    fires = Fires(("s",))
    assert world.ask(Beat(executor, 15.0, fires)).planned is not None
    (due,) = world.ask(Due(fires, 9)).rows
    fired = world.ask(Fire("s", due.turn, None, (Firing(1e9, "skip", NewWorkflow("w", "greet", "{}", "d", 1)),)))
    assert fired == Fired(("w",))
    assert world.claim(executor) == ["w"]
