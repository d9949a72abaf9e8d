"""The stores that the suite runs on: each must mean the same by every command."""

from __future__ import annotations

from contextlib import closing
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import psycopg
import pytest

from conformance.world import World
from operon.stores.memory import Clock, MemoryStore
from operon.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DURABLE = ["sqlite", *(["postgres"] if find_spec("operon.stores.postgres.store") else [])]


@pytest.fixture(params=["memory", *DURABLE])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """An empty store of each kind, and its time."""
    name: str = request.param
    made: World = request.getfixturevalue(f"{name}_world")
    made.store.open()
    with closing(made.store):
        yield made


@pytest.fixture(params=DURABLE)
def durable(request: pytest.FixtureRequest) -> Iterator[World]:
    """An empty store of each kind that commits."""
    made: World = request.getfixturevalue(f"{request.param}_world")
    made.store.open()
    with closing(made.store):
        yield made


@pytest.fixture
def memory_world() -> World:
    store = MemoryStore()
    return World(store, store.clock.advance)


@pytest.fixture
def sqlite_world(sqlite_path: Path) -> World:
    clock = Clock()
    return World(SqliteStore(f"sqlite:///{sqlite_path}", clock=clock), clock.advance)


@pytest.fixture
def postgres_world(postgres_url: str) -> World:
    """A database's clock cannot be set, so its past is moved instead."""

    def pass_time(seconds: float) -> None:
        with psycopg.connect(postgres_url) as connection:
            connection.execute(
                "update operon.workflows set created_at = created_at - %(by)s, ready_at = ready_at - %(by)s",
                {"by": f"{seconds} seconds"},
            )
            connection.execute(
                "update operon.executors set lease_until = lease_until - %(by)s", {"by": f"{seconds} seconds"}
            )

    return World(import_module("operon.stores.postgres").PostgresStore(postgres_url), pass_time)
