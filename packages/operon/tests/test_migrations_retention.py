"""A database that was used before there was retention goes on as it was, and what ended there can go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.world import World, step
from migrating import migrated, row
from operon.core.commands import Delete, Find, Strip, Sweep
from operon.core.rows import Filter, Guard, Policy
from operon.core.states import Status

ROWS = (row("queued", 0, 0, 1.0), row("asleep", 2, 1, 2.0), row("old", 4, 1, ended=5.0), row("failed", 5, 3, ended=5.0))


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, sqlite_path: Path) -> Iterator[World]:
    """A database of the second migration, with rows in it, migrated."""
    url = str(request.getfixturevalue("postgres_url")) if request.param == "postgres" else f"sqlite:///{sqlite_path}"
    with migrated(url, 2, ROWS) as made:
        yield made


def test_what_was_there_goes_on_and_what_has_ended_goes(world: World) -> None:
    assert world.claim(world.enlist()) == ["queued", "asleep"]
    assert (world.row("queued").fresh, world.row("asleep").fresh) == (True, False)
    for key, claim in (("queued", 1), ("asleep", 2)):
        assert world.write(Guard(key, claim), step()).written
    assert world.ask(Sweep((Policy("greet", Status.SUCCEEDED, 60.0),), 10)).gone == 1
    assert world.ask(Strip(10)) == 0
    assert {it.id for it in world.ask(Find(Filter()))} == {"queued", "asleep", "failed"}
    assert not world.start("old").created
    assert world.ask(Delete("failed")) == 1
