"""Records go when their time has come, little at a time; a key is known longer; a deleted workflow never comes back."""

from __future__ import annotations

from contextlib import closing, suppress
from datetime import timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from conformance.world import SUCCESS, World, start, step, together
from operon.core.commands import (
    Cancel,
    Cleaned,
    Count,
    Delete,
    Executors,
    Find,
    Load,
    Look,
    Prune,
    Retire,
    Seed,
    StartMany,
    Strip,
    Sweep,
    TakeOver,
)
from operon.core.function import Function, Rules
from operon.core.retention import keeping
from operon.core.rows import Filter, Guard, Limits, Obstacle, Outcome, Park, Policy, Swept, before_claims
from operon.core.sql import pyformat
from operon.core.states import ENDED, Status
from operon.engine.retention import PAGE, PAUSE, Retention
from operon.engine.settings import Settings
from operon.stores.postgres.session import SQL

if TYPE_CHECKING:
    from collections.abc import Callable

DAY = 86400.0
FAILURE = Outcome(Status.FAILED, error='"no"')
POLICY = Policy("greet", Status.SUCCEEDED, DAY)
INCARNATION = 1 << 20
"""Nonces that differ by this make claims that differ."""


def ended(world: World, key: str = "w", end: Outcome = SUCCESS, **options: Any) -> Guard:
    guard = world.run(key, **options)
    assert world.end(guard, end).written
    return guard


def records(world: World) -> list[str]:
    return sorted(row.id for row in world.ask(Find(Filter(limit=10_000))))


def sweep(world: World, *policies: Policy, limit: int = 100, keys: bool = False) -> list[Swept]:
    """Sweep from the beginning to the end, a page at a time."""
    swept = [world.ask(Sweep(policies or (POLICY,), limit, keys=keys))]
    while swept[-1].after is not None:
        policies = (policies or (POLICY,))[swept[-1].policy :]
        swept.append(world.ask(Sweep(policies, limit, swept[-1].after, keys=keys)))
    world.ask(Strip(10_000))
    return swept


def erased(world: World, key: str = "w", **options: Any) -> None:
    """Make a workflow of which only the key is left."""
    ended(world, key, **options)
    world.pass_time(2 * DAY)
    sweep(world)
    assert world.row(key).erased


# ── Records ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_record_is_kept_until_its_time_has_come(world: World) -> None:
    ended(world)
    world.pass_time(DAY - 60)
    assert sweep(world) == [Swept(0)]
    assert records(world) == ["w"]
    world.pass_time(61)
    assert sweep(world) == [Swept(1)]
    assert records(world) == []
    assert sweep(world) == [Swept(0)]


@pytest.mark.parametrize("outcome", sorted(ENDED))
def test_each_outcome_has_its_own_policy(world: World, outcome: Status) -> None:
    for status in ENDED:
        ended(world, status, Outcome(status))
    world.pass_time(2 * DAY)
    sweep(world, Policy("greet", outcome, DAY))
    assert records(world) == sorted(ENDED - {outcome})


def test_what_no_policy_names_is_kept(world: World) -> None:
    ended(world, name="another")
    world.pass_time(9 * DAY)
    assert sweep(world) == [Swept(0)]
    assert world.ask(Sweep((), 10)) == Swept(0)
    assert records(world) == ["w"]


@pytest.mark.parametrize("end", [None, Park(None), Outcome(Status.QUEUED), Outcome(Status.HELD, error="{}")])
def test_what_has_not_ended_is_kept(world: World, end: Outcome | Park | None) -> None:
    world.write(world.run(), end=end)
    world.pass_time(1000 * DAY)
    assert sweep(world, *(Policy("greet", status, 0.0) for status in Status)) == [Swept(0)]
    assert world.row().input == "[1]"


def test_a_sweep_is_small_and_the_next_goes_on_where_it_stopped(world: World) -> None:
    for n in range(25):
        ended(world, f"w{n:02}", end=SUCCESS if n % 2 else FAILURE)
    world.pass_time(2 * DAY)
    swept = sweep(world, POLICY, Policy("greet", Status.FAILED, DAY), limit=10)
    assert [it.gone for it in swept] == [10, 10, 5]
    assert records(world) == []


def test_what_may_not_go_yet_is_looked_at_once_in_a_round(world: World) -> None:
    """A page of children whose parent is kept does not hide what may go behind them."""
    parent = world.run("parent")
    for n in range(12):
        ended(world, f"child{n}", parent=parent)
    ended(world, "free")
    world.pass_time(2 * DAY)
    swept = sweep(world, limit=5)
    assert [it.gone for it in swept] == [0, 0, 1]
    assert "free" not in records(world)


