"""What a first run sees is what a replay sees: looking, arguments, results, keys, contexts."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import pytest

from engine.conftest import MakeApp, until
from operon import Operon, context, count, describe, find, retrieve, sleep, start, steps
from operon.core.commands import Load, Queues
from operon.errors import KeyConflict, NotFound, PayloadTooLarge

NAP = 0.2
"""Seconds: beyond the grace, so that the body is replayed afterwards."""


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
        sleep(NAP)
        return told[-1]

    with app:
        start(other.using(key="other"))
        handle = start(watch, "other")
        assert looked.wait(30)
        start(other.using(key="later"))
        go.set()
        retrieve("other", other).result(timeout=30)
        retrieve("later", other).result(timeout=30)
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
        sleep(1)

    with app:
        handle = start(flow)
        until(lambda: describe(handle.id).status == "waiting", "it never slept")
        queue.resume()
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


def _engine(app: Operon) -> Any:
    assert app._engine is not None
    return app._engine
