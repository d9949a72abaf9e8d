"""What a first run sees is what a replay sees: looking, arguments, results, keys, contexts."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

import operon
from children import PATIENCE, eventually
from engine.conftest import MakeApp
from engine.gates import Gate
from operon import (
    Operon,
    aio,
    cancel,
    context,
    count,
    delete,
    describe,
    enqueue,
    find,
    retrieve,
    schedules,
    sleep,
    start,
    steps,
)
from operon.core.commands import Load, Queues, Seed
from operon.core.rows import Limits
from operon.errors import KeyConflict, NotFound, PayloadTooLarge


def missing(_: str) -> str:
    try:
        return retrieve("later").id
    except NotFound:
        return "not there"


LOOKS: dict[str, Callable[[str], object]] = {
    "describe": lambda it: describe(it).status,
    "steps": lambda it: [(step.name, step.status, step.ended_at) for step in steps(it)],
    "find": lambda it: [(found.id, found.status) for found in find(name="other") if it],
    "count": lambda it: (it, count(status="succeeded")),
    "retrieve": missing,
}


@pytest.mark.parametrize("look", LOOKS)
def test_what_a_body_learns_by_looking_its_replays_learn(make: MakeApp, look: str) -> None:
    """Whatever has become of the others meanwhile, a replay is told what the first run was told."""
    app = make()
    go, told, looked = threading.Event(), list[object](), threading.Event()

    @app.step
    def work() -> None:
        assert go.wait(30)

    @app.workflow(name="other")
    def other() -> None:
        work()

    @app.workflow
    def watch(key: str) -> object:
        told.append(LOOKS[look](key))
        looked.set()
        work()
        gate.pass_through()
        return told[-1]

    gate = Gate(app)
    with app:
        gate.shut()
        start(other.using(key="other"))
        handle = start(watch, "other")
        assert looked.wait(30)
        start(other.using(key="later"))
        go.set()
        retrieve("other", other).result(timeout=30)
        retrieve("later", other).result(timeout=30)
        gate.open_behind(handle.id)
        handle.result(timeout=30)
    assert len(told) == 2
    assert told[0] == told[1]


def test_what_is_seen_is_bounded_as_a_result_is(make: MakeApp) -> None:
    """To look at more than a record may hold is an error of the first run."""
    app = make(max_payload=2_000)

    @app.workflow
    def other(text: str) -> str:
        return text

    @app.workflow
    def watch() -> str:
        try:
            return str(len(find(name=other.name)))
        except PayloadTooLarge as error:
            return str(error)

    with app:
        for _ in range(3):
            other("x" * 500)
        assert len(find(name=other.name)) == 3
        assert "find()" in watch()


def test_a_pause_of_a_queue_is_done_once(make: MakeApp) -> None:
    """What a body does to a queue is recorded: a replay does not undo what somebody did since."""
    app = make()
    queue = app.queue("line")
    runs: list[None] = []

    @app.workflow
    def flow() -> None:
        queue.pause()
        runs.append(None)
        gate.pass_through()

    gate = Gate(app)
    with app:
        gate.shut()
        handle = start(flow)
        eventually(lambda: describe(handle.id).status == "waiting", "it never left")
        queue.resume()
        gate.open()
        handle.result(timeout=30)
        assert len(runs) == 2
        assert not next(row for row in _engine(app).store.ask(Queues()) if row.name == "line").paused


def test_a_step_changes_nothing_of_its_caller(make: MakeApp) -> None:
    """A function works on arguments of its own, in each attempt: what it does to them no replay would see."""
    app = make()
    seen: list[Any] = []

    @app.step(retries=1, backoff=0.001)
    def change(order: dict[str, Any], *more: list[int], **named: list[int]) -> int:
        seen.append((dict(order), [list(it) for it in more], {name: list(it) for name, it in named.items()}))
        order["total"] = 1
        more[0].append(1)
        named["last"].append(1)
        if len(seen) == 1:
            raise ValueError
        return len(order)

    @app.workflow
    def buy(order: dict[str, Any]) -> list[Any]:
        items, last = [0], [9]
        change(order, items, last=last)
        return [order, items, last]

    with app:
        assert buy({"n": 3}) == [{"n": 3}, [0], [9]]
    assert seen == [({"n": 3}, [[0]], {"last": [9]})] * 2


def test_a_result_of_anothers_workflow_is_kept_whatever_its_id(make: MakeApp) -> None:
    """Only the record of what a workflow itself started lives as long as its own; ids are no proof of that."""
    app = make()

    @app.workflow
    def other(n: int) -> int:
        return n

    @app.workflow
    def flow() -> list[int]:
        own = start(other, 1)
        joined = start(other.using(key="flow.9"), 9)
        return [own.result(), joined.result(), retrieve("flow.7", other).result()]

    with app:
        other.using(key="flow.7")(7)
        other.using(key="flow.9")(9)
        assert flow.using(key="flow")() == [1, 9, 7]
        entries = _engine(app).store.ask(Load("flow"))
    assert [entry.output == "null" for entry in entries if entry.name == "result"] == [True, False, False]


def test_first_takes_no_other_function(make: MakeApp) -> None:
    """`first` leaves the arguments out of the comparison, never the function."""
    app = make()

    @app.workflow
    def charge(n: int) -> str:
        return f"charged {n}"

    @app.workflow
    def refund(n: int) -> str:
        return f"refunded {n}"

    with app:
        charge.using(key="e")(5)
        assert charge.using(key="e", on_duplicate="first")(6) == "charged 5"
        with pytest.raises(KeyConflict, match="charge"):
            refund.using(key="e", on_duplicate="first")(5)
        with pytest.raises(KeyConflict, match="charge"):
            refund.using(key="e")(5)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_each_transaction_has_a_key_of_its_own(make: MakeApp) -> None:
    """`context()` in a transaction: a key for each operation, the same in each attempt; who asked, and for what."""
    app = make()

    @app.transaction
    def one(tx: sqlite3.Connection) -> list[Any]:
        here = context()
        return [here.workflow_id, here.step, here.idempotency_key, here.user, list(here.roles)]

    @app.transaction(read_only=True)
    def look(tx: sqlite3.Connection) -> Any:
        return context().step

    @app.workflow
    def both() -> list[Any]:
        return [one(), one(), look()]

    with app:
        first, second, third = both.using(key="b", user="ada")()
        assert [first[0], first[3], second[0]] == ["b", "ada", "b"]
        assert (first[2], second[2]) == ("b:1", "b:2")
        assert third == look.name
        alone = one.using(key="k", user="bob", roles=["admin"])()
        assert alone == ["k", one.name, "k:1", "bob", ["admin"]]
        assert start(one.using(key="s", user="eve")).result(timeout=30) == ["s", one.name, "s:1", "eve", []]
        assert look() == look.name


class Lots(Exception):
    """Holds other errors wherever an error can."""

    def __init__(self, what: str, errors: list[Exception]) -> None:
        super().__init__(what, {"it": errors[0]})
        self.errors = errors


def fail(error: Exception) -> NoReturn:
    raise error


def cause() -> Exception:
    error = Lots("all", [ValueError("one"), KeyError("two")])
    error.add_note("a note")
    error.__cause__ = OSError(2, "missing")
    return error


def handled() -> Exception:
    try:
        fail(KeyError("inner"))
    except KeyError:
        try:
            fail(ValueError("outer"))
        except ValueError as error:
            return error


def hushed() -> Exception:
    error = handled()
    error.__suppress_context__ = True
    return error


def group() -> Exception:
    return ExceptionGroup("some", [cause(), handled(), ExceptionGroup("more", [hushed()])])


def circular() -> Exception:
    error = ValueError("mine")
    error.__cause__ = error
    return error


RAISED: dict[str, Callable[[], Exception]] = {each.__name__: each for each in (cause, handled, hushed, group, circular)}


def spelled(error: BaseException | None, depth: int = 0) -> Any:
    """Tell all that code can see of an error, but its traceback."""
    if error is None or depth > 4:
        return None
    inside: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return [
        *(type(error).__name__, f"{error}", f"{error.args}", f"{vars(error)}", error.__suppress_context__),
        *(spelled(each, depth + 1) for each in (error.__cause__, error.__context__, *inside)),
    ]


def told_of(call: Callable[[], object]) -> Any:
    try:
        return call()
    except Exception as error:
        return spelled(error)


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_errors_in_errors_are_from_the_first_run_on_what_a_replay_makes_of_them(make: MakeApp, kind: str) -> None:
    """A step, a transaction and a child: their errors have the causes, contexts, notes and parts of the record."""
    app = make()
    told: list[Any] = []

    @app.step
    def step() -> None:
        fail(RAISED[kind]())

    @app.transaction
    def transaction(tx: sqlite3.Connection) -> None:
        fail(RAISED[kind]())

    @app.workflow
    def child() -> None:
        fail(RAISED[kind]())

    @app.workflow
    def flow() -> None:
        seen = [told_of(each) for each in (step, transaction, child)]
        try:
            fail(RuntimeError("first"))
        except RuntimeError:
            seen += [told_of(each) for each in (step, transaction, child)]
        told.append(seen)
        gate.pass_through()

    gate = Gate(app)
    with app:
        gate.shut()
        handle = start(flow)
        gate.open_behind(handle.id)
        handle.result(timeout=30)
    first, replay = told
    assert first == replay
    assert first[0] == first[1] == first[2]


def test_errors_of_verbs_are_from_the_first_run_on_what_a_replay_makes_of_them(make: MakeApp) -> None:
    """What was not there, or taken, when the body asked, was not there, or taken, for a replay, in the same words."""
    app = make()
    told: list[Any] = []

    @app.workflow
    def other(n: int) -> int:
        return n

    @app.workflow
    def flow() -> None:
        looks: list[Callable[[], object]] = [
            lambda: cancel("later"),
            lambda: delete("later"),
            lambda: enqueue("line", other, 1).id,
            lambda: schedules.describe("plan").name,
            lambda: schedules.create("other", "0 0 1 1 *", other.bind(1), queue="line").name,
            lambda: start(other.using(key="taken"), 2).id,
            lambda: start(other.using(key="taken", on_duplicate="reject"), 2).id,
            lambda: start(other.using(delay=3600), 1).result(timeout=0),
        ]
        told.append([told_of(look) for look in looks])
        gate.pass_through()

    gate = Gate(app)
    with app:
        gate.shut()
        other.using(key="taken")(1)
        handle = start(flow)
        eventually(lambda: describe(handle.id).status == "waiting", "it never left")
        other.using(key="later")(1)
        schedules.create("plan", "0 0 1 1 *", other.bind(1))
        _engine(app).store.ask(Seed("line", Limits(), "app"))
        enqueue("line", other, 1)
        delete("taken")
        gate.open()
        handle.result(timeout=30)
    first, replay = told
    assert first == replay
    assert [each[0] for each in first] == [*["NotFound"] * 5, "KeyConflict", "Duplicate", "StillRunning"]


def test_what_a_body_cancelled_may_be_gone_at_its_replay(make: MakeApp) -> None:
    """A cancellation is recorded like what is looked at: that its workflow was deleted since changes nothing."""
    app = make()
    runs: list[None] = []

    @app.workflow
    def other() -> None:
        sleep(3600)

    @app.workflow
    def flow() -> None:
        cancel("it")
        runs.append(None)
        gate.pass_through()

    gate = Gate(app)
    with app:
        gate.shut()
        start(other.using(key="it"))
        handle = start(flow)
        eventually(lambda: describe(handle.id).status == "waiting", "it never left")
        delete("it")
        gate.open()
        handle.result(timeout=30)
    assert len(runs) == 2


def test_a_body_has_defaults_of_its_own(make: MakeApp) -> None:
    """What a run puts into a list that is the default of a parameter, no other run finds there, and no replay."""
    app = make()
    told: list[list[int]] = []

    @app.workflow
    def flow(n: int, /, items: list[int] = [], *, named: dict[str, list[int]] = {"it": []}) -> None:  # noqa: B006
        items.append(n)
        named["it"].append(n)
        told.append([*items, *named["it"]])
        gate.pass_through()

    gate = Gate(app)
    with app:
        gate.shut()
        handles = [start(flow, n) for n in (1, 2)]
        gate.open_behind(*(handle.id for handle in handles))
        for handle in handles:
            handle.result(timeout=30)
        assert sorted(told) == [[1, 1], [1, 1], [2, 2], [2, 2]]
        assert describe(find(name=flow.name)[0].id).input == {"n": 2}


def test_a_child_is_its_parents_though_somebody_chose_its_id(make: MakeApp) -> None:
    """Ids of children are made of the parent's; a key of the user's that reads like one names another workflow."""
    app = make()
    done: list[tuple[str | None, int]] = []

    @app.workflow
    def other(n: int) -> int:
        done.append((describe(context().workflow_id or "").parent, n))
        return n

    @app.workflow
    def flow() -> list[int]:
        return [other(7), start(other, 8).result(), other(9)]

    with app:
        other.using(key="flow.1")(7)
        other.using(key="flow.2")(70)
        assert flow.using(key="flow")() == [7, 8, 9]
    assert done == [(None, 7), (None, 70), ("flow", 7), ("flow", 8), ("flow", 9)]


def test_each_workflow_triggers_a_schedule_anew(make: MakeApp) -> None:
    """What a workflow triggers is no other's, though that had its id once, or ids and names read alike."""
    app = make()

    @app.workflow
    def other() -> None: ...

    @app.workflow
    def flow(name: str) -> str:
        return schedules.trigger(name).id

    with app:
        for name in ("n", "n:m"):
            schedules.create(name, "0 0 1 1 *", other)
        ids = [flow.using(key="m:y")("n"), flow.using(key="y")("n:m")]
        delete("m:y")
        ids.append(flow.using(key="m:y")("n"))
    assert len(set(ids)) == 3


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_what_its_caller_handles_is_no_error_of_a_transaction(make: MakeApp) -> None:
    """A transaction that refuses is not tried again because its caller had lost a connection before."""
    app = make()
    runs: list[None] = []

    @app.transaction
    def refuse(tx: sqlite3.Connection) -> None:
        runs.append(None)
        raise ValueError("no")

    class Lost(Exception):
        sqlstate = "40001"

    with app:
        try:
            fail(Lost())
        except Lost:
            with pytest.raises(ValueError, match="no"):
                refuse()
    assert len(runs) == 1