def test_a_child_is_kept_as_long_as_its_parents_record(world: World) -> None:
    """A parent's replay, a retry years later included, reads the results of its children in their rows."""
    parent = world.run("parent")
    ended(world, "child", parent=parent)
    world.pass_time(2 * DAY)
    assert sweep(world) == [Swept(0)]
    world.end(parent, FAILURE)
    assert sweep(world) == [Swept(0)]
    world.pass_time(2 * DAY)
    assert sweep(world, Policy("greet", Status.FAILED, DAY)) == [Swept(1)]
    assert sweep(world) == [Swept(1)]
    assert records(world) == []


def test_what_is_awaited_is_kept(world: World) -> None:
    ended(world, "other")
    guard = world.run()
    world.sleep("sleeper", "w")
    world.end(guard)
    world.pass_time(2 * DAY)
    assert sweep(world) == [Swept(1)]
    assert records(world) == ["sleeper", "w"]


def test_two_sweepers_share_the_work(durable: World) -> None:
    for n in range(40):
        ended(durable, f"w{n}")
    durable.pass_time(2 * DAY)
    rounds: list[Callable[[], list[Swept]]] = [partial(sweep, durable, limit=5)] * 2
    gone = sum(it.gone for swept in together(rounds) for it in swept)
    gone += sum(it.gone for it in sweep(durable))
    assert (gone, records(durable)) == (40, [])


def test_the_journal_goes_in_small_batches_after_the_record(durable: World) -> None:
    guard = durable.run()
    durable.write(guard, *(step(str(n)) for n in range(1, 26)), end=SUCCESS)
    durable.pass_time(2 * DAY)
    assert durable.ask(Sweep((POLICY,), 10)).gone == 1
    assert [durable.ask(Strip(10)) for _ in range(4)] == [10, 10, 5, 0]
    assert durable.positions() == []
    assert sweep(durable, Policy("greet", Status.SUCCEEDED, 0.0), keys=True) == [Swept(1)]


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_the_key_is_left_of_an_erased_record(world: World) -> None:
    guard = world.run(user="ada", roles=("clerk",), attributes='{"a": 1}', request_id="r", traceparent="t")
    world.write(guard, step(), end=SUCCESS)
    ended_at = world.row().ended_at
    world.pass_time(2 * DAY)
    sweep(world)
    row = world.row()
    assert (row.input, row.output, row.error, row.user, row.roles) == ("", None, None, None, ())
    assert (row.attributes, row.request_id, row.traceparent) == (None, None, None)
    assert (row.status, row.digest, row.erased) == ("succeeded", "d", True)
    assert world.positions() == []
    assert world.ask(Count(Filter())) == 0
    seen = world.ask(Look(("w",)))["w"]
    assert (seen.status, seen.erased) == (Status.SUCCEEDED, row.ended_at)
    assert row.ended_at is not None
    assert ended_at is not None
    assert row.ended_at <= ended_at


@pytest.mark.parametrize("options", [{}, {"digest": "other"}, {"queue": "q"}, {"dedupe": "free"}, {"delay": 5.0}])
def test_a_known_key_never_runs_again(world: World, options: dict[str, Any]) -> None:
    world.ask(Seed("q", Limits(), "shop"))
    erased(world)
    for answer in (world.start(**options), *world.ask(StartMany((start(**options).row,)))):
        assert (answer.created, answer.name, answer.digest) == (False, "greet", "d")
        assert answer.outcome.status is Status.SUCCEEDED
        assert answer.outcome.erased == world.row().ended_at
    assert world.ask(Count(Filter())) == 0
    assert world.claim(world.enlist(), queues=(("q", 5),)) == []


def test_the_dedupe_of_an_erased_record_is_free(world: World) -> None:
    erased(world, dedupe="once")
    assert world.start("next", dedupe="once").created


def test_a_key_is_forgotten_when_its_time_has_come(world: World) -> None:
    erased(world)
    key = Policy("greet", Status.SUCCEEDED, 10 * DAY)
    assert sweep(world, key, keys=True) == [Swept(0)]
    world.pass_time(8 * DAY)
    assert sweep(world, key, keys=True) == [Swept(1)]
    assert world.ask(Look(("w",))) == {}
    assert world.start().created


def test_a_record_that_is_kept_keeps_its_key(world: World) -> None:
    ended(world)
    world.pass_time(99 * DAY)
    assert sweep(world, Policy("greet", Status.SUCCEEDED, DAY), keys=True) == [Swept(0)]
    assert records(world) == ["w"]


