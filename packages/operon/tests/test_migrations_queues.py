"""A database that was used before there were queues goes on as it was, and then has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from conformance.world import World, start, step
from operon.core.commands import Queues, Seed
from operon.core.rows import Limits
from operon.stores import migrations
from operon.stores.postgres import PostgresStore
from operon.stores.sqlite import SqliteStore
from operon.stores.sqlite import store as sqlite_store

OLD_SQLITE = """insert into operon_workflows (
    id, name, status, claim, ready_at, created_at, version, nonce, digest, input, attempts
) values (:id, 'greet', :status, :claim, :ready, 1.0, 'v0', 7, 'd', '[1]', 0)"""
OLD_POSTGRES = """insert into operon.workflows (
    id, name, status, claim, ready_at, created_at, version, nonce, digest, input
)
values (%(id)s, 'greet', %(status)s, %(claim)s, to_timestamp(%(ready)s), to_timestamp(1), 'v0', 7, 'd', '[1]')"""
ROWS = (
    {"id": "queued", "status": 0, "claim": 0, "ready": 1.0},
    {"id": "asleep", "status": 2, "claim": 1, "ready": 2.0},
    {"id": "ended", "status": 4, "claim": 1, "ready": None},
)


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, sqlite_path: Path) -> Iterator[World]:
    """A database of the first migration, with rows in it, migrated."""
    shipped = migrations.shipped

    def first(package: str) -> tuple[migrations.Migration, ...]:
        return shipped(package)[:1]

    for place in (sqlite_store, migrations):
        monkeypatch.setattr(place, "shipped", first)
    url = str(request.getfixturevalue("postgres_url")) if request.param == "postgres" else f"sqlite:///{sqlite_path}"
    kind: Any = SqliteStore if request.param == "sqlite" else PostgresStore
    with closing(kind(url)) as old:
        old.open()
    if request.param == "sqlite":
        import sqlite3

        with closing(sqlite3.connect(sqlite_path)) as connection, connection:
            connection.executemany(OLD_SQLITE, ROWS)
    else:
        import psycopg

        with psycopg.connect(url) as server:
            for row in ROWS:
                server.execute(OLD_POSTGRES, row)
    monkeypatch.undo()
    with closing(kind(url)) as store:
        store.open()
        yield World(store, lambda _: None)


def test_what_was_there_goes_on_and_queues_work(world: World) -> None:
    executor = world.enlist()
    row = world.row("queued")
    assert (row.queue, row.partition, row.priority, row.dedupe) == (None, "", 0, None)
    assert world.claim(executor) == ["queued", "asleep"]
    assert world.status("ended") == "succeeded"
    assert world.ask(Seed("q", Limits(concurrency=1), "shop")) is None
    assert world.ask(start("new", queue="q")).created
    assert world.claim(executor, queues=(("q", 5),)) == ["new"]
    from operon.core.rows import Guard

    assert world.write(Guard("queued", 1), step()).written
    assert [(it.name, it.running) for it in world.ask(Queues())] == [("q", 1)]
