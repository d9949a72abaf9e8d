"""Who hears of a cancellation or a deadline where a workflow runs: nothing begins after it, and all hear."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import operon
from children import PATIENCE, eventually, joined
from engine.conftest import MakeApp
from operon import Operon, aio
from operon.core.commands import Cancel, Claim, Command
from operon.core.rows import Guard, Outcome, before_claims
from operon.core.states import Status
from operon.engine import interrupting
from operon.errors import Cancelled, WorkflowCancelled, WorkflowTimedOut
from operon.stores.memory import MemoryStore


async def forever() -> None:
    """Wait for what never comes."""
    await asyncio.get_running_loop().create_future()


class Gate:
    """Where the body of a test stands until it is let go on."""

    def __init__(self) -> None:
        self.inside, self.go = threading.Event(), threading.Event()

    def __call__(self) -> None:
        """Stand here."""
        self.inside.set()
        assert self.go.wait(PATIENCE)


class TestNothingBegins:
    """Once `cancel()` has returned, no body of the tree begins another step, transaction or child in this process."""

    @pytest.mark.parametrize("how", ["verb", "async verb", "client", "replaced", "in a workflow"])
    def test_after_a_cancellation(self, make: MakeApp, database: Any, how: str) -> None:
        app, gates, begun = make(), [Gate(), Gate()], list[str]()

        @app.step
        def work() -> None:
            begun.append("step")

        @app.workflow
        def other() -> None:
            begun.append("workflow")

        @app.workflow
        def child() -> None:
            gates[1]()
            work()

        @app.workflow
        def flow() -> None:
            operon.start(child)
            gates[0]()
            try:
                (work if how != "in a workflow" else other)()
            except Cancelled:
                begun.append("heard")
                raise

        @app.workflow
        def canceller() -> None:
            operon.cancel("w")

        @app.workflow
        def newer() -> None: ...

        def cancel() -> None:
            if how == "verb":
                operon.cancel("w")
            elif how == "async verb":
                asyncio.run(aio.cancel("w"))
            elif how == "client":
                with operon.Client(database) as client:
                    client.cancel("w")
            elif how == "replaced":
                newer.using(dedupe="d", on_duplicate="replace")()
            else:
                canceller()

        if how == "client" and isinstance(database, MemoryStore):
            pytest.skip("a client has no way to a store in memory")
        with app:
            handle = operon.start(flow.using(key="w", dedupe="d"))
            assert all(gate.inside.wait(PATIENCE) for gate in gates)
            cancel()
            for gate in gates:
                gate.go.set()
            with pytest.raises(WorkflowCancelled):
                handle.result(PATIENCE)
            eventually(lambda: not app_runs(app), "a body goes on")
        assert begun == ["heard"]

    def test_after_a_cancellation_that_another_made_first(self, make: MakeApp) -> None:
        """It is as good as one's own, though nothing is left to cancel and nobody has been told yet."""
        app, gate, begun = make(), Gate(), list[str]()

        @app.step
        def work() -> None:
            begun.append("step")

        @app.workflow
        def flow() -> None:
            gate()
            work()

        with app:
            operon.start(flow.using(key="w"))
            assert gate.inside.wait(PATIENCE)
            engine: Any = app._engine
            engine.store.ask(Cancel("w"))
            operon.cancel("w")
            gate.go.set()
            eventually(lambda: not app_runs(app), "a body goes on")
        assert begun == []

    def test_what_another_process_cancels_is_stopped_at_the_word(self, make: MakeApp) -> None:
        app, inside, heard = make(), threading.Event(), threading.Event()

        @app.workflow
        async def flow() -> None:
            try:
                inside.set()
                await forever()
            except Cancelled:
                heard.set()
                raise

        with app:
            operon.start(flow.using(key="w"))
            assert inside.wait(PATIENCE)
            engine: Any = app._engine
            engine.store.ask(Cancel("w"))
            engine.heard("cancelled")
            assert heard.wait(PATIENCE)

    def test_of_what_is_being_claimed(self) -> None:
        """The claim was answered before the cancellation, and the answer comes after it."""
        store, begun = Late(), list[str]()
        app = Operon("app", database=store)

        @app.workflow
        def flow() -> None:
            begun.append("body")

        with app:
            store.holding = True
            operon.start(flow.using(key="w", delay=0.01))
            assert store.answered.wait(PATIENCE)
            operon.cancel("w")
            store.go.set()
            operon.start(flow.using(key="v")).result(PATIENCE)
        assert begun == ["body"]

    def test_of_what_is_being_claimed_for_the_second_time(self) -> None:
        """It had begun, and slept; what it began is cleaned up all the same."""
        store, seen = Late(), list[str]()
        app = Operon("app", database=store, grace=0.01)

        @app.step
        def note(what: str) -> None:
            seen.append(what)

        @app.workflow
        def flow() -> None:
            note("book")
            try:
                operon.sleep(3600)
                note("never")
            except Cancelled:
                note("undo")
                raise

        with app:
            operon.start(flow.using(key="w"))
            eventually(lambda: operon.describe("w").status == "waiting", "it does not sleep")
            store.holding = True
            store.clock.advance(3600)
            app._engine.service.beat()  # type: ignore[union-attr] # it is launched
            assert store.answered.wait(PATIENCE)
            operon.cancel("w")
            store.go.set()
            eventually(lambda: seen == ["book", "undo"], "it does not clean up")

    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_after_a_deadline(self, make: MakeApp, *, asynchronous: bool) -> None:
        """Whoever waits is told when the body has been: it begins nothing after that."""
        app, gate, begun = make(), Gate(), list[str]()

        @app.step
        def work() -> None:
            begun.append("step")

        @app.workflow
        def flow() -> None:
            gate()
            work()

        @app.workflow
        async def aflow() -> None:
            try:
                gate.inside.set()
                await forever()
            finally:
                begun.append("heard")

        with app:
            handle = operon.start((aflow if asynchronous else flow).using(key="w", timeout=3600))
            assert gate.inside.wait(PATIENCE)
            engine: Any = app._engine
            interrupting.expire(engine, engine.runs["w"])
            with pytest.raises(WorkflowTimedOut):
                handle.result(PATIENCE)
            gate.go.set()
            eventually(lambda: not app_runs(app), "the body goes on")
        assert begun == (["heard"] if asynchronous else [])


