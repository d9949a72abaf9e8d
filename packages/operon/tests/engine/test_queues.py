"""Queues through an app: what is enqueued runs within the limits, once, whoever enqueued it and wherever."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from children import PATIENCE, eventually
from engine.conftest import MakeApp
from engine.gates import Gate as Turnstile
from operon import Client, Operon, aio, count, describe, enqueue, enqueue_many, find, sleep, start
from operon.core.commands import Executors, Queues
from operon.core.rows import Limits
from operon.errors import BadValue, DeclarationError, Duplicate, KeyConflict, NotFound, WorkflowCancelled


class Gate:
    """Bodies that stay until they are let go, and how many were inside at once."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.inside: list[int] = []
        self.most = 0
        self.open = False

    def enter(self, number: int) -> int:
        with self.changed:
            self.inside.append(number)
            self.most = max(self.most, len(self.inside))
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.open, timeout=20)
            self.inside.remove(number)
            self.changed.notify_all()
        return number

    def holds(self, many: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: len(self.inside) == many, timeout=20)

    def free(self) -> None:
        with self.changed:
            self.open = True
            self.changed.notify_all()


def test_no_more_run_than_the_queue_allows_and_all_end(make: MakeApp) -> None:
    app, gate = make(), Gate()
    queue = app.queue("q", concurrency=2)
    body = app.workflow(name="body")(gate.enter)
    with app:
        handles = enqueue_many(queue, [body.bind(n) for n in range(6)])
        assert gate.holds(2)
        assert count(queue="q", status="running") == 2
        assert describe(handles[5].id).status == "queued"
        gate.free()
        assert [handle.result(timeout=20) for handle in handles] == list(range(6))
        assert [record.queue for record in find(queue="q", limit=2)] == ["q", "q"]
    assert gate.most == 2


def test_two_processes_share_one_limit(make: MakeApp) -> None:
    gate, apps = Gate(), (make("app", lease=60.0), make("app", lease=60.0))
    bodies = [app.workflow(name="body")(gate.enter) for app in apps]
    queues = [app.queue("q", concurrency=3) for app in apps]
    with apps[0], apps[1]:
        handles = enqueue_many(queues[0], [bodies[0].bind(n) for n in range(9)])
        assert gate.holds(3)
        gate.free()
        assert sorted(handle.result(timeout=20) for handle in handles) == list(range(9))
    assert gate.most == 3


def unheard(delay: float = 0.0, *, cancelled: bool = False) -> None:
    """Say nothing to anybody."""