def _engine(app: Operon) -> Any:
    assert app._engine is not None
    return app._engine


def test_a_child_and_a_sleep_beside_it_are_told_in_their_order(make: MakeApp) -> None:
    """A child's own row has its outcome: the replay looks there, and no other branch overtakes it meanwhile."""
    app = make()
    runs: list[list[str]] = []

    @app.workflow
    async def child() -> int:
        return 1

    @app.step
    async def tell(seen: list[str]) -> list[str]:
        return seen

    @app.workflow
    async def flow() -> list[str]:
        seen: list[str] = []
        runs.append(seen)

        async def first() -> None:
            await child()
            seen.append("child")

        async def second() -> None:
            await aio.sleep(0.1)
            seen.append("sleep")

        await asyncio.gather(first(), second())
        told = await tell(seen)
        ended.set()
        await gate.apass_through()
        return told

    gate, ended = Gate(app), threading.Event()
    with app:
        gate.shut()
        handle = operon.start(flow)
        assert ended.wait(PATIENCE)
        gate.open_behind(handle.id)
        told = handle.result(PATIENCE)
    assert sorted(told) == ["child", "sleep"], "in this order, unless the child took very long"
    assert len(runs) > 1
    assert runs[-1] == told


def test_a_number_that_json_does_not_write_is_a_result(make: MakeApp) -> None:
    app = make()

    @app.step
    def huge() -> int:
        return 10**5000

    @app.workflow
    def flow() -> bool:
        return huge() == 10**5000

    with app:
        assert operon.start(flow).result(PATIENCE)