def test_a_claim_is_fenced_by_a_later_one_of_its_own_workflow() -> None:
    """Its answer may come after the row was handed back and cancelled; another workflow of the id has other claims."""
    first = before_claims(5 << 20) + 1
    assert Guard("w", first).fenced_by(first)
    assert Guard("w", first).fenced_by(first + 3)
    assert not Guard("w", first + 3).fenced_by(first)
    assert not Guard("w", 1).fenced_by(first)
    assert not Guard("w", first).fenced_by(None)


class Late(MemoryStore):
    """Answers claims late."""

    def __init__(self) -> None:
        super().__init__()
        self.holding = False
        self.answered, self.go = threading.Event(), threading.Event()

    def ask(self, command: Command[Any]) -> Any:
        """Claim at once, and answer when it is let."""
        answer = super().ask(command)
        if isinstance(command, Claim) and self.holding and answer:
            self.answered.set()
            assert self.go.wait(PATIENCE)
        return answer


def app_runs(app: Operon) -> Any:
    """What runs in an app."""
    engine: Any = app._engine
    return engine.runs.claims()


def turn(loop: asyncio.AbstractEventLoop, times: int) -> None:
    """Wait, on a thread, until a loop has had so many turns."""
    done = threading.Event()

    def again(left: int) -> None:
        if left:
            loop.call_soon(again, left - 1)
        else:
            done.set()

    loop.call_soon_threadsafe(again, times)
    assert done.wait(PATIENCE)


