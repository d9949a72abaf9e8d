"""Commands are committed together, and a bad or blocked one keeps nobody waiting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import psycopg
import pytest

from children import PATIENCE
from conformance.world import SUCCESS, World, start, step, together
from operon.core.commands import Advance, Command, LaneCommand, Load
from operon.core.rows import Guard, Park, record_parameters, workflow_parameters
from operon.core.sql import pyformat
from operon.errors import StoreError, StoreUnavailable
from operon.stores.postgres import PostgresStore, writes
from operon.stores.postgres.lane import PostgresLane
from operon.stores.postgres.lanes import Ticket
from operon.stores.postgres.patience import Patience
from operon.stores.postgres.session import Session
from relaying import Relay

SOON = 30.0
"""Seconds: far more than it takes, far less than the test keeps the lock."""


@pytest.fixture
def world(postgres_url: str) -> Iterator[World]:
    with closing(PostgresStore(postgres_url)) as store:
        store.open()
        yield World(store, lambda _: None)


def test_alone_every_start_and_step_is_one_round_trip(postgres_url: str) -> None:
    """N steps are N + 1 statements and N + 1 commits: the last step and the outcome are one."""
    with closing(Relay(postgres_url)) as relay, closing(PostgresStore(relay.url, lanes=1)) as store:
        store.open()
        world = World(store, lambda _: None)
        executor = world.enlist()
        for key in ("the first prepares the statements", "w"):
            before = relay.trips
            guard = world.run(key, executor=executor)
            for position in ("1", "2", "3"):
                world.write(guard, step(position))
            world.write(guard, step("4"), end=SUCCESS)
        assert relay.trips - before == 5


def test_a_park_that_awaits_is_one_round_trip(postgres_url: str) -> None:
    """Lock, then look: two statements, with a snapshot each, sent together."""
    with closing(Relay(postgres_url)) as relay, closing(PostgresStore(relay.url, lanes=1)) as store:
        store.open()
        world = World(store, lambda _: None)
        world.run("child")
        for key in ("the first prepares the statements", "w"):
            executor = world.enlist()
            world.start(key, executor=executor)
            before = relay.trips
            world.end(Guard(key, 1), Park(None, ("child",)))
        assert relay.trips - before == 1


def test_the_server_plans_no_statement_anew(world: World, postgres_url: str) -> None:
    """Neither for small batches nor for large ones: to plan takes longer than to carry out."""
    executor = world.enlist()
    guards = [world.run(f"w{n}", executor=executor) for n in range(20)]
    with closing(PostgresLane(postgres_url, postgres_url, Patience(PATIENCE))) as lane:
        for turn in range(1, 9):
            for some in (guards[:3], guards):
                tickets = [Ticket(Advance(it.workflow_id, 1, (step(f"{turn}{len(some)}"),))) for it in some]
                assert not lane.carry(tickets, lambda them, answers: [*map(Ticket.settle, them, answers)])
                assert all(ticket.result(PATIENCE).written for ticket in tickets)
        (planned,) = lane.session.connection.execute("select sum(custom_plans) as number from pg_prepared_statements")
    assert planned["number"] == 0


def test_what_is_submitted_at_once_is_answered_in_its_order(world: World) -> None:
    """What may not ride in a lane goes its own way, and the rest with it."""
    store = world.store
    assert isinstance(store, PostgresStore)
    executor = world.enlist()
    starts = [start(f"w{n}", executor=executor) for n in range(3)]
    assert [future.result(PATIENCE).created for future in store.submit_many(starts)] == [True] * 3
    commands: list[Command[Any]] = [Advance("w0", 1, (step("1"),)), Load("w1"), Advance("w2", 2)]
    written, loaded, refused = (future.result(PATIENCE) for future in store.submit_many(commands))
    assert (written.written, loaded, refused.written) == (True, (), False)


def test_branches_of_one_workflow_are_committed_together(world: World) -> None:
    guard = world.run()
    futures = [world.store.submit(Advance("w", 1, (step(str(n)),))) for n in range(1, 200)]
    assert all(future.result(PATIENCE).written for future in futures)
    assert world.write(guard, end=SUCCESS).written
    assert len(world.positions()) == 199


def test_neighbours_commit_while_rows_are_locked_elsewhere(world: World, postgres_url: str) -> None:
    """An open `within=` holds a key, a zombie's open record a position: only who wants the same waits for them."""
    executor = world.enlist()
    guards = [world.run(f"w{n}", executor=executor) for n in range(100)]
    queries = world.store.queries
    with psycopg.connect(postgres_url) as user:
        user.execute(pyformat(queries["join"]).encode(), workflow_parameters(start("taken").row))
        user.execute(pyformat(queries["record"]).encode(), record_parameters(guards[50], step("1", output="theirs")))
        blocked = [world.store.submit(start("taken"))]
        records = [world.store.submit(Advance(guard.workflow_id, 1, (step("1"),))) for guard in guards]
        blocked.append(world.store.submit(start("taken")))
        zombie = records.pop(50)
        assert all(future.result(SOON).written for future in records)
        assert world.start("another").created
        assert not zombie.done()
        assert not any(future.done() for future in blocked)
    assert not any(future.result(SOON).created for future in blocked)
    assert not zombie.result(SOON).written
    assert [entry.output for entry in world.ask(Load("w50"))] == ["theirs"]


def test_a_lock_that_is_never_released_is_reported_in_the_end(postgres_url: str) -> None:
    with closing(PostgresStore(postgres_url, patience=0.3)) as store, psycopg.connect(postgres_url) as user:
        store.open()
        user.execute(pyformat(store.queries["join"]).encode(), workflow_parameters(start("taken").row))
        with pytest.raises(StoreUnavailable, match="keeps a row locked"):
            store.ask(start("taken"))


def test_many_bad_commands_fail_alone(world: World) -> None:
    """Whatever the server refuses, here a NUL, fails by itself, and its neighbours are not rolled back."""
    executor = world.enlist()
    commands = [start(f"w{n}", executor=executor, input="\0" if n % 10 == 0 else "[]") for n in range(200)]
    futures = [world.store.submit(command) for command in commands]
    failed = [n for n, future in enumerate(futures) if isinstance(future.exception(SOON), StoreError)]
    assert failed == [*range(0, 200, 10)]
    assert all(future.result(PATIENCE).created for n, future in enumerate(futures) if n % 10)


def test_an_interrupted_leader_leaves_the_lane_to_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the thread that commits for all: it is gone, and what it carried is asked for again."""
    executor, interrupts = world.enlist(), [KeyboardInterrupt()]
    perform = writes.perform

    def interrupted(session: Session, commands: Sequence[LaneCommand], *, again: bool) -> list[writes.Answer]:
        answers = perform(session, commands, again=again)
        if interrupts:
            raise interrupts.pop()
        return answers

    monkeypatch.setattr("operon.stores.postgres.writes.perform", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.start("w", executor=executor)
    assert world.write(Guard("w", 1), step("1")).written
    starts = [partial(world.start, f"x{n}", executor=executor) for n in range(8)]
    assert all(answer.created for answer in together(starts))
