"""Whoever has locked a row keeps nobody waiting but those who want that row: every service of a process goes on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from children import eventually
from conformance.test_batches import form, formed, lead, queued, shares
from conformance.test_schedules import fire, firing, planned
from conformance.world import SUCCESS, World, claim, start, step
from operon.core.commands import (
    Advance,
    Beat,
    Bury,
    Cancel,
    Command,
    Due,
    Executors,
    Fire,
    Fires,
    HandBack,
    Opening,
    Prune,
    Retire,
    Ripen,
    Running,
    Seed,
    Strip,
    Sweep,
    TakeOver,
    Wake,
)
from operon.core.rows import Limits, Policy
from operon.core.states import Status
from operon.errors import RowLocked
from operon.stores.postgres import PostgresStore

SOON = 20.0
"""Seconds: far more than it takes, far less than a lock is kept."""
TABLES = ("workflows", "steps", "awaits", "executors", "queues", "admissions", "schedules")
QUEUES = (("q", 100), ("other", 100))


@pytest.fixture
def world(emptied: Callable[[], World], migrated_url: str) -> Iterator[World]:
    made = emptied()
    with closing(PostgresStore(migrated_url)) as store:
        store.open()
        yield World(store, made.pass_time)
    made.store.close()


@contextmanager
def locked(url: str, table: str, key: str | None = None) -> Generator[psycopg.Connection[Any]]:
    """Keep rows of a table locked, as a support script does that somebody forgot: all, or the workflow of one id."""
    with psycopg.connect(url) as session:
        session.execute("set lock_timeout = '10s'")
        rows = SQL("select 1 from operon.{} where %s::text is null or to_jsonb({}) ->> 'id' = %s for update")
        session.execute(rows.format(Identifier(table), Identifier(table)), [key, key])
        yield session
        session.rollback()


def busy(world: World, url: str) -> dict[str, int]:
    """Give every service something to do; answers who is alive here, and who is not."""
    me, dead, doomed = world.enlist(), world.enlist(), world.enlist()
    world.ask(Seed("q", Limits(rate=5, period=60.0), "shop"))
    world.start("queued", queue="q")
    world.claim(me, queues=QUEUES)
    world.start("in line", queue="q")
    world.start("ready")
    world.run("child")
    world.sleep("parent", "child")
    world.end(world.run("gone"))
    world.run("orphan", executor=dead)
    world.write(world.run("mine", executor=me), step("1"))
    world.kill(dead)
    with psycopg.connect(url) as session:  # the word that woke them was lost
        session.execute("update operon.workflows set status = 4, ended_at = now() where id = 'child'")
        session.execute("update operon.workflows set erased = 1 where id = 'gone'")
    planned(world)
    return {"me": me, "dead": dead, "doomed": doomed}


def services(ids: dict[str, int]) -> list[Command[Any]]:
    """Whatever a process asks for by itself."""
    me, policies = ids["me"], (Policy("greet", Status.SUCCEEDED, 0.0),)
    return [
        Beat(me, 15.0, Fires(("s",))),
        Wake(("child",)),
        Wake(None),
        TakeOver(100, 5, "null"),
        Bury(((ids["doomed"], 0),), proven=True),
        claim(me, queues=QUEUES),
        Opening(("q",)),
        Ripen(("q",), (("greet", 2, 9.0),)),
        Due(Fires(("s",)), 10),
        Executors(),
        Running(me),
        Sweep(policies, 10),
        Sweep(policies, 10, keys=True),
        Strip(10),
        Prune(10, 0.0),
        HandBack(me),
        Retire(me),
    ]


@pytest.mark.parametrize("table", TABLES)
def test_no_service_waits_for_a_row_that_is_locked_elsewhere(world: World, migrated_url: str, table: str) -> None:
    """With every row of a table locked, each of them answers; what it had to leave is done when the lock is gone."""
    ids = busy(world, migrated_url)
    with locked(migrated_url, table):
        for command in services(ids):
            world.store.submit(command).result(SOON)
    for command in services(ids):
        world.ask(command)
    world.ask(Bury(((ids["doomed"], world.beats()[ids["doomed"]]),), proven=True))
    world.pass_time(100)  # what was taken over is tried again a little later
    everybody = world.enlist()
    world.claim(everybody, queues=QUEUES)
    assert {world.status(key) for key in ("in line", "ready", "parent", "orphan", "mine")} == {"running"}
    assert {row.id for row in world.ask(Running(everybody))} >= {"parent", "mine"}


@pytest.mark.parametrize("held", ["parent", "ready", "in line", "orphan", "mine"])
def test_one_locked_workflow_waits_alone(world: World, migrated_url: str, held: str) -> None:
    """Whatever state it is in, the others are claimed; it follows when the lock is gone."""
    ids, waiting = busy(world, migrated_url), ["in line", "mine", "orphan", "parent", "ready"]
    heir = world.enlist()

    def everything() -> list[str]:
        for command in (Wake(None), TakeOver(100, 5, "null"), HandBack(ids["me"])):
            world.store.submit(command).result(SOON)
        return sorted(it.row.id for it in world.store.submit(claim(heir, queues=QUEUES)).result(SOON))

    with locked(migrated_url, "workflows", held):
        assert [key for key in everything() if key in waiting] == [key for key in waiting if key != held]
    assert held in everything()


def test_a_schedule_that_is_locked_is_told_at_once(world: World, migrated_url: str) -> None:
    """Nobody waits for it: the next heartbeat fires it."""
    planned(world)
    with locked(migrated_url, "schedules"), pytest.raises(RowLocked):
        world.store.submit(Fire("s", 1, 2e9, (firing("w"),))).result(SOON)
    assert fire(world, firing("w")) is not None
    with locked(migrated_url, "workflows", "w"):
        assert world.store.submit(Fire("s", 2, 3e9, (firing("x"),))).result(SOON) is not None
    with locked(migrated_url, "workflows", "w"), pytest.raises(RowLocked):
        world.store.submit(Fire("s", 3, 4e9, (firing("x", overlap="queue"),))).result(SOON)


def test_an_item_that_is_locked_does_not_keep_its_batch_from_ending(world: World, migrated_url: str) -> None:
    """It is woken instead, and ends as its journal says."""
    _, batch = formed(world, "a", "b")
    with locked(migrated_url, "workflows", "a"):
        end = shares(world, "a", "b")
        assert world.store.submit(Advance(batch.workflow_id, batch.claim, (), end)).result(SOON).written
        assert (world.status("a"), world.status("b")) == ("waiting", "succeeded")
    assert world.ask(Wake(None)) == 1
    assert world.claim(world.enlist(), queues=QUEUES) == ["a"]


def test_a_batch_forms_without_those_who_are_locked(world: World, migrated_url: str) -> None:
    queued(world, "a", "b", "c")
    world.pass_time(11)
    (leader,) = lead(world, world.enlist())
    with locked(migrated_url, "workflows", "b"):
        text = world.store.submit(form(leader)).result(SOON)
    assert text is not None
    assert '"b"' not in text
    assert '"c"' in text


def test_those_who_wait_for_a_lock_keep_no_connection(world: World, migrated_url: str) -> None:
    """However many cancellations wait, whoever reads, claims, or cancels another is served."""
    for n in range(8):
        world.run(f"w{n}")
    world.run("free")
    world.start("ready")
    with locked(migrated_url, "workflows") as session:
        session.execute("savepoint all_but_one")
        waiting = [world.store.submit(Cancel(f"w{n}")) for n in range(8)]
        assert world.store.submit(Running(1)).result(SOON) is not None
        assert world.store.submit(claim(world.enlist())).result(SOON) == ()
        assert not any(it.done() for it in waiting)
        session.rollback()
        assert [len(it.result(SOON)) for it in waiting] == [1] * 8
    assert len(world.store.submit(Cancel("free")).result(SOON)) == 1


def test_a_launch_that_changes_nothing_waits_for_no_queue(world: World, migrated_url: str) -> None:
    """It declares what is declared already."""
    world.ask(Seed("q", Limits(concurrency=1), "shop"))
    with locked(migrated_url, "queues"):
        assert world.store.submit(Seed("q", Limits(concurrency=1), "shop")).result(SOON) is None


def test_the_end_of_a_claimed_workflow_is_recorded_beside_a_lock(world: World, migrated_url: str) -> None:
    guard, other = world.run("w"), world.run("locked")
    with locked(migrated_url, "workflows", "locked"):
        theirs = world.store.submit(Advance(other.workflow_id, other.claim, (), SUCCESS))
        assert world.store.submit(Advance(guard.workflow_id, guard.claim, (), SUCCESS)).result(SOON).written
        assert world.store.submit(start("next")).result(SOON).created
        assert not theirs.done()
    assert theirs.result(SOON).written


def test_who_is_cancelled_while_he_parks_keeps_no_record_of_what_he_awaited(world: World, migrated_url: str) -> None:
    """A cancellation that waited for the commit which parks a workflow is older than the note of what that awaits."""
    world.run("parent")
    child = world.run("child")
    with psycopg.connect(migrated_url) as session:
        session.execute("update operon.workflows set status = 2, executor = null where id = 'parent'")
        session.execute("insert into operon.awaits (workflow_id, awaited) values ('parent', 'child')")
        cancelled = world.store.submit(Cancel("parent"))
        eventually(lambda: blocked(migrated_url), "the cancellation waits for the row")
        session.commit()
    cancelled.result(SOON)
    world.end(child)
    world.pass_time(1)
    assert world.status("parent") == "cancelled"
    assert world.ask(Sweep((Policy("greet", Status.SUCCEEDED, 0.0),), 10)).gone == 1, "nobody awaits it any more"


def blocked(url: str) -> bool:
    """Whether somebody waits for a row."""
    with psycopg.connect(url, autocommit=True) as session:
        waiting = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        return session.execute(waiting).fetchone() is not None