class TestAwaits:
    """An async body hears `Cancelled` at whatever it awaits, once, and its clean-up runs undisturbed."""

    AWAITED = ("step", "sleep", "event", "group", "gather", "wait_for", "shield", "child", "timer", "thread")

    @pytest.mark.parametrize("awaited", AWAITED)
    @pytest.mark.parametrize("deadline", [False, True])
    def test_whatever_it_awaits(self, make: MakeApp, awaited: str, *, deadline: bool) -> None:
        app, inside, heard = make(grace=30), threading.Event(), list[str]()

        async def ever() -> None:
            inside.set()
            await forever()

        @app.step
        async def undo(what: str) -> str:
            await asyncio.sleep(0)
            return f"{what} undone"

        step = app.step(name="step")(ever)
        child = app.workflow(name="child")(ever)

        async def group() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(step())
                tasks.create_task(ever())

        def nap() -> None:
            inside.set()
            operon.sleep(3600)

        ways: dict[str, Callable[[], Awaitable[object]]] = {
            "step": step,
            "sleep": lambda: said(aio.sleep(25)),
            "event": ever,
            "group": group,
            "gather": lambda: asyncio.gather(step(), ever(), aio.sleep(3600)),
            "wait_for": lambda: asyncio.wait_for(step(), 3600),
            "shield": lambda: asyncio.shield(ever()),
            "child": child,
            "timer": lambda: said(asyncio.sleep(3600)),
            "thread": lambda: asyncio.to_thread(nap),
        }

        async def said(it: Awaitable[object]) -> None:
            inside.set()
            await it

        @app.workflow
        async def flow() -> None:
            try:
                await ways[awaited]()
            except Cancelled:
                heard.append("heard")
                heard.extend(await asyncio.gather(undo("a"), undo("b")))
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await forever()
                heard.append(await undo("c"))
                raise

        with app:
            handle = operon.start(flow.using(key="w", timeout=3600 if deadline else None))
            assert inside.wait(PATIENCE)
            if deadline:
                engine: Any = app._engine
                interrupting.expire(engine, engine.runs.all()[-1])  # of a child, after its parent, which has the same
            else:
                operon.cancel("w")
            with pytest.raises(WorkflowTimedOut if deadline else WorkflowCancelled):
                handle.result(PATIENCE)
            eventually(lambda: "w" not in dict(app_runs(app)), "the clean-up does not end")
        assert heard == ["heard", "a undone", "b undone", "c undone"]

    @pytest.mark.parametrize("colour", ["sync", "async", "group"])
    def test_by_way_of_a_thread_that_hears_first(self, make: MakeApp, colour: str) -> None:
        """A step on a thread ends when the workflow is cancelled: what awaits it hears either of that or of itself."""
        app, gates, seen = make(grace=30, lease=60), dict[str, Gate](), list[str]()

        @app.step
        def work(key: str) -> None:
            gates[key]()

        @app.step
        def undo(key: str) -> None:
            seen.append(key)

        @app.workflow(name="sync")
        def flow(key: str) -> None:
            with ThreadPoolExecutor() as pool:
                try:
                    pool.submit(work, key).result()
                except Cancelled:
                    pool.submit(undo, key).result()
                    undo(key)
                    raise

        async def within(key: str) -> None:
            try:
                await aio.call(work, key)
            except Cancelled:
                await aio.call(undo, key)
                await aio.call(undo, key)
                raise

        @app.workflow(name="group")
        async def group(key: str) -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(within(key))

        flows: dict[str, Any] = {"sync": flow, "async": app.workflow(name="async")(within), "group": group}
        keys = [f"w{number}" for number in range(20)]
        with app:
            for key in keys:
                gate = gates[key] = Gate()
                operon.start(flows[colour].using(key=key), key)
                assert gate.inside.wait(PATIENCE)
                operon.cancel(key)
                gate.go.set()
            eventually(lambda: not app_runs(app), "the clean-up does not end")
        assert sorted(seen) == sorted([*keys, *keys])

    @pytest.mark.parametrize("grouped", [True, False], ids=["group", "body"])
    def test_by_way_of_a_thread_that_hears_while_the_loop_stands_still(self, make: MakeApp, *, grouped: bool) -> None:
        """Then both ways come in one turn of the loop: the group must not cancel who has begun to clean up."""
        app, gate, seen = make(grace=30, lease=60), Gate(), list[int]()
        loops, threads = list[asyncio.AbstractEventLoop](), list[threading.Thread]()

        @app.step
        def work() -> None:
            threads.append(threading.current_thread())
            gate()

        @app.step
        def undo(number: int) -> None:
            turn(loops[0], 20)
            seen.append(number)

        async def within() -> None:
            loops.append(asyncio.get_running_loop())
            try:
                await aio.call(work)
            except Cancelled:
                await aio.call(undo, 1)
                await aio.call(undo, 2)
                raise

        @app.workflow
        async def flow() -> None:
            if not grouped:
                return await within()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(within())
            return None

        with app:
            operon.start(flow.using(key="w"))
            assert gate.inside.wait(PATIENCE)
            heard = threading.Event()
            loops[0].call_soon_threadsafe(heard.wait, PATIENCE)
            operon.cancel("w")
            gate.go.set()
            joined(threads[0])
            heard.set()
            eventually(lambda: not app_runs(app), "the clean-up does not end")
        assert seen == [1, 2]

    @pytest.mark.parametrize("colour", ["sync", "async"])
    def test_its_own_end_before_that_of_its_child(self, make: MakeApp, colour: str) -> None:
        """Both were cancelled elsewhere, and it is told of the child: what it hears of is its own cancellation."""
        app, inside, heard = make(lease=60, grace=30), threading.Event(), list[str]()

        @app.workflow
        def child() -> None:
            inside.set()
            operon.sleep(3600)

        @app.workflow(name="sync")
        def flow() -> None:
            try:
                operon.start(child).result()
            except BaseException as error:
                heard.append(type(error).__name__)
                raise

        @app.workflow(name="async")
        async def aflow() -> None:
            try:
                await (await aio.start(child))
            except BaseException as error:
                heard.append(type(error).__name__)
                raise

        with app:
            engine: Any = app._engine
            operon.start((flow if colour == "sync" else aflow).using(key="w"))
            assert inside.wait(PATIENCE)
            eventually(lambda: engine.runs["w"].waits, "it does not wait for its child")
            engine.store.ask(Cancel("w"))
            engine.waits.ended("w.1", Outcome(Status.CANCELLED))
            eventually(lambda: "w" not in dict(app_runs(app)), "the clean-up does not end")
        assert heard == ["Cancelled"]

    def test_at_the_moment_in_which_its_run_is_over(self, make: MakeApp) -> None:
        """A thread that hears of it before the one that cancels has come to its end cleans up all the same."""
        app, inside, undone = make(lease=60), threading.Event(), threading.Event()
        canceller, cleaned = threading.current_thread(), list[bool]()

        def stop() -> None:
            if threading.current_thread() is canceller:  # the body may hear first, by a record that is refused
                cleaned.append(undone.wait(PATIENCE))

        @app.step
        def tick() -> None:
            inside.set()

        @app.step
        def undo() -> None:
            undone.set()

        @app.workflow
        def flow() -> None:
            try:
                while True:
                    tick()
            except Cancelled:
                undo()

        with app:
            engine: Any = app._engine
            operon.start(flow.using(key="w"))
            assert inside.wait(PATIENCE)
            engine.runs["w"].stops[stop] = None
            operon.cancel("w")
            assert undone.wait(PATIENCE)
        assert cleaned in ([], [True])

    def test_each_task_of_a_group_cleans_up(self, make: MakeApp) -> None:
        """The group waits for the clean-up of its tasks, and cancels none of it."""
        app, inside, heard = make(grace=30), threading.Barrier(4), list[str]()

        @app.step
        async def undo(what: str) -> None:
            for _ in range(30):
                await asyncio.sleep(0)
            heard.append(f"{what} undone")

        async def ever() -> None:
            await asyncio.to_thread(inside.wait, PATIENCE)
            await forever()

        step = app.step(name="step")(ever)

        async def part(name: str, work: Callable[[], Awaitable[object]]) -> None:
            try:
                await work()
            except Cancelled:
                await undo(name)
                raise

        @app.workflow
        async def flow() -> None:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(part("a", step))
                    tasks.create_task(part("b", step))
                    tasks.create_task(part("c", step))
                    tasks.create_task(part("d", lambda: aio.sleep(3600)))
            except Cancelled:
                heard.append("body")
                raise

        with app:
            operon.start(flow.using(key="w"))
            inside.wait(PATIENCE)
            operon.cancel("w")
            eventually(lambda: not app_runs(app), "the clean-up does not end")
        assert sorted(heard[:4]) == ["a undone", "b undone", "c undone", "d undone"]
        assert heard[4:] == ["body"]

    def test_a_task_that_nobody_awaits(self, make: MakeApp) -> None:
        """It is cancelled while the body cleans up, and does not go on until that is done."""
        app, inside, heard = make(), threading.Event(), list[str]()
        left = asyncio.Event()

        @app.step
        async def undo() -> None:
            await left.wait()

        async def aside() -> None:
            try:
                await forever()
            except Cancelled:
                heard.append("aside")
                left.set()
                raise

        @app.workflow
        async def flow() -> None:
            task = asyncio.create_task(aside())
            try:
                inside.set()
                await forever()
            finally:
                await undo()
                heard.append(f"body {task.done()}")

        with app:
            operon.start(flow.using(key="w"))
            assert inside.wait(PATIENCE)
            operon.cancel("w")
            eventually(lambda: not app_runs(app), "the clean-up does not end")
        assert heard[0] == "aside"
        assert heard[1].startswith("body")

    def test_whoever_cancels_himself(self, make: MakeApp) -> None:
        app, heard = make(), list[str]()

        @app.step
        async def undo() -> None:
            heard.append("undone")

        @app.workflow
        async def flow() -> None:
            try:
                await aio.cancel("w")
                heard.append("went on")
            except Cancelled:
                await undo()
                raise

        with app:
            with pytest.raises(WorkflowCancelled):
                operon.start(flow.using(key="w")).result(PATIENCE)
            eventually(lambda: not app_runs(app), "the clean-up does not end")
        assert heard == ["undone"]

    def test_a_step_of_another_thread_does_not_begin_as_clean_up(self, make: MakeApp) -> None:
        """Only who has been told cleans up: another branch, which has not been, is told first."""
        app, gate, heard = make(), Gate(), list[str]()

        @app.step
        def work() -> None:
            heard.append("work")

        def part() -> None:
            gate()
            work()

        @app.workflow
        def flow() -> None:
            with ThreadPoolExecutor(1) as pool:
                given = pool.submit(part)
                try:
                    operon.sleep(3600)
                except Cancelled:
                    heard.append("body")
                    gate.go.set()
                    with pytest.raises(Cancelled):
                        given.result()
                    raise

        with app:
            handle = operon.start(flow.using(key="w"))
            assert gate.inside.wait(PATIENCE)
            operon.cancel("w")
            with pytest.raises(WorkflowCancelled):
                handle.result(PATIENCE)
            eventually(lambda: not app_runs(app), "the clean-up does not end")
        assert heard == ["body"]
