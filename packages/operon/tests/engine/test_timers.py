"""Timers that a body sets on its loop: they fire at their time, parked or not, and in each replay."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from children import PATIENCE, eventually
from engine.conftest import MakeApp
from engine.gates import Gate
from operon import Operon, aio
from operon.core.commands import Load
from operon.errors import StepFailed

LATE, LONG = 0.4, 3600.0
"""Seconds: more than the grace, so that the run is parked before its timer fires; more than any test takes."""


async def replayed(gate: Gate, told: list[str], word: str, workflow_id: str) -> None:
    """Open the gate behind a body that has been told this before it came there."""
    await asyncio.to_thread(eventually, lambda: word in told, f"it was never told {word!r}")
    await asyncio.to_thread(gate.open_behind, workflow_id)


class Late:
    """A way to wait for something that takes too long."""

    def __init__(self, app: Operon) -> None:
        @app.workflow(name="child")
        async def child() -> None:
            await aio.sleep(LONG)

        @app.step(name="hang")
        async def hang() -> None:
            await asyncio.Event().wait()

        self.child, self.hang = child, hang

    async def sleeping(self) -> None:
        async with asyncio.timeout(LATE):
            await aio.sleep(LONG)

    async def awaiting_a_child(self) -> None:
        async with asyncio.timeout(LATE):
            await self.child()

    async def awaiting_a_handle(self) -> None:
        handle = await aio.start(self.child)
        async with asyncio.timeout(LATE):
            await handle

    async def in_a_step(self) -> None:
        async with asyncio.timeout(LATE):
            await self.hang()

    async def with_wait_for(self) -> None:
        await asyncio.wait_for(aio.sleep(LONG), LATE)

    async def with_wait(self) -> None:
        task = asyncio.ensure_future(aio.sleep(LONG))
        done, _ = await asyncio.wait({task}, timeout=LATE)
        if not done:
            task.cancel()
            raise TimeoutError

    async def beside_a_sleep(self) -> None:
        async with asyncio.timeout(LATE):
            await asyncio.gather(aio.sleep(LONG), asyncio.sleep(LONG))

    async def at_once(self) -> None:
        async with asyncio.timeout(0.0005):
            await aio.sleep(LONG)


WAYS: list[Callable[[Late], Awaitable[None]]] = [it for name, it in vars(Late).items() if not name.startswith("_")]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_timeout_fires_at_its_time_and_in_every_replay(make: MakeApp, way: Callable[[Late], Awaitable[None]]) -> None:
    """However long what is awaited takes, in each run the body is told that it was late, and none is held."""
    app = make()
    late = Late(app)
    told: list[str] = []

    @app.step
    async def note(what: str) -> str:
        return what

    @app.workflow
    async def flow() -> str:
        try:
            await way(late)
        except TimeoutError:
            told.append("late")
        else:
            told.append("done")
        said = await note(told[-1])
        await gate.apass_through()
        return said

    gate = Gate(app)

    async def main() -> None:
        async with app:
            await aio.call(gate.shut)
            handle = await aio.start(flow)
            await replayed(gate, told, "late", handle.id)
            assert await handle.wait(PATIENCE) == "late"

    asyncio.run(main())
    assert told[-2:] == ["late", "late"]


def test_a_replay_does_not_wait_for_a_timeout_of_the_past(make: MakeApp) -> None:
    """What fired once fires in its turn, however long it would take by now."""
    app = make()
    limits, told = [0.05], list[str]()

    @app.step
    async def hang() -> None:
        await asyncio.Event().wait()

    @app.workflow
    async def flow() -> None:
        try:
            async with asyncio.timeout(limits[-1]):
                await hang()
        except TimeoutError:
            told.append("late")
        limits.append(LONG)
        await gate.apass_through()

    gate = Gate(app)

    async def main() -> None:
        async with app:
            await aio.call(gate.shut)
            handle = await aio.start(flow)
            await replayed(gate, told, "late", handle.id)
            await handle.wait(PATIENCE)

    asyncio.run(main())
    assert told == ["late", "late"]


def test_timers_of_steps_and_of_others_are_left_alone(make: MakeApp) -> None:
    """What a step waits for is no event of its workflow, nor what runs beside it on the loop."""
    app = make()

    @app.step
    async def pause() -> None:
        await asyncio.sleep(0.01)
        async with asyncio.timeout(LONG):
            await asyncio.sleep(0.01)

    @app.workflow
    async def flow() -> None:
        await pause()

    async def main() -> None:
        async with app:
            handle = await aio.start(flow)
            await asyncio.sleep(0.01)
            await handle.wait(30)
            engine = app._engine
            assert engine is not None
            assert [it.kind for it in engine.store.ask(Load(handle.id))] == ["step"]

    asyncio.run(main())


def test_a_timer_that_was_cancelled_in_time_leaves_nothing(make: MakeApp) -> None:
    app = make()

    @app.workflow
    async def flow() -> int:
        async with asyncio.timeout(LONG):
            await asyncio.sleep(0)
            return 1

    async def main() -> None:
        async with app:
            handle = await aio.start(flow)
            assert await handle.wait(30) == 1
            engine = app._engine
            assert engine is not None
            assert engine.store.ask(Load(handle.id)) == ()

    asyncio.run(main())


def test_a_loop_is_given_back_as_it_was(make: MakeApp) -> None:
    app = make()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = loop.call_at, loop.call_later, loop.call_soon, loop.call_soon_threadsafe
        async with app:
            assert loop.call_at != before[0]
            assert loop.call_soon != before[2]
        assert (loop.call_at, loop.call_later, loop.call_soon, loop.call_soon_threadsafe) == before

    asyncio.run(main())


def test_a_body_that_cancels_itself_fails_and_is_not_run_for_ever(make: MakeApp) -> None:
    app = make()
    runs: list[int] = []

    @app.workflow
    async def flow() -> None:
        runs.append(1)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(LONG)

    async def main() -> None:
        async with app:
            handle = await aio.start(flow)
            with pytest.raises(StepFailed, match="CancelledError"):
                await handle.wait(30)
            assert len(runs) == 2

    asyncio.run(main())


def test_a_branch_that_leaves_with_its_run_is_nobodys_to_retrieve(
    make: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """A task that waits when its run is parked ends by `Suspended`; asyncio does not complain of it."""
    app = make()

    @app.workflow
    async def flow() -> None:
        task = asyncio.create_task(aio.sleep(0.4))
        await asyncio.wait({task})

    async def main() -> None:
        async with app:
            handle = await aio.start(flow)
            await handle.wait(30)

    with caplog.at_level(logging.ERROR, "asyncio"):
        asyncio.run(main())
    assert not caplog.records


def test_a_deadline_that_a_body_computes_is_the_same_in_each_replay(make: MakeApp) -> None:
    """The loop's time is to a body the time at which it was told what it knows: a deadline for several steps holds."""
    app = make()
    told: list[str] = []

    @app.step
    async def work() -> None:
        await asyncio.sleep(LATE)

    @app.step
    async def note(what: str) -> str:
        return what

    @app.workflow
    async def flow() -> str:
        deadline = asyncio.get_running_loop().time() + LATE / 2
        await work()
        try:
            async with asyncio.timeout_at(deadline):  # it has passed: in a replay, too
                await aio.sleep(LONG)
                told.append("done")
        except TimeoutError:
            told.append("late")
        said = await note(told[-1])
        await gate.apass_through()
        return said

    gate = Gate(app)

    async def main() -> None:
        async with app:
            await aio.call(gate.shut)
            handle = await aio.start(flow)
            await replayed(gate, told, "late", handle.id)
            assert await handle.wait(PATIENCE) == "late"

    asyncio.run(main())
    assert told == ["late", "late"]


