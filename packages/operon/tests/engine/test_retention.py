"""Retention and deletion through an app: what is kept how long, and what the key of a deleted record answers."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

import operon
import operon.core.apps
from children import eventually
from engine.conftest import MakeApp
from engine.gates import Gate
from operon import (
    Client,
    Handle,
    Operon,
    aio,
    cancel,
    delete,
    describe,
    enqueue,
    enqueue_many,
    find,
    retrieve,
    start,
    steps,
)
from operon.core import deleting
from operon.core.commands import Beat, Command, Describe, Op, Sweep
from operon.core.recording import note
from operon.core.rows import Guard, Swept
from operon.engine import retention as pages
from operon.engine.retention import LONG_PAUSE, PAUSE, Retention
from operon.errors import (
    DeclarationError,
    Duplicate,
    KeyConflict,
    NotEnded,
    NotFound,
    RecordDeleted,
    StillRunning,
    Suspended,
)

NOW = timedelta(0)


def sweep(app: Operon) -> None:
    """Do all that the app's processes would do in some hours."""
    engine = app._engine
    assert engine is not None
    retention = Retention(lambda: app.functions, engine.settings)
    for tick in range(12):
        engine.drive(retention.tick(tick * LONG_PAUSE))


def sweeps_when_told(app: Operon) -> None:
    """Let the app's own sweeper rest, which would be at it at any moment: a record goes when the test says so."""
    engine: Any = app._engine
    retention = engine.service._retention
    eventually(lambda: retention._next > 0, "its first look, which would undo this, never ended")
    retention._next = float("inf")


def tidy(app: Operon) -> bool:
    """Whether all that was cancelled has cleaned up."""
    engine = app._engine
    assert engine is not None
    return not (engine.runs.claims() or engine.cleaning or engine.store.ask(Beat(engine.executor, 1.0)).untidy)


def kept() -> set[str]:
    return {record.id for record in find(limit=1000)}


# ── Policies ─────────────────────────────────────────────────────────────────────────────────────────────────────────

OUTCOMES = ("succeeded", "failed", "cancelled")
ALL = {f"{name} {outcome}" for name in ("plain", "special") for outcome in OUTCOMES}


def run_each(app: Operon) -> None:
    """Let workflows end in each way, of a function that the app's policy is for, and of one with its own."""

    def body(how: str) -> None:
        if how == "failed":
            raise ValueError(how)
        if how == "cancelled":
            operon.sleep(3600)

    plain = app.workflow(name="plain")(body)
    special = app.workflow(name="special", keep={"failed": None, "cancelled": NOW})(body)
    with app:
        for flow in (plain, special):
            handles = {how: start(flow.using(key=f"{flow.name} {how}"), how) for how in OUTCOMES}
            cancel(handles["cancelled"].id)
            operon.gather(*handles.values(), errors="return")
        eventually(lambda: tidy(app))
        sweep(app)


@pytest.mark.parametrize(
    ("keep", "gone"),
    [
        (None, {"special cancelled"}),
        (timedelta(days=1), {"special cancelled"}),
        (timedelta.max, {"special cancelled"}),
        (NOW, ALL - {"special failed"}),
        (0.0, ALL - {"special failed"}),
        ({"succeeded": NOW, "failed": None}, {"plain succeeded", "special succeeded", "special cancelled"}),
        ({"failed": NOW}, {"plain failed", "special cancelled"}),
    ],
)
def test_records_are_kept_as_the_app_and_the_workflow_say(make: MakeApp, keep: Any, gone: set[str]) -> None:
    """A workflow's own policy counts for the outcomes it names, the app's for the others; None is for ever."""
    run_each(make(keep=keep))
    with make() as reader:
        reader.workflow(name="something else", keep=NOW)(len)
        sweep(reader)
        assert kept() == ALL - gone