def test_a_key_is_known_until_all_that_descends_from_it_is_forgotten(world: World) -> None:
    """Otherwise the next workflow of this id would take the children of the first for its own."""
    parent = world.run("parent")
    ended(world, "child", parent=parent)
    ended(world, "kept", FAILURE, parent=parent)
    world.end(parent)
    world.pass_time(2 * DAY)
    sweep(world)
    sweep(world)
    key = Policy("greet", Status.SUCCEEDED, DAY)
    assert [sweep(world, key, keys=True) for _ in range(2)] == [[Swept(1)], [Swept(0)]]
    assert not world.start("parent").created
    sweep(world, Policy("greet", Status.FAILED, DAY))
    sweep(world, Policy("greet", Status.FAILED, DAY), keys=True)
    assert sweep(world, key, keys=True) == [Swept(1)]
    assert world.start("parent").created


# ── Deleting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", sorted({*ENDED, Status.HELD}))
def test_what_has_ended_or_is_held_can_be_deleted(world: World, status: Status) -> None:
    guard = world.run()
    world.write(guard, step(), end=Outcome(status, error="{}"))
    assert world.ask(Delete("w")) == 1
    assert world.ask(Look(("w",))) == {}
    assert world.ask(Load("w")) == ()
    assert world.ask(Delete("w")) == 0
    assert world.start(digest="another").created
    assert world.positions() == []


def test_a_key_can_be_deleted(world: World) -> None:
    erased(world)
    assert world.ask(Delete("w")) == 1
    assert world.start().created


@pytest.mark.parametrize("end", [None, Park(None), Outcome(Status.QUEUED)])
def test_what_lives_is_not_deleted(world: World, end: Outcome | Park | None) -> None:
    world.write(world.run(), step(), end=end)
    status = world.row().status
    assert world.ask(Delete("w")) == Obstacle("w", status)
    assert world.positions() == ["1"]


def test_all_that_descends_is_deleted_with_it(world: World) -> None:
    root = world.run("root")
    child = world.run("child", parent=root)
    ended(world, "grandchild", parent=child)
    world.end(child)
    world.end(root)
    ended(world, "stranger")
    assert world.ask(Delete("root")) == 3
    assert records(world) == ["stranger"]


@pytest.mark.parametrize("status", [Status.RUNNING, Status.HELD])
def test_nothing_is_deleted_above_what_lives(world: World, status: Status) -> None:
    root = world.run("root")
    child = world.run("child", parent=root)
    grandchild = world.run("grandchild", parent=child)
    if status is Status.HELD:
        world.end(grandchild, Outcome(status, error="{}"))
    world.end(child)
    world.end(root)
    assert world.ask(Delete("root")) == Obstacle("grandchild", status)
    assert len(records(world)) == 3


def test_a_child_whose_parent_lives_is_not_deleted(world: World) -> None:
    parent = world.run("parent")
    ended(world, "child", parent=parent)
    assert world.ask(Delete("child")) == Obstacle("parent", Status.RUNNING)
    world.end(parent)
    assert world.ask(Delete("child")) == 1


def test_who_awaits_what_was_deleted_is_woken(world: World) -> None:
    guard = world.run()
    world.end(guard, Outcome(Status.HELD, error="{}"))
    sleeper = world.run("sleeper")
    ended(world, "other")
    assert not world.end(sleeper, Park(None, ("w",))).parked
    world.ask(Delete("w"))
    assert not world.end(sleeper, Park(None, ("w",))).parked


@pytest.mark.parametrize("way", ["deleted", "forgotten"])
def test_the_owner_of_a_deleted_workflow_is_fenced_from_the_next_of_its_id(world: World, way: str) -> None:
    """Claims begin anew, so a zombie's claim could be the new owner's; it is not."""
    zombie = world.run("w", nonce=1 * INCARNATION)
    zombie = Guard("w", world.row().claim)
    world.ask(Cancel("w"))
    world.ask(Cleaned(world.row().executor or 0, "w"))
    if way == "deleted":
        assert world.ask(Delete("w")) == 1
    else:
        sweep(world, Policy("greet", Status.CANCELLED, 0.0))
        sweep(world, Policy("greet", Status.CANCELLED, 0.0), keys=True)
    executor = world.enlist()
    for nonce in (2 * INCARNATION, 3 * INCARNATION):
        assert world.start("w", executor=executor, nonce=nonce).created
        owner = Guard("w", world.row().claim)
        assert not world.write(zombie, step(), end=FAILURE).written
        assert world.start("child", parent=zombie).refused
        assert (world.status(), world.positions()) == ("running", [])
        assert world.write(owner, step(), end=SUCCESS).written
        world.ask(Delete("w"))


def test_every_way_to_insert_begins_the_claims_at_the_nonce(world: World) -> None:
    nonce = 5 * INCARNATION + 3
    executor = world.enlist()
    world.start("running", executor=executor, nonce=nonce)
    world.start("queued", nonce=nonce)
    world.ask(StartMany((start("a", nonce=nonce).row, start("b", nonce=nonce).row)))
    assert sorted(world.claim(executor)) == ["a", "b", "queued"]
    for key in ("running", "queued", "a", "b"):
        row = world.row(key)
        assert row.claim == before_claims(nonce) + 1 == start(key, nonce=nonce).row.first_claim
        assert row.fresh


