"""A database that was used before there were schedules goes on as it was, and then has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from conformance.world import World, start
from operon.core.commands import Beat, Due, Fire, Fires, KeepSchedule, Queues, Schedules, Seed
from operon.core.rows import Limits, NewWorkflow
from operon.core.timetable import Fired, Firing, Plan, ScheduleRow, Template
from operon.stores import migrations
from operon.stores.postgres import PostgresStore
from operon.stores.sqlite import SqliteStore
from operon.stores.sqlite import store as sqlite_store


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, sqlite_path: Path) -> Iterator[World]:
    """A database of the second migration, with a queue and workflows in it, migrated."""
    shipped = migrations.shipped

    def two(package: str) -> tuple[migrations.Migration, ...]:
        return shipped(package)[:2]

    for place in (sqlite_store, migrations):
        monkeypatch.setattr(place, "shipped", two)
    url = str(request.getfixturevalue("postgres_url")) if request.param == "postgres" else f"sqlite:///{sqlite_path}"
    kind: Any = SqliteStore if request.param == "sqlite" else PostgresStore
    with closing(kind(url)) as old:
        old.open()
        assert old.ask(Seed("q", Limits(concurrency=1), "shop")) is None
        for key, options in (("plain", {}), ("queued", {"queue": "q"}), ("later", {"delay": 1e6})):
            assert old.ask(start(key, **options)).created
    monkeypatch.undo()
    with closing(kind(url)) as store:
        store.open()
        yield World(store, lambda _: None)


def test_what_was_there_goes_on_and_schedules_work(world: World) -> None:
    assert world.ask(Schedules()) == ()
    executor = world.enlist()
    assert world.claim(executor, queues=(("q", 9),)) == ["plain", "queued"]
    assert [it.running for it in world.ask(Queues())] == [1]
    plan = Plan("s", "* * * * *", "UTC", "one", "skip", Template("greet", "{}"))
    assert world.ask(KeepSchedule(ScheduleRow(plan, "shop", declared=True, next_at=1e9, turn=1)))
    fires = Fires(("s",))
    assert world.ask(Beat(executor, 15.0, fires)).planned is not None
    (row,) = world.ask(Due(fires, 9)).rows
    fired = world.ask(Fire("s", row.turn, None, (Firing(1e9, "skip", NewWorkflow("w", "greet", "{}", "d", 1)),)))
    assert fired == Fired(("w",))
    assert world.claim(executor) == ["w"]
