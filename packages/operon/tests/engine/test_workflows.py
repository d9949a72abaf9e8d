"""Workflows and steps, on every store: once per key, resumed after a crash, in both colours."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import operon
from children import PATIENCE, eventually
from engine.conftest import MakeApp, crash
from engine.gates import Gate
from operon import aio
from operon.core import asking
from operon.errors import (
    Cancelled,
    Divergence,
    Duplicate,
    KeyConflict,
    NotFound,
    NotInWorkflow,
    NotSerializable,
    StepTimedOut,
    StillRunning,
    WorkflowCancelled,
    WorkflowHeld,
    WorkflowTimedOut,
    WrongColour,
)


class Declined(Exception):
    """An error whose constructor takes two arguments, neither of them its message."""

    def __init__(self, card: str, cents: int) -> None:
        super().__init__(f"{card} declined")
        self.card = card
        self.cents = cents


def test_a_key_runs_once_and_joins(make: MakeApp) -> None:
    """Same key and same arguments: one run, one result for all."""
    app = make()
    ran: list[int] = []

    @app.workflow
    def greet(user: int) -> str:
        ran.append(user)
        return f"Hello {user}"

    with app:
        assert greet.using(key="k")(1) == "Hello 1"
        assert greet.using(key="k")(user=1) == "Hello 1"
        assert operon.start(greet.using(key="k"), 1).result(PATIENCE) == "Hello 1"
        with pytest.raises(KeyConflict, match="other arguments"):
            greet.using(key="k")(2)
        with pytest.raises(Duplicate):
            greet.using(key="k", on_duplicate="reject")(1)
        assert greet.using(key="k", on_duplicate="first")(2) == "Hello 1"
    assert ran == [1]


def test_a_crashed_workflow_resumes_after_its_last_step(make: MakeApp) -> None:
    """A recorded step never runs again; what was not recorded does; another process takes it up by lease."""
    ran: list[str] = []
    reached, never = threading.Event(), threading.Event()

    def declare(app: operon.Operon, *, block: bool) -> Any:
        @app.step(name="one")
        def one() -> int:
            ran.append("one")
            return 1

        @app.step(name="two")
        def two() -> int:
            ran.append("two")
            return 2

        @app.workflow(name="flow")
        def flow() -> int:
            first = one()
            if block:
                two.using(name="gate")
                reached.set()
                never.wait(20)
            return first + two()

        return flow

    first, second = make("first"), make("second")
    flow = declare(first, block=True)
    declare(second, block=False)
    first.launch()
    operon.start(flow.using(key="w"))
    assert reached.wait(PATIENCE)
    eventually(lambda: [s.name for s in _steps(first, "w")] == ["one"])
    crash(first)
    never.set()
    with second:
        assert operon.retrieve("w").result(20) == 3
        assert operon.describe("w").attempts == 2
    assert ran == ["one", "two"]


def _steps(app: operon.Operon, workflow_id: str) -> list[Any]:
    host = app.host
    assert host is not None
    return host.drive(asking.steps(host, workflow_id))


def test_failed_attempts_survive_a_crash(make: MakeApp) -> None:
    """`retries=3` is four attempts in all, however many processes they are spread over."""
    attempts: list[int] = []
    reached, never = threading.Event(), threading.Event()

    def declare(app: operon.Operon, *, dies: bool) -> Any:
        @app.step(retries=3, backoff=0.3, factor=1.0, jitter=False, name="shaky")
        def shaky() -> None:
            if dies and operon.context().attempt == 3:
                reached.set()
                never.wait(PATIENCE)
                return
            attempts.append(operon.context().attempt)
            raise Declined("visa", 100)

        @app.workflow(name="flow")
        def flow() -> None:
            shaky()

        return flow

    first, second = make("first"), make("second")
    flow, again = declare(first, dies=True), declare(second, dies=False)
    first.launch()
    operon.start(flow.using(key="w"))
    assert reached.wait(PATIENCE)
    crash(first)
    never.set()
    with second:
        with pytest.raises(Declined) as caught:
            operon.retrieve("w", again).result(20)
        assert (caught.value.card, caught.value.cents, str(caught.value)) == ("visa", 100, "visa declined")
        assert [s.attempt for s in operon.steps("w")] == [4]
    assert attempts == [1, 2, 3, 4]


def test_a_retry_that_helps_is_recorded_once(make: MakeApp) -> None:
    app = make()
    tries: list[int] = []

    @app.step(retries=2, backoff=0.01)
    def shaky() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("no")
        return 7

    @app.workflow
    def flow() -> int:
        return shaky()

    with app:
        assert flow.using(key="w")() == 7
        assert [(s.name, s.attempt, s.output) for s in operon.steps("w")] == [(shaky.name, 3, 7)]


def test_a_workflow_called_in_a_workflow_is_its_child(make: MakeApp) -> None:
    """A child's id derives from the parent's position; both rows tell of each other; in every colour."""
    app = make()

    @app.step
    async def three(x: int) -> int:
        return x * 3

    @app.workflow
    async def inner(x: int) -> int:
        return await three(x)

    @app.workflow
    def middle(x: int) -> int:
        return operon.start(inner, x).result() + 1

    @app.workflow
    def outer(x: int) -> int:
        return middle(x) + middle(x)

    @app.workflow
    async def top(x: int) -> int:
        return await aio.call(outer, x) + await (await aio.start(inner, x)) + await inner(x)

    with app:
        assert operon.start(top.using(key="w"), 2).result(20) == 14 + 6 + 6
        assert operon.describe("w").status == "succeeded"
        children = operon.find(parent="w")
        assert sorted(child.name.rpartition(".")[2] for child in children) == ["inner", "inner", "outer"]
        assert {child.root for child in children} == {"w"}
        assert all(child.id.startswith("w.") for child in children)


def test_a_long_sleep_holds_no_thread(make: MakeApp) -> None:
    """More sleepers than threads: each leaves its function by Suspended, and is replayed when it is due."""
    app = make(threads=2)
    ends: list[int] = []

    @app.step
    def mark(n: int) -> int:
        ends.append(n)
        return n

    @app.workflow
    def sleeper(n: int, seconds: float) -> int:
        mark(n)
        operon.sleep(seconds)
        return n

    with app:
        for n in range(10):
            operon.start(sleeper, n, 3600)
        eventually(lambda: operon.count(status="waiting") == 10, "a sleeper kept its thread")
        handles = [operon.start(sleeper, n, 0.4) for n in range(10, 20)]
        assert operon.gather(*handles) == tuple(range(10, 20))
        attempts = {operon.describe(h.id).attempts for h in handles}
    assert sorted(ends) == list(range(20)), "a recorded step ran again"
    assert attempts <= {1, 2}, "once more at most: one that was late to leave may have slept in its place"


def test_an_async_sleeper_leaves_too(make: MakeApp) -> None:
    app = make()
    bodies: list[int] = []

    @app.workflow
    async def sleeper(n: int) -> int:
        bodies.append(n)
        await aio.sleep(timedelta(hours=n) if n else timedelta(seconds=0.5))
        return n

    with app:
        operon.start(sleeper.using(key="w"), 5)
        eventually(lambda: operon.describe("w").status == "waiting", "it kept its place")
        assert operon.start(sleeper.using(key="short"), 0).result(PATIENCE) == 0
        attempts = operon.describe("short").attempts
        assert attempts in {1, 2}, "two, unless it was late to leave"
    assert bodies == [5, *[0] * attempts]


def test_a_parent_waiting_for_its_children_leaves(make: MakeApp) -> None:
    """Two threads, four parents, each with a child: no parent keeps a thread from the children."""
    app = make(threads=2)

    @app.workflow
    def child(n: int) -> int:
        operon.sleep(0.2)
        return n * 10

    @app.workflow
    def parent(n: int) -> int:
        a, b = operon.start(child, n), operon.start(child, n + 1)
        return sum(operon.gather(a, b))

    with app:
        handles = [operon.start(parent, n) for n in range(4)]
        assert operon.gather(*handles) == (10, 30, 50, 70)


def test_now_rng_uuid_are_the_same_at_replay(make: MakeApp) -> None:
    app = make()
    seen: list[tuple[Any, ...]] = []

    @app.workflow
    def flow() -> str:
        drawn = (operon.now(), operon.rng().random(), operon.uuid4())
        seen.append(drawn)
        gate.pass_through()
        return str(drawn[2])

    gate = Gate(app)
    with app:
        gate.shut()
        handle = operon.start(flow)
        gate.open_behind(handle.id)
        result = handle.result(PATIENCE)
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert seen[0][0].tzinfo is UTC
    assert str(seen[0][2]) == result


def test_a_deadline_stops_body_and_children(make: MakeApp) -> None:
    """Past its deadline a workflow has failed with WorkflowTimedOut, wherever it was: running, asleep, or a child."""
    app = make()

    @app.workflow
    def child() -> None:
        operon.sleep(3600)

    @app.workflow
    def parent() -> None:
        child()

    with app:
        with pytest.raises(WorkflowTimedOut):
            parent.using(key="p", timeout=0.5)()
        assert operon.describe("p").status == "failed"
        for started in operon.find(parent="p"):  # none, where the deadline passed before the parent came to it
            with pytest.raises(WorkflowTimedOut):
                operon.retrieve(started.id).result(PATIENCE)


def test_cancel_stops_a_tree(make: MakeApp) -> None:
    """Cancelled workflows record nothing more, children included; `except Cancelled` sees it; ended ones stay."""
    app = make()
    cleaned, entered = threading.Event(), threading.Event()
    cleanup: list[str] = []

    @app.step
    def tidy() -> None:
        cleanup.append("tidy")

    @app.workflow
    def child() -> None:
        entered.set()
        operon.sleep(0.04)
        while True:
            operon.sleep(0.04)

    @app.workflow
    def parent() -> None:
        try:
            child()
        except Cancelled:
            tidy()
            cleaned.set()
            raise

    with app:
        handle = operon.start(parent.using(key="w"))
        assert entered.wait(PATIENCE)
        operon.cancel("w")
        operon.cancel("w")
        with pytest.raises(WorkflowCancelled):
            handle.result(PATIENCE)
        assert operon.describe("w").status == "cancelled"
        assert [it.status for it in operon.find(parent="w")] == ["cancelled"]
        with pytest.raises(NotFound):
            operon.cancel("nobody")


def test_divergence_holds(make: MakeApp) -> None:
    """Code that asks for another step than the journal has is stopped, and the workflow is held for a person."""
    app = make()
    runs: list[int] = []

    @app.step
    def one() -> int:
        return 1

    @app.step
    def other() -> int:
        return 2

    @app.workflow
    def flow() -> int:
        runs.append(1)
        value = one() if len(runs) == 1 else other()
        gate.pass_through()
        return value

    gate = Gate(app)
    with app:
        gate.shut()
        handle = operon.start(flow.using(key="w"))
        gate.open_behind("w")
        with pytest.raises(WorkflowHeld, match="one"):
            handle.result(PATIENCE)
        record = operon.describe("w")
        assert record.status == "held"
        assert isinstance(record.error, Divergence)


def test_swallowing_suspended_changes_nothing(make: MakeApp) -> None:
    """The run's state decides, never what comes out of a body that was told to leave."""
    app = make()
    rounds: list[int] = []

    @app.workflow
    def flow() -> str:
        rounds.append(1)
        try:
            gate.pass_through()
        except BaseException:
            return "a lie"
        return "waited"

    gate = Gate(app)
    with app:
        gate.shut()
        handle = operon.start(flow)
        gate.open_behind(handle.id)
        assert handle.result(PATIENCE) == "waited"
    assert len(rounds) == 2