def test_a_parked_deadline_is_kept(make: MakeApp) -> None:
    """A deadline that a body computed before it slept fires when it said, not later by what has been replayed."""
    app = make()
    left: list[float] = []

    @app.workflow
    async def flow() -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LONG
        await aio.sleep(LATE)  # beyond the grace: the body is replayed
        left.append(deadline - loop.time())

    async def main() -> None:
        async with app:
            await flow()

    asyncio.run(main())
    assert left[-1] <= LONG - LATE


def test_a_timer_that_fires_during_a_sleep_is_told_before_its_end(make: MakeApp) -> None:
    """Whether what comes next is recorded is decided where the sleep begins, as a replay does."""
    app = make()
    runs, told = list[int](), list[str]()

    @app.step
    async def note(what: str) -> str:
        told.append(what)
        return what

    @app.workflow
    async def flow() -> str:
        runs.append(1)
        asyncio.get_running_loop().call_later(0.001, lambda: None)
        await aio.sleep(0.02)
        said = await note("done")
        await gate.apass_through()
        return said

    gate = Gate(app)

    async def main() -> None:
        async with app:
            await aio.call(gate.shut)
            handle = await aio.start(flow)
            await replayed(gate, told, "done", handle.id)
            assert await handle.wait(PATIENCE) == "done"

    asyncio.run(main())
    assert len(runs) > 1