def test_a_process_sweeps_only_what_it_knows(make: MakeApp) -> None:
    """Several apps share a database: what one does not declare is not its to delete; an alias is a declaration."""
    run_each(make())
    other = make("other", keep=NOW)
    other.workflow(name="renamed", aliases=("special",))(len)
    with other:
        sweep(other)
        assert kept() == {f"plain {outcome}" for outcome in OUTCOMES}


def test_the_executor_sweeps_after_a_heartbeat(make: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make(keep=NOW)
    flow = app.workflow(name="flow")(len)
    with app:
        flow.using(key="k")("x")
        minutes, tick = count(1), Retention.tick

        def later(self: Retention, now: float) -> Op[int]:
            return tick(self, now + next(minutes) * PAUSE)

        monkeypatch.setattr(Retention, "tick", later)
        eventually(lambda: not kept())


def test_a_process_that_is_no_executor_does_not_wake_for_old_records(make: MakeApp) -> None:
    """What was due meanwhile is looked for after its next heartbeat; else it would find no rest until then."""
    app = make(keep=NOW, lease=3600.0)
    with app:
        engine: Any = app._engine
        service = engine.service
        sweeps_when_told(app)
        service.alive, service._sweep_at = False, 0.0
        engine.drive(service._round())
        rests = service._first_due()
        service.alive = True
    assert rests is None or rests > 0.0


def test_many_old_records_go_without_a_heartbeat_for_each_page(make: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more become old in a heartbeat than are on a page, the database would grow for ever."""
    app = make(keep=NOW, lease=3600.0)
    flow = app.workflow(name="flow")(len)
    with app:
        sweeps_when_told(app)
        for number in range(9):
            flow.using(key=f"k{number}")("x")
        engine: Any = app._engine
        monkeypatch.setattr(pages, "PAGE", 2)
        engine.service._retention._next = 0.0
        engine.service.beat()
        eventually(lambda: not kept())


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        ({"held": NOW}, "held has not ended"),
        ({"succeded": NOW}, "'succeded' is no outcome"),
        (timedelta(-1), "at least 0"),
        ({"failed": "a week"}, "'a week'"),
    ],
)
def test_what_cannot_be_kept_is_refused_where_it_is_declared(keep: Any, says: str) -> None:
    with pytest.raises(DeclarationError, match=says):
        Operon("app", keep=keep)
    app = Operon("app")
    with pytest.raises(DeclarationError, match=says):
        app.workflow(keep=keep)(len)
    with pytest.raises(DeclarationError, match="keep_keys="):
        Operon("app", keep_keys=timedelta(-1))


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Shop:
    """A workflow and a transaction whose records are deleted, and how often each has run."""

    def __init__(self, app: Operon) -> None:
        self.app = app
        self.runs: list[object] = []
        self.queue = app.queue("q")
        self.flow = app.workflow(name="flow")(self._flow)

        @app.workflow(name="parent")
        def parent(key: str, n: int) -> str:
            handle = start(self.flow.using(key=key), n)
            try:
                return str(handle.result())
            except RecordDeleted as error:
                return f"deleted: {error}"

        self.parent = parent

    def _flow(self, n: int) -> int:
        self.runs.append(n)
        return n

    def by(self, way: str, flow: Any, n: int) -> Any:
        """Start it one way, and wait for its result."""
        if way == "call":
            return flow(n)
        if way == "start":
            return start(flow, n).result(20)
        if way == "enqueue":
            return enqueue(self.queue, flow, n).result(20)
        return enqueue_many(self.queue, [flow.bind(n)])[0].result(20)


@pytest.fixture
def shop(make: MakeApp) -> Any:
    app = make(keep=NOW)
    shop = Shop(app)
    with app:
        sweeps_when_told(app)
        assert shop.flow.using(key="k")(7) == 7
        sweep(app)
        assert shop.runs == [7]
        yield shop
        assert shop.runs == [7], "it ran again"


WAYS = ("start", "call", "enqueue", "enqueue_many")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("on_duplicate", ["join", "first", "reject"])
def test_a_known_key_is_joined_and_never_runs_again(shop: Shop, way: str, on_duplicate: Any) -> None:
    flow = shop.flow.using(key="k", on_duplicate=on_duplicate)
    if on_duplicate == "reject":
        with pytest.raises(Duplicate, match="'k' is taken"):
            shop.by(way, flow, 7)
        return
    with pytest.raises(RecordDeleted, match=r"k succeeded at 20.* its record was deleted"):
        shop.by(way, flow, 7)
    if on_duplicate == "join":
        with pytest.raises(KeyConflict, match="other arguments"):
            shop.by(way, flow, 8)
    else:
        with pytest.raises(RecordDeleted):
            shop.by(way, flow, 8)


def test_the_handle_that_was_given_before_says_that_the_record_is_deleted(shop: Shop) -> None:
    handle: Handle[int] = Handle(operon.core.apps.locate(), "k")
    with pytest.raises(RecordDeleted, match="use another key"):
        handle.result(20)


def test_who_asks_for_a_deleted_record_is_told_that_it_was_there(shop: Shop) -> None:
    asks: list[Callable[[str], object]] = [describe, steps, retrieve, cancel]
    for ask in asks:
        with pytest.raises(NotFound, match="record was deleted") as caught:
            ask("k")
        assert caught.type is RecordDeleted
    assert find() == []


def test_a_workflow_remembers_that_a_record_was_deleted(shop: Shop) -> None:
    """The error is part of the parent's journal; so is the result of a workflow that is not its child."""
    said = shop.parent.using(key="parent")("k", 7)
    assert said.startswith("deleted: k succeeded at ")
    assert next(step.error for step in steps("parent") if step.kind == "result").__class__ is RecordDeleted


def test_a_deleted_key_runs_anew(shop: Shop) -> None:
    delete("k")
    with pytest.raises(NotFound) as caught:
        describe("k")
    assert caught.type is NotFound
    assert start(shop.flow.using(key="k"), 9).result(20) == 9
    assert shop.runs == [7, 9]
    shop.runs.pop()


def test_a_key_is_forgotten_when_its_time_has_come(make: MakeApp) -> None:
    app = make(keep=NOW, keep_keys=NOW)
    flow = app.workflow(name="flow")(len)
    with app:
        assert flow.using(key="k")("x") == 1
        sweep(app)
        assert flow.using(key="k")("another") == 7


def test_a_replay_has_the_result_of_a_stranger_whose_record_was_deleted(make: MakeApp) -> None:
    """Only a child's result is read in the child's row, which is kept as long as its parent's."""
    app = make(keep=NOW, grace=0.0)
    calls: list[tuple[int, int]] = []

    @app.workflow(name="stranger")
    def stranger(n: int) -> int:
        return n + 1

    @app.workflow(name="flow", keep=timedelta(days=1))
    def flow() -> tuple[int, int]:
        seen = start(stranger.using(key="s"), 1).result(), start(stranger, 2).result()
        calls.append(seen)
        gate.pass_through()
        return seen

    gate = Gate(app)
    with app:
        sweeps_when_told(app)
        gate.shut()
        stranger.using(key="s")(1)
        handle = start(flow)
        eventually(lambda: calls)
        eventually(lambda: describe(handle.id).status == "waiting", "it never left")
        delete_when_ended("s", app)
        gate.open()
        assert handle.result(20) == (2, 3)
        assert set(calls) == {(2, 3)}
        assert len(calls) > 1, "it was not replayed"


def delete_when_ended(key: str, app: Operon) -> None:
    """Sweep until its record is gone."""

    def deleted() -> bool:
        sweep(app)
        try:
            describe(key)
        except RecordDeleted:
            return True
        return False

    eventually(deleted)


# ── Deleting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_delete_leaves_nothing_and_frees_the_key(make: MakeApp) -> None:
    app = make()
    runs: list[int] = []

    @app.workflow(name="child")
    def child(n: int) -> int:
        runs.append(n)
        return n

    @app.workflow(name="flow")
    def flow(n: int) -> int:
        return child(n) + start(child, n + 1).result()

    with app:
        assert flow.using(key="k")(1) == 3
        delete("k")
        assert kept() == set()
        assert flow.using(key="k")(5) == 11
        assert sorted(runs) == [1, 2, 5, 6]
        delete("k")
        with pytest.raises(NotFound, match="'k'"):
            delete("k")
        with pytest.raises(NotFound):
            delete("\0")


def test_what_lives_is_not_deleted(make: MakeApp) -> None:
    app = make()
    slow = app.workflow(name="slow")(operon.sleep)

    @app.workflow(name="starts")
    def starts() -> str:
        return start(slow, 3600).id

    with app:
        slow_one = start(slow, 3600)
        with pytest.raises(NotEnded, match="cancel it first"):
            delete(slow_one.id)
        cancel(slow_one.id)
        delete(slow_one.id)
        handle = start(starts)
        child = handle.result(20)
        with pytest.raises(NotEnded, match=f"while {child} is"):
            delete(handle.id)
        cancel(child)
        delete(handle.id)
        assert kept() == set()


def test_a_wait_is_not_answered_by_the_workflow_that_had_the_key_before(make: MakeApp) -> None:
    """What ended here a moment ago is remembered, and may have been another workflow of this id."""
    app, gate = make(), threading.Event()

    @app.workflow(name="flow")
    def flow(n: int) -> int:
        if n > 1:
            gate.wait(20)
        return n

    with app:
        for n in range(2):
            assert start(flow.using(key="k"), n).result(20) == n
            delete("k")
        handle = start(flow.using(key="k"), 2)
        with pytest.raises(StillRunning):
            handle.result(0.05)
        gate.set()
        assert handle.result(20) == 2


def test_delete_is_a_step_of_a_workflow(make: MakeApp) -> None:
    """It is done once; an error is recorded as well; a crash after the deletion does not make it an error."""
    app = make(grace=0.0)
    flow = app.workflow(name="flow")(len)
    seen: list[object] = []

    @app.workflow(name="janitor")
    def janitor() -> list[str]:
        delete("k")
        said: list[str] = []
        for key in ("k", operon.context().workflow_id or ""):
            try:
                delete(key)
            except (NotFound, NotEnded) as error:
                said.append(type(error).__name__)
        operon.sleep(0.1)
        seen.append(said)
        return said

    with app:
        flow.using(key="k")("x")
        assert start(janitor.using(key="j")).result(20) == ["NotFound", "NotEnded"]
        assert [(it.name, it.status) for it in steps("j") if it.name == "delete"] == [
            ("delete", "succeeded"),
            ("delete", "failed"),
            ("delete", "failed"),
        ]


def test_a_deletion_that_was_cut_off_is_not_an_error_the_second_time(
    make: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make()
    flow = app.workflow(name="flow")(len)
    cut: list[str] = []

    def cut_off(run: Any, entry: Any) -> Any:
        if not cut:
            cut.append(entry.position)
            raise run.die(Suspended("the process died"))
        yield from note(run, entry)

    @app.workflow(name="janitor")
    def janitor() -> str:
        delete("k")
        return "done"

    with app:
        flow.using(key="k")("x")
        monkeypatch.setattr(deleting, "note", cut_off)
        handle = start(janitor)
        engine = app._engine
        assert engine is not None
        eventually(lambda: bool(cut) and not engine.runs.claims())
        row = engine.store.ask(Describe(handle.id))
        assert row is not None
        engine.drive(engine.service.hand_back(Guard(row.id, row.claim)))
        assert handle.result(20) == "done"


@pytest.mark.anyio
async def test_both_colours_and_clients_delete(sqlite_path: Any) -> None:
    url = f"sqlite:///{sqlite_path}"
    app = Operon("app", database=url)
    flow = app.workflow(name="flow")(len)
    async with app:
        for key in "abc":
            await aio.start(flow.using(key=key), "x")
            await (await aio.retrieve(key))
        await aio.delete("a")
        async with operon.AsyncClient(url) as client:
            await client.delete("b")
        await aio.call(delete_by_client, url)
        assert await aio.find() == []


def delete_by_client(url: str) -> None:
    with Client(url) as client:
        client.delete("c")


# ── Transactions ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_key_of_a_transaction_is_known(sqlite_path: Any) -> None:
    app = Operon("app", database=f"sqlite:///{sqlite_path}", keep=NOW, lease=1.0)

    @app.transaction
    def add(tx: sqlite3.Connection, n: int) -> int:
        tx.execute("create table if not exists added (n integer)")
        tx.execute("insert into added values (?)", [n])
        return int(tx.execute("select count(*) from added").fetchone()[0])

    with app:
        sweeps_when_told(app)
        assert add.using(key="k")(1) == 1
        sweep(app)
        with pytest.raises(RecordDeleted):
            add.using(key="k")(1)
        with pytest.raises(RecordDeleted):
            start(add.using(key="k"), 1).result(20)
        with pytest.raises(KeyConflict):
            add.using(key="k")(2)
        with pytest.raises(Duplicate):
            add.using(key="k", on_duplicate="reject")(1)

        @app.transaction
        def both(tx: sqlite3.Connection, on_duplicate: Any) -> str:
            return start(add.using(key="k", on_duplicate=on_duplicate), 1).id

        assert both("join") == both("first") == "k"
        with pytest.raises(Duplicate):
            both("reject")
        delete("k")
        assert add.using(key="k")(2) == 2
        row = operon.core.apps.locate().store.ask(Describe("k"))
        assert row is not None
        assert row.fresh


def test_a_reused_key_does_its_transactions_in_another_database_again(tmp_path: Any) -> None:
    """The record beside the user's rows is that of the workflow which had the key before, and is not adopted."""
    other = tmp_path / "other.db"
    app = Operon("app", database=f"sqlite:///{tmp_path}/app.db", datasources={"other": f"sqlite:///{other}"})

    @app.transaction(datasource="other")
    def add(tx: sqlite3.Connection, n: int) -> int:
        tx.execute("create table if not exists added (n integer)")
        tx.execute("insert into added values (?)", [n])
        return n

    @app.workflow
    def flow(n: int) -> int:
        return add(n)

    with app:
        for n in (1, 2):
            assert flow.using(key="k")(n) == n
            delete("k")
    with closing(sqlite3.connect(other)) as connection:
        assert connection.execute("select n from added").fetchall() == [(1,), (2,)]


# ── Pace ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_where_nothing_is_to_be_deleted_a_statement_a_minute_asks(make: MakeApp) -> None:
    """An hour of heartbeats: one sweep a minute, and keys and executors once; while something goes, a page a beat."""
    app = make(keep=NOW)
    app.workflow(name="flow")(len)
    retention = Retention(lambda: app.functions, app._settings)
    asked: list[Command[Any]] = []

    def beat(now: float, gone: int = 0) -> None:
        op, answer = retention.tick(now), None
        with suppress(StopIteration):
            while True:
                asked.append(op.send(answer))
                answer = _answer(asked[-1], gone)

    for second in range(0, 3600, 3):
        beat(float(second))
    assert len([it for it in asked if isinstance(it, Sweep) and not it.keys]) == 60
    assert len(asked) == 63
    asked.clear()
    for second in range(3600, 3630, 3):
        beat(float(second), gone=1)
    assert len([it for it in asked if isinstance(it, Sweep) and not it.keys]) == 10


def _answer(command: Command[Any], gone: int) -> Any:
    if isinstance(command, Sweep):
        return Swept(0 if command.keys else gone)
    return 0
