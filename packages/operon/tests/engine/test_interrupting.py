"""What comes from outside the program's own logic: interrupts, exits, outages, broken exceptions, deep recursion."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from msgspec.structs import replace

import operon
from children import PATIENCE, eventually
from engine.conftest import HOUR, MakeApp, Woken
from engine.stubborn import Stubborn, fine, nothing
from operon import aio
from operon.core.commands import Advance, Command, Look
from operon.core.rows import Outcome
from operon.core.states import Status
from operon.errors import (
    Divergence,
    Duplicate,
    KeyConflict,
    StepFailed,
    StoreError,
    StoreUnavailable,
    Suspended,
    WorkflowHeld,
)


@pytest.fixture
def database() -> Stubborn:
    return Stubborn()


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_call_goes_on_later(make: MakeApp, interrupt: type[BaseException]) -> None:
    """Ctrl-C in a step is no result of it: the workflow is handed back, and the step runs again."""
    app = make()
    ran: list[int] = []

    @app.step
    def work() -> str:
        ran.append(1)
        if len(ran) == 1:
            raise interrupt
        return "done"

    @app.workflow
    def flow() -> str:
        return work()

    with app:
        with pytest.raises(interrupt):
            flow.using(key="w")()
        assert operon.retrieve("w", flow).result(PATIENCE) == "done"
    assert len(ran) == 2


def test_a_swallowed_interrupt_is_no_result_either(make: MakeApp) -> None:
    app = make(lease=0.5)
    ran: list[int] = []

    @app.step
    def work() -> str:
        ran.append(1)
        if len(ran) == 1:
            raise KeyboardInterrupt
        return "done"

    @app.workflow
    def flow() -> str:
        try:
            return work()
        except KeyboardInterrupt:
            return "a lie"

    with app:
        assert flow() == "done"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_exiting_in_the_background_is_a_failure(make: MakeApp, *, asynchronous: bool) -> None:
    """`sys.exit()` on a thread of ours ends nothing: not the process, not the loop, and it is not tried for ever."""
    app = make()
    ran: list[int] = []

    @app.step
    def leave() -> None:
        raise SystemExit(3)

    @app.workflow
    def flow() -> None:
        ran.append(1)
        leave()

    @app.workflow
    async def aflow() -> None:
        ran.append(1)
        raise SystemExit(3)

    @app.workflow
    async def other() -> str:
        return "alive"

    with app:
        with pytest.raises(StepFailed, match="SystemExit"):
            operon.start(aflow if asynchronous else flow).result(PATIENCE)
        assert operon.start(other).result(PATIENCE) == "alive"
    assert len(ran) == 1


def test_errors_that_cannot_be_told(make: MakeApp) -> None:
    """An error whose `str()` raises, or that is no error, or too deep, is recorded all the same."""
    app = make()

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    @app.workflow
    def mute() -> None:
        raise Mute

    @app.workflow
    def deep() -> int:
        def down(n: int) -> int:
            return down(n + 1) + 1

        return down(0)

    @app.workflow
    def stop() -> None:
        raise StopIteration

    @app.workflow
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with app:
        for flow in (mute, deep, stop):
            with pytest.raises(Exception):  # noqa: B017, PT011 - any, and in time
                flow.using(key=flow.name)()
            assert operon.describe(flow.name).status == "failed"
        with pytest.raises(StepFailed, match="CancelledError"):
            operon.start(cancelled).result(PATIENCE)


def test_an_outage_is_not_the_bodys_to_handle(make: MakeApp, database: Stubborn) -> None:
    """A database that is away for a while is no error of a child: the run is left, and goes on later."""
    app = make(lease=0.5)
    handled: list[BaseException] = []
    refused: list[Command[Any]] = []

    @app.workflow
    def child() -> str:
        return "child"

    @app.workflow
    def flow() -> str:
        handle = operon.start(child)
        if not refused:
            database.refuses = refusal
        try:
            return handle.result()
        except Exception as error:
            handled.append(error)
            return "handled"

    def refusal(command: Command[Any]) -> Exception | None:
        if not isinstance(command, Look):
            return None
        refused.append(command)
        database.refuses = fine
        return StoreUnavailable("away")

    with app:
        assert operon.start(flow).result(PATIENCE) == "child"
    assert not handled


def test_a_run_that_was_left_during_a_commit_begins_nothing(make: MakeApp, database: Stubborn) -> None:
    """Its commit may still come through; the next step is its next owner's."""
    app = make(lease=60)  # so that nobody takes it up before the commit has come through
    ran: list[int] = []

    @app.step
    def work(n: int) -> None:
        ran.append(n)

    @app.workflow
    def flow() -> None:
        work(1)
        work(2)

    with app:
        engine: Any = app._engine
        database.holds = lambda command: isinstance(command, Advance)
        handle = operon.start(flow.using(key="w"))
        assert database.arrived.wait(PATIENCE)
        engine.kill(engine.runs["w"], Suspended("taken over"))
        database.holds = nothing
        database.go.set()
        eventually(lambda: operon.steps("w"), "the commit comes through")
        eventually(lambda: engine.service.beat() or operon.describe("w").attempts == 2, "it is taken up again")
        handle.result(PATIENCE)
        assert operon.describe("w").attempts == 2
    assert ran == [1, 2]


def test_an_outcome_that_the_database_refuses_is_held(make: MakeApp, database: Stubborn) -> None:
    """It would be refused again, so the body is not run again and again; a person is told what the database said."""
    app = make(lease=0.2)
    bodies: list[str] = []

    @app.workflow
    def flow() -> str:
        bodies.append("run")
        return "unwritable"

    def refusal(command: Command[Any]) -> Exception | None:
        ends = isinstance(command, Advance) and isinstance(command.end, Outcome) and command.end.output is not None
        return StoreError("the database refused: value out of range") if ends else None

    with app:
        database.refuses = refusal
        with pytest.raises(WorkflowHeld, match="out of range"):
            operon.start(flow.using(key="w")).result(PATIENCE)
    assert bodies == ["run"]


