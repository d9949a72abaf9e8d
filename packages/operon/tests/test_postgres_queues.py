"""How Postgres admits, attacked: each limit holds while another claim is under way, and fails to without the words.

A claim that has picked but not committed yet is the one order of events that matters: its picks are in no snapshot.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest

from conformance.world import World
from operon.core.commands import Seed
from operon.core.rows import Limits
from operon.stores.postgres import PostgresStore

ADMIT = "select id from operon.admit(%s, 100, '{q}', '{100}', '{greet}', '{}', 'v1')"


@pytest.fixture
def world(postgres_url: str) -> Iterator[World]:
    with closing(PostgresStore(postgres_url)) as store:
        store.open()
        yield World(store, lambda _: None)


@contextmanager
def claiming(url: str, executor: int) -> Generator[list[str]]:
    """Keep a claim open; it commits at the end. One that waits for another claim waits in vain, and fails."""
    with psycopg.connect(url) as connection:
        connection.execute("set lock_timeout = '1s'")
        yield [str(row[0]) for row in connection.execute(ADMIT, [executor])]


def change(url: str, old: str, new: str) -> None:
    """Put other words into the function that admits."""
    with psycopg.connect(url) as connection:
        row = connection.execute("select pg_get_functiondef('operon.admit'::regproc)").fetchone()
        assert row is not None
        text = str(row[0])
        assert text.count(old) == 1
        connection.execute(text.replace(old, new).encode())


def fill(world: World, limits: Limits) -> None:
    world.ask(Seed("q", limits, "shop"))
    for n in range(4):
        world.start(f"w{n}", queue="q")


LIMITS = [
    Limits(concurrency=1),
    Limits(rate=1, period=3600.0),
    Limits(partition_concurrency=1),
    Limits(partition_rate=1, partition_period=3600.0),
]


@pytest.mark.parametrize(
    "limits", LIMITS, ids=lambda it: next(name for name in it.__struct_fields__ if getattr(it, name))
)
@pytest.mark.parametrize("mutated", [False, True], ids=["as it is", "without its lock"])
def test_a_limit_holds_while_another_claim_is_under_way(
    world: World, postgres_url: str, limits: Limits, mutated: bool
) -> None:
    """Whoever finds the queue's lock taken leaves the queue.

    Without that lock two would run where one may, if their picks differ: here, because something urgent came between.
    There is one partition: going on to the next one would write to the queue's row, and be a lock of its own.
    """
    fill(world, limits)
    if mutated:
        change(postgres_url, "for no key update of u skip locked", "")
    with claiming(postgres_url, world.enlist()) as first:
        assert first == ["w0"]
        world.start("urgent", queue="q", priority=1)
        with claiming(postgres_url, world.enlist()) as second:
            assert second == (["urgent"] if mutated else [])
    with claiming(postgres_url, world.enlist()) as third:
        assert third == []


def test_a_cancellation_under_way_is_waited_for_by_nobody(world: World, postgres_url: str) -> None:
    """What somebody has locked is left out, and the others of the line are served all the same."""
    fill(world, Limits(concurrency=2))
    with psycopg.connect(postgres_url) as other:
        other.execute("update operon.workflows set status = 6, claim = claim + 1 where id = 'w0'")
        with claiming(postgres_url, world.enlist()) as picked:
            assert "w0" not in picked
    assert world.status("w0") == "cancelled"


def test_claims_of_different_queues_do_not_meet(world: World, postgres_url: str) -> None:
    fill(world, Limits(concurrency=1))
    world.ask(Seed("r", Limits(concurrency=1), "shop"))
    world.start("other", queue="r")
    with claiming(postgres_url, world.enlist()) as first:
        assert first == ["w0"]
        assert world.claim(world.enlist(), queues=(("q", 9), ("r", 9))) == ["other"]