def test_who_hears_no_word_of_a_line_finds_it(make: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word is a hint: what is in line is found by the heartbeat, as everything is."""
    app = make(lease=0.5)
    queue = app.queue("q", concurrency=1)

    @app.workflow
    def body() -> str:
        return "done"

    with app:
        engine: Any = app._engine
        (peer,) = engine.store.ask(Executors())
        eventually(lambda: engine.store.ask(Executors())[0].beat > peer.beat + 2)  # what a launch claims is claimed
        monkeypatch.setattr(engine, "nudge", unheard)
        assert enqueue(queue, body).result(timeout=20) == "done"


def test_a_rate_lets_the_rest_begin_when_its_window_opens(make: MakeApp) -> None:
    """Nobody has to nudge: the claim says when the window opens."""
    app = make(lease=60.0)
    queue = app.queue("q", rate=(2, timedelta(seconds=0.3)))

    @app.workflow
    def body(number: int) -> int:
        return number

    with app:
        handles = enqueue_many(queue, [body.bind(n) for n in range(5)])
        assert [handle.result(timeout=20) for handle in handles] == list(range(5))
        began = sorted(describe(handle.id).started_at for handle in handles)  # type: ignore[type-var] # all have begun
    assert all((late - early).total_seconds() >= 0.29 for early, late in zip(began, began[2:], strict=False))  # type: ignore[operator] # all have begun


def test_who_sleeps_leaves_the_slot(make: MakeApp) -> None:
    app = make()
    queue = app.queue("q", concurrency=1)

    @app.workflow
    def sleeper(seconds: float) -> str:
        sleep(seconds)
        return "slept"

    @app.workflow
    def quick() -> str:
        return "quick"

    with app:
        slow, fast = enqueue(queue, sleeper, 3600), enqueue(queue, quick)
        assert fast.result(timeout=PATIENCE) == "quick"
        assert describe(slow.id).status == "waiting"
        assert enqueue(queue, sleeper, 0.6).result(timeout=PATIENCE) == "slept"


def test_a_paused_queue_waits_and_a_limit_that_grows_is_used_at_once(make: MakeApp) -> None:
    app, gate = make(lease=60.0), Gate()
    queue = app.queue("q", concurrency=1)
    body = app.workflow(name="body")(gate.enter)
    with app:
        queue.pause()
        handles = enqueue_many(queue, [body.bind(n) for n in range(4)])
        start(body, 99)
        assert gate.holds(1)
        assert count(queue="q", status="queued") == 4
        queue.resume()
        assert gate.holds(2)
        queue.set(concurrency=3)
        assert gate.holds(4)
        queue.reset()
        gate.free()
        assert len([handle.result(timeout=20) for handle in handles]) == 4


def test_limits_edited_by_sql_hold_at_once_and_after_the_next_launch(make: MakeApp, database: Any) -> None:
    if not isinstance(database, str):
        pytest.skip("no SQL in memory")
    app, gate = make(), Gate()
    queue = app.queue("q", concurrency=1)
    body = app.workflow(name="body")(gate.enter)
    with app:
        if database.startswith("sqlite"):
            with closing(sqlite3.connect(database.removeprefix("sqlite:///"), isolation_level=None)) as file:
                file.execute("update operon_queues set concurrency = 3")
        else:
            with psycopg.connect(database) as connection:
                connection.execute("update operon.queues set concurrency = 3")
        enqueue_many(queue, [body.bind(n) for n in range(6)])
        assert gate.holds(3)
        assert count(queue="q", status="running") == 3
        gate.free()
        eventually(lambda: count(queue="q", status="succeeded") == 6)
    with app, Client(database) as client:
        (row,) = client.host.store.ask(Queues())
        assert (row.limits, row.seed) == (Limits(concurrency=3), Limits(concurrency=1))
    assert gate.most == 3


def test_a_process_runs_only_the_queues_it_is_told_to(make: MakeApp) -> None:
    app, other = make("app"), make("app")
    for it in (app, other):
        it.queue("a")
        it.queue("b")

    @app.workflow
    def body(number: int) -> int:
        return number

    app.launch(run=["a"])
    with pytest.raises(DeclarationError, match="no queue 'c'"):
        other.launch(run=["a", "c"])
    assert enqueue("a", body, 1).result(timeout=20) == 1
    waits = enqueue("b", body, 2)
    assert enqueue("a", body, 3).result(timeout=20) == 3
    assert describe(waits.id).status == "queued"


def test_a_workflow_enqueues_children_once_however_often_it_is_replayed(make: MakeApp) -> None:
    app = make()
    queue = app.queue("q")

    @app.workflow
    def child(number: int) -> int:
        return number

    @app.workflow
    def parent() -> list[int]:
        one = enqueue(queue, child, 1)
        more = enqueue_many(queue, [child.bind(2), child.bind(3)])
        turnstile.pass_through()
        return [handle.result() for handle in (one, *more)]

    turnstile = Turnstile(app)
    with app:
        turnstile.shut()
        handle = start(parent)
        turnstile.open_behind(handle.id)
        assert handle.result(timeout=20) == [1, 2, 3]
        assert count(parent=handle.id, queue="q") == 3
        assert describe(handle.id).attempts > 1


@pytest.mark.anyio
async def test_async_code_enqueues_async_workflows(make: MakeApp) -> None:
    app = make()
    queue = app.queue("q", concurrency=1)

    @app.workflow
    async def body(number: int) -> int:
        return number

    async with app:
        handles = [await aio.enqueue(queue, body, 1), *await aio.enqueue_many(queue, [body.bind(2)])]
        assert list(await aio.gather(*handles)) == [1, 2]


def test_a_client_enqueues_for_the_app(make: MakeApp, database: Any) -> None:
    app = make()
    app.queue("q")

    @app.workflow
    def body(number: int) -> int:
        return number

    with app, Client(database) as client:
        assert client.enqueue("q", body, 1).result(timeout=20) == 1
        assert [it.result(timeout=20) for it in client.enqueue_many("q", [body.bind(2)])] == [2]
        with pytest.raises(NotFound, match=r"no queue 'nope'; there is q"):
            client.enqueue("nope", body, 1)


def test_a_transaction_enqueues_with_its_commit_or_not_at_all(make: MakeApp, database: Any) -> None:
    if not isinstance(database, str):
        pytest.skip("no transactions in memory")
    app = make()
    queue = app.queue("q")
    tx_type: Any = sqlite3.Connection if database.startswith("sqlite") else psycopg.Connection[Any]

    @app.workflow
    def body(number: int) -> int:
        return number

    def both(tx: Any, *, fine: bool) -> str:
        handle = enqueue(queue, body.using(dedupe="d", on_duplicate="first"), 1)
        if not fine:
            raise ValueError("changed my mind")
        return handle.id

    both.__annotations__["tx"] = tx_type
    work: Any = app.transaction(both)
    with app:
        with pytest.raises(ValueError, match="mind"):
            work(fine=False)
        assert count(queue="q") == 0
        assert work(fine=True)
        eventually(lambda: count(queue="q", status="succeeded") == 1)


# ── Dedupe ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_dedupe_joins_the_run_there_is_and_is_free_when_it_has_ended(make: MakeApp) -> None:
    app, gate = make(), Gate()
    queue = app.queue("q")
    body = app.workflow(name="body")(gate.enter)
    once = body.using(dedupe="d")
    with app:
        first = enqueue(queue, once, 1)
        assert enqueue(queue, once, 1).id == first.id == start(once, 1).id
        with pytest.raises(KeyConflict, match="'d'"):
            enqueue(queue, once, 2)
        with pytest.raises(Duplicate):
            start(once.using(on_duplicate="reject"), 1)
        assert enqueue(queue, once.using(on_duplicate="first"), 2).id == first.id
        gate.free()
        assert first.result(timeout=20) == 1
        second = enqueue(queue, once, 2)
        assert second.id != first.id
        assert second.result(timeout=20) == 2


def test_the_last_of_a_burst_runs_and_the_others_are_cancelled(make: MakeApp) -> None:
    """Debounce is dedupe, delay and replace."""
    app = make()
    queue = app.queue("q")
    ran: list[int] = []

    @app.workflow
    def body(number: int) -> None:
        ran.append(number)

    with app:
        burst = [
            enqueue(queue, body.using(dedupe="d", delay=delay, on_duplicate="replace"), number)
            for number, delay in enumerate((3600, 3600, 3600, 0.3))
        ]
        burst[-1].result(timeout=20)
        with pytest.raises(WorkflowCancelled):
            burst[0].result(timeout=20)
    assert ran == [3]


def test_replacing_interrupts_what_runs(make: MakeApp) -> None:
    app, gate = make(), Gate()
    body = app.workflow(name="body")(gate.enter)
    with app:
        old = start(body.using(dedupe="d"), 1)
        assert gate.holds(1)
        new = start(body.using(dedupe="d", on_duplicate="replace"), 2)
        with pytest.raises(WorkflowCancelled):
            old.result(timeout=20)
        gate.free()
        assert new.result(timeout=20) == 2


# ── Bad input ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "limits",
    [
        {"concurrency": 0},
        {"concurrency": -1},
        {"concurrency": True},
        {"concurrency": 1.5},
        {"worker_concurrency": 0},
        {"partition_concurrency": "1"},
        {"rate": (0, 60)},
        {"rate": (10, 0)},
        {"rate": (10, timedelta(0))},
        {"rate": (10, float("nan"))},
        {"rate": 10},
        {"partition_rate": (10, -1)},
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused(limits: dict[str, Any]) -> None:
    app = Operon("x", database="memory://")
    with pytest.raises(BadValue, match=next(iter(limits))):
        app.queue("q", **limits)


def test_an_option_that_cannot_be_meant_is_refused_and_nothing_recorded(make: MakeApp) -> None:
    app = make()
    queue = app.queue("q")

    @app.workflow
    def body(number: int) -> int:
        return number

    wrong: Any = 1.5
    with pytest.raises(BadValue, match=r"priority=1\.5"):
        body.using(priority=wrong)
    assert body.using(priority=-5).options.priority == -5
    with app:
        with pytest.raises(NotFound, match=r"no queue 'nope'; there is q"):
            enqueue("nope", body, 1)
        with pytest.raises(BadValue, match="needs dedupe"):
            enqueue(queue, body.using(on_duplicate="replace"), 1)
        with pytest.raises(BadValue, match="one at a time"):
            enqueue_many(queue, [body.using(dedupe="d", on_duplicate="replace").bind(1)])
        with pytest.raises(BadValue, match=r"priority= orders .*body goes through none"):
            start(body.using(priority=1), 1)
        with pytest.raises(BadValue, match="partition="):
            body.using(partition="p")(1)
        with pytest.raises(DeclarationError, match="before launch"):
            app.queue("late")
        assert count() == 0
    with pytest.raises(DeclarationError, match="twice"):
        app.queue("q", concurrency=2)


def test_two_apps_that_declare_a_queue_differently_are_told_so(make: MakeApp) -> None:
    shop, billing = make("shop"), make("billing")
    shop.queue("q", concurrency=1)
    billing.queue("q", concurrency=2)
    with shop, pytest.raises(DeclarationError, match=r"shop and billing declare the queue 'q'"):
        billing.launch()