def test_a_refused_start_replays_as_it_was(make: MakeApp, woken: Woken) -> None:
    """A start that failed for its key leaves a record, so that the replay fails, too, and the rest fits."""
    app = make()

    @app.workflow
    def child(n: int) -> int:
        return n

    @app.step
    def after() -> str:
        return "after"

    @app.workflow
    def flow() -> str:
        seen: list[str] = []
        for using in (child.using(key="c"), child.using(key="c", on_duplicate="reject")):
            try:
                operon.start(using, 2)
            except (KeyConflict, Duplicate) as error:
                seen.append(type(error).__name__)
        seen.append(after())
        operon.sleep(HOUR)
        return " ".join(seen)

    with app:
        child.using(key="c")(1)
        handle = operon.start(flow.using(key="w"))
        woken(app, "w")
        assert handle.result(PATIENCE) == "KeyConflict Duplicate after"
        assert operon.describe("w").attempts == 2


def test_what_was_held_replays_as_held(make: MakeApp, database: Stubborn, woken: Woken) -> None:
    """A parent that saw its child held sees that again, whatever became of the child meanwhile."""
    app = make()

    @app.workflow
    def child() -> int:
        raise AssertionError

    @app.workflow
    def flow() -> str:
        handle = operon.start(child.using(key="c", delay=3600))
        seen = "ended"
        try:
            handle.result()
        except WorkflowHeld:
            seen = "held"
        operon.sleep(HOUR)
        return seen

    with app:
        handle = operon.start(flow.using(key="w"))
        eventually(lambda: "c" in database.tables.workflows)
        hold(database, "c")
        eventually(lambda: [s.kind for s in operon.steps("w")] == ["start", "result", "sleep"])
        operon.cancel("c")
        woken(app, "w")
        assert handle.result(PATIENCE) == "held"


def hold(database: Stubborn, workflow_id: str) -> None:
    """Leave a workflow to a person, as a divergence would."""
    with database._lock:
        workflow = database.tables.workflows[workflow_id]
        workflow.row = replace(workflow.row, status=Status.HELD, ready_at=None)


def test_a_divergence_is_no_failure_of_a_step(make: MakeApp, woken: Woken) -> None:
    """When one branch diverges while another is in a step, the step's end records nothing."""
    app = make()
    rounds: list[int] = []
    inside, diverged = asyncio.Event(), asyncio.Event()

    @app.step
    async def one() -> None: ...

    @app.step
    async def other() -> None: ...

    @app.step(retries=3)
    async def slow() -> None:
        inside.set()
        await diverged.wait()

    @app.workflow
    async def flow() -> None:
        rounds.append(1)
        if len(rounds) == 1:
            await one()
            await aio.sleep(HOUR)
            return
        task = asyncio.create_task(slow())
        await inside.wait()
        try:
            await other()
        except Divergence:
            diverged.set()
        await task

    with app:
        handle = operon.start(flow.using(key="w"))
        woken(app, "w")
        with pytest.raises(WorkflowHeld, match="one"):
            handle.result(PATIENCE)
        assert [s.name.rpartition(".")[2] for s in operon.steps("w")] == ["one", "sleep"]


def test_children_nest_deeply(make: MakeApp) -> None:
    """A workflow that calls itself, each level a child, is not bounded by one thread's stack."""
    app = make()

    @app.workflow
    def down(n: int) -> int:
        return down(n - 1) + 1 if n else 0

    with app:
        assert down(200) == 200


def test_a_task_cancelled_by_its_loop_is_no_failure(make: MakeApp) -> None:
    """When the caller's loop goes down, it cancels every task: the workflow goes on elsewhere."""
    first, second = make("first"), make("second")
    begun = asyncio.Event()
    rounds: list[int] = []

    def declare(app: operon.Operon) -> Any:
        @app.workflow(name="flow")
        async def flow() -> str:
            rounds.append(1)
            if len(rounds) == 1:
                begun.set()
                await asyncio.Event().wait()
            return "done"

        return flow

    flow = declare(first)
    declare(second)

    async def main() -> None:
        async with first:
            await aio.start(flow.using(key="w"))
            await asyncio.wait_for(begun.wait(), PATIENCE)
            for task in asyncio.all_tasks():
                if task is not asyncio.current_task():
                    task.cancel()
            await asyncio.sleep(0)

    asyncio.run(main())
    with second:
        assert operon.retrieve("w").result(PATIENCE) == "done"


def test_a_body_that_will_not_leave_does_not_keep_the_app(make: MakeApp) -> None:
    app = make()
    begun, go = threading.Event(), threading.Event()

    @app.workflow
    def stubborn() -> None:
        while not go.is_set():
            try:
                begun.set()
                go.wait(20)
            except BaseException:  # noqa: S110 - what is tested
                pass

    @app.workflow
    async def blocking() -> None:
        begun.set()
        go.wait(20)

    for flow in (stubborn, blocking):
        begun.clear()
        app.launch()
        operon.start(flow)
        assert begun.wait(PATIENCE)
        closing = threading.Thread(target=app.close, args=(0.1,), daemon=True)
        closing.start()
        closing.join(20)
        assert not closing.is_alive()
    left = [thread for thread in threading.enumerate() if thread.name == "operon-loop"]
    go.set()
    for thread in left:
        thread.join(PATIENCE)