def test_no_child_and_no_record_survives_a_deletion(world: World) -> None:
    """Children start and records come late while the tree is cancelled and deleted; nothing is left under the ids."""
    for turn in range(5):
        key = f"parent{turn}"
        parent = world.run(key)
        starts = [partial(world.start, f"{turn}/{n}", parent=parent) for n in range(4)]
        writes = [partial(world.write, parent, step(str(n))) for n in range(1, 5)]

        def remove(key: str = key) -> int | Obstacle:
            world.ask(Cancel(key))
            return world.ask(Delete(key))

        late: list[Callable[[], object]] = [*starts, *writes, remove]
        together(late)
        assert world.ask(Look((key, *(f"{turn}/{n}" for n in range(4))))) == {}
        assert world.ask(Load(key)) == ()
        assert world.start(key).created
        assert world.positions(key) == []
        world.ask(Cancel(key))


# ── What the dead leave behind ───────────────────────────────────────────────────────────────────────────────────────


def known(world: World) -> list[int]:
    return sorted(peer.id for peer in world.ask(Executors()))


def test_executors_are_forgotten_a_while_after_their_death(world: World) -> None:
    living, dead, holding = world.enlist(ttl=1e9), world.enlist(), world.enlist()
    world.run(executor=holding)
    world.ask(Retire(dead))
    world.kill(holding)
    assert world.ask(Prune(10, DAY)) == 0
    world.pass_time(2 * DAY)
    assert world.ask(Prune(10, DAY)) == 1
    assert known(world) == [living, holding]
    assert world.enlist() > holding


def test_what_a_forgotten_executor_claims_is_taken_over(world: World) -> None:
    """It was frozen for days, and is awake again before it learns that it is dead."""
    zombie = world.enlist()
    world.kill(zombie)
    world.pass_time(2 * DAY)
    assert world.ask(Prune(10, DAY)) == 1
    world.start()
    assert world.claim(zombie) == ["w"]
    assert not world.pulse(zombie).alive
    assert world.ask(TakeOver(10, 5, "{}")) == 1
    assert world.claim(world.enlist()) == ["w"]


def test_admissions_are_forgotten_when_no_window_reaches_them(world: World) -> None:
    executor = world.enlist()
    world.ask(Seed("q", Limits(rate=5, period=60.0), "shop"))
    for key in "ab":
        world.start(key, queue="q")
    assert len(world.claim(executor, queues=(("q", 5),))) == 2
    assert world.ask(Prune(10, DAY)) == 0
    world.pass_time(61)
    assert world.ask(Prune(10, DAY)) == 2


# ── Locks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sweep_passes_by_what_is_locked_and_holds_up_no_start(
    emptied: Callable[[], World], migrated_url: str
) -> None:
    """In an open transaction of a sweep, others start and sweep without waiting for its end."""
    world = emptied()
    world.store.open()
    with closing(world.store):
        for n in range(6):
            ended(world, f"w{n}")
        world.pass_time(2 * DAY)
        aged: dict[str, Any] = {
            "names": ["greet"], "statuses": [4], "keeps": [DAY], "after_ats": [float("-inf")], "after_ids": [""],
            "limit": 4,
        }  # fmt: skip
        with psycopg.connect(migrated_url) as sweeper:
            sweeper.execute(pyformat(SQL["erase"]).encode(), aged)
            assert world.start("fresh").created
            assert world.ask(Sweep((POLICY,), 10)).gone == 2
        assert records(world) == ["fresh"]


def test_twenty_thousand_records_go_a_page_at_a_time(durable: World) -> None:
    """No commit of a sweep changes more than a page, however much there is to do; starts get in between."""
    root = durable.run("root", name="greet")
    for begin in range(0, 20_000, 4000):
        durable.ask(StartMany(tuple(start(f"w{begin + n}", parent=root).row for n in range(4000))))
    assert len(durable.ask(Cancel("root"))) == 20_001
    durable.pass_time(2 * DAY)
    function = Function(lambda: None, "workflow", "greet", Rules())
    retention = Retention(lambda: {"greet": function}, Settings(keep=keeping(timedelta(days=1))))
    sizes: list[int] = []
    for tick in count(1):
        op, answer = retention.tick(tick * PAUSE), None
        with suppress(StopIteration):
            while True:
                command = op.send(answer)
                answer = durable.ask(command)
                sizes.append(answer.gone if isinstance(answer, Swept) else answer)
        assert durable.start(f"between{tick}").created
        if durable.ask(Count(Filter())) == tick:
            break
    assert (sum(sizes), max(sizes)) == (20_001, PAGE)