def test_a_step_past_its_timeout_is_abandoned(make: MakeApp) -> None:
    app = make()
    release = threading.Event()

    @app.step(timeout=0.05)
    def slow() -> None:
        release.wait(20)

    @app.step(timeout=0.05)
    async def aslow() -> None:
        await asyncio.Event().wait()

    @app.workflow
    def flow() -> None:
        slow()

    @app.workflow
    async def aflow() -> None:
        await aslow()

    with app:
        with pytest.raises(StepTimedOut):
            flow()
        with pytest.raises(StepTimedOut):
            operon.start(aflow).result(PATIENCE)
        release.set()


def test_an_unrecordable_result_is_an_error_that_names_it(make: MakeApp) -> None:
    app = make()
    calls: list[int] = []

    @app.step(retries=5)
    def bad() -> object:
        calls.append(1)
        return threading.Lock()

    @app.workflow
    def flow() -> None:
        bad()

    with app, pytest.raises(NotSerializable, match="bad"):
        flow()
    assert calls == [1], "an effect is not repeated because its result cannot be kept"


def test_verbs_where_they_do_not_belong(make: MakeApp) -> None:
    app = make()

    @app.step
    def nap() -> None:
        operon.sleep(1)

    @app.workflow
    def flow() -> None:
        nap()

    @app.workflow
    async def aflow() -> None:
        nap()

    with app:
        with pytest.raises(NotInWorkflow):
            operon.sleep(1)
        with pytest.raises(NotInWorkflow, match="step"):
            flow()
        with pytest.raises(WrongColour):
            operon.start(aflow).result(PATIENCE)
        with pytest.raises(StillRunning):
            operon.start(flow.using(delay=60)).result(0.05)
        assert operon.now() <= datetime.now(UTC) + timedelta(seconds=5)


def test_awaited_from_the_callers_loop(make: MakeApp) -> None:
    """Under `async with app`, async bodies run on the caller's loop, and a cancelled caller does not stop them."""
    app = make()
    loops: list[Any] = []
    begun, go = asyncio.Event(), asyncio.Event()

    @app.workflow
    async def flow(x: int) -> int:
        loops.append(asyncio.get_running_loop())
        begun.set()
        await go.wait()
        await aio.sleep(0.01)
        return x + 1

    async def main() -> None:
        async with app:
            caller = asyncio.create_task(flow.using(key="w")(1))
            await asyncio.wait_for(begun.wait(), PATIENCE)
            caller.cancel()
            go.set()
            assert await (await aio.retrieve("w", flow)) == 2
        assert loops[0] is asyncio.get_running_loop()

    asyncio.run(main())
