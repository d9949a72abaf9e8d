"""A database that was used before there were queues goes on as it was, and then has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.world import World, start, step
from migrating import migrated, row
from operon.core.commands import Queues, Seed
from operon.core.rows import Guard, Limits

ROWS = (row("queued", 0, 0, 1.0), row("asleep", 2, 1, 2.0), row("ended", 4, 1))


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, sqlite_path: Path) -> Iterator[World]:
    """A database of the first migration, with rows in it, migrated."""
    url = str(request.getfixturevalue("postgres_url")) if request.param == "postgres" else f"sqlite:///{sqlite_path}"
    with migrated(url, 1, ROWS) as made:
        yield made


def test_what_was_there_goes_on_and_queues_work(world: World) -> None:
    executor = world.enlist()
    row = world.row("queued")
    assert (row.queue, row.partition, row.priority, row.dedupe) == (None, "", 0, None)
    assert world.claim(executor) == ["queued", "asleep"]
    assert world.status("ended") == "succeeded"
    assert world.ask(Seed("q", Limits(concurrency=1), "shop")) is None
    assert world.ask(start("new", queue="q")).created
    assert world.claim(executor, queues=(("q", 5),)) == ["new"]
    assert world.write(Guard("queued", 1), step()).written
    assert [(it.name, it.running) for it in world.ask(Queues())] == [("q", 1)]
