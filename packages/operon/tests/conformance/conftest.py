"""The stores that the suite runs on: each must mean the same by every command."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from conformance.world import World
from databases import Databases, delete_all
from operon.stores.memory import Clock, MemoryStore
from operon.stores.postgres import PostgresStore
from operon.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from pathlib import Path


DURABLE = ("sqlite", "postgres")


@pytest.fixture(params=["memory", *DURABLE])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """An empty store of each kind, and its time."""
    with opened(request) as made:
        yield made


@pytest.fixture(params=DURABLE)
def durable(request: pytest.FixtureRequest) -> Iterator[World]:
    """An empty store of each kind that commits."""
    with opened(request) as made:
        yield made


@contextmanager
def opened(request: pytest.FixtureRequest) -> Generator[World]:
    made: World = request.getfixturevalue(f"{request.param}_world")
    made.store.open()
    with closing(made.store):
        yield made


@pytest.fixture
def memory_world() -> World:
    clock = Clock()
    return World(MemoryStore(clock), clock.advance)


@pytest.fixture
def sqlite_world(sqlite_path: Path) -> World:
    clock = Clock()
    return World(SqliteStore(f"sqlite:///{sqlite_path}", clock=clock), clock.advance)


@pytest.fixture(scope="session")
def migrated_url(databases: Databases) -> Iterator[str]:
    """The URL of a database that has the schema."""
    with databases.ready() as url:
        yield url


@pytest.fixture(scope="session")
def session(migrated_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A session in that database, in which it is emptied and its past is moved: to connect takes longer than either."""
    with psycopg.connect(migrated_url, autocommit=True) as session:
        yield session


@pytest.fixture
def emptied(migrated_url: str, session: psycopg.Connection[Any]) -> Callable[[], World]:
    """Empty that database, and give a store in it; its executors count from one again."""

    def empty() -> World:
        with session.transaction():
            delete_all(session)
        return World(PostgresStore(migrated_url), moving_the_past_in(session))

    return empty


@pytest.fixture
def postgres_world(emptied: Callable[[], World]) -> World:
    return emptied()


def moving_the_past_in(session: psycopg.Connection[Any]) -> Callable[[float], None]:
    """Let time pass in a database whose clock cannot be set: move all instants that matter into the past."""

    def pass_time(seconds: float) -> None:
        by = {"by": timedelta(seconds=seconds)}
        with session.transaction():
            session.execute(
                "update operon.workflows set created_at = created_at - %(by)s, ready_at = ready_at - %(by)s, "
                "cleanup_until = cleanup_until - %(by)s, "
                "rank = rank - %(by)s, ended_at = ended_at - %(by)s",
                by,
            )
            session.execute("update operon.schedules set next_at = next_at - %(by)s", by)
            session.execute("update operon.admissions set at = at - %(by)s", by)
            session.execute("update operon.executors set lease_until = lease_until - %(by)s", by)

    return pass_time
