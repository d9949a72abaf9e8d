"""A body that runs its event loop again from inside, as nest_asyncio allows: it is refused, and the loop goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from children import PATIENCE
from engine.conftest import MakeApp
from engine.gates import Gate
from operon import aio
from operon.errors import WrongColour

pytestmark = pytest.mark.parametrize("database", ["memory:"])
TURNS = 200
"""Turns of the loop that are done from inside, and no more: where no timer is ever due there would be no end."""


def run_again(loop: Any, work: Any) -> Any:
    """Run a loop to the end of this, from inside of one that runs, as nest_asyncio does."""
    outer: Any = asyncio._get_running_loop()
    if outer is not loop:
        try:
            return asyncio.SelectorEventLoop.run_until_complete(loop, work)
        finally:
            asyncio._set_running_loop(outer)
    given: list[Any] = []

    async def done() -> None:
        given.append(await work)

    task, around = loop.create_task(done()), asyncio.current_task(loop)
    assert around is not None
    asyncio.tasks._leave_task(loop, around)
    try:
        turn(loop, task)
    finally:
        asyncio.tasks._enter_task(loop, around)
    if (error := task.exception()) is not None:
        raise error
    return given[0]


def turn(loop: Any, until: asyncio.Future[Any]) -> None:
    for _ in range(TURNS):
        if until.done():
            return
        loop._run_once()
    until.cancel()
    raise AssertionError("the loop stands still")


class Reentrant(asyncio.SelectorEventLoop):
    """A loop to which nest_asyncio was applied."""

    def _check_running(self) -> None:
        pass

    def run_forever(self) -> None:
        if asyncio._get_running_loop() is self:
            loop: Any = self
            loop._run_once()
            loop._stopping = False
        else:
            super().run_forever()

    def run_until_complete(self, future: Any) -> Any:
        return run_again(self, future)


class Later(asyncio.SelectorEventLoop):
    """One to which it is applied when an app is launched on it."""


Make = Callable[[], Coroutine[Any, Any, Any]]


def until_complete(loop: Any, make: Make) -> object:
    return loop.run_until_complete(make())


def as_asyncio_run(loop: Any, make: Make) -> object:
    """As nest_asyncio's: the task is there before the loop is asked."""
    task = loop.create_task(make())
    try:
        return loop.run_until_complete(task)
    finally:
        if not task.done():
            task.cancel()


def for_ever(loop: Any, make: Make) -> object:
    stop = loop.call_soon(loop.stop)
    try:
        return loop.run_forever()
    finally:
        stop.cancel()
        del make


def by_turns(loop: Any, make: Make) -> object:
    task = loop.create_task(make())
    try:
        turn(loop, task)
    finally:
        task.cancel()
    return None


async def ticking() -> None:
    """Keep the loop from waiting for ever."""
    while True:  # noqa: ASYNC110 - it waits for nothing
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("work", ["nothing", "sleep", "step"])
@pytest.mark.parametrize("run", [until_complete, as_asyncio_run, for_ever, by_turns])
def test_a_body_that_runs_its_loop_again_is_refused_and_goes_on(make: MakeApp, run: Any, work: str) -> None:
    """It may catch that; nothing of what it gave is done, a replay is told the same, and the loop's timers go on."""
    app, told, done = make(), list[str](), list[str]()
    gate = Gate(app)

    @app.step
    async def step(what: str) -> str:
        done.append(what)
        return what

    async def given() -> None:
        if work == "sleep":
            await asyncio.sleep(0.01)
        if work == "step":
            await step("given")
        done.append("given")

    @app.workflow
    async def flow() -> str:
        await step("before")
        try:
            run(asyncio.get_running_loop(), given)
        except WrongColour as error:
            told.append(str(error))
        await gate.apass_through()
        return await step("after")

    async def main() -> None:
        async with app:
            tick = asyncio.create_task(ticking())
            await asyncio.to_thread(gate.shut)
            handle = await aio.start(flow.using(key="w"))
            await asyncio.to_thread(gate.open_behind, "w")
            assert await asyncio.wait_for(handle, PATIENCE) == "after"
            tick.cancel()

    with asyncio.Runner(loop_factory=Reentrant) as runner:
        runner.run(main())
    assert done == ["before", "after"]
    assert len(told) == 2
    assert told[0] == told[1]
    assert "runs its event loop again from inside" in told[0]


@pytest.mark.parametrize("loops", [Reentrant, Later])
def test_a_step_may_run_the_loop_again(make: MakeApp, monkeypatch: pytest.MonkeyPatch, loops: Any) -> None:
    """In its own time; also where the loop's class has learned it after the launch."""
    app = make()

    async def inner() -> str:
        await asyncio.sleep(0.01)
        return "done"

    @app.step
    async def step() -> object:
        return until_complete(asyncio.get_running_loop(), inner)

    @app.workflow
    async def flow() -> object:
        return await step()

    async def main() -> None:
        async with app:
            monkeypatch.setattr(Later, "run_until_complete", run_again)
            assert await asyncio.wait_for(flow(), PATIENCE) == "done"
            assert run_again(asyncio.get_running_loop(), inner()) == "done"
        assert not {"run_until_complete", "run_forever", "set_task_factory"} & vars(asyncio.get_running_loop()).keys()

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(main())


def test_a_step_on_another_loop_that_a_body_runs_is_refused(make: MakeApp) -> None:
    """Also the first one, though the task of the body is still the one that its own loop executes."""
    app, done = make(), list[int]()

    @app.step
    async def step() -> None:
        done.append(1)

    @app.workflow
    async def flow() -> None:
        other = Reentrant()
        try:
            other.run_until_complete(step())
        finally:
            other.close()

    async def main() -> None:
        async with app:
            with pytest.raises(WrongColour, match="an event loop of its own"):
                await asyncio.wait_for(flow(), PATIENCE)

    with asyncio.Runner(loop_factory=Reentrant) as runner:
        runner.run(main())
    assert done == []


def test_a_blocking_body_must_not_run_the_loop_that_its_app_was_launched_on(make: MakeApp) -> None:
    """As where a test launches in a fixture: the loop stands still meanwhile, and would have the body's time."""
    app = make()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()

        @app.workflow
        def flow() -> None:
            loop.run_until_complete(asyncio.sleep(0.01))

        runner.run(app.__aenter__())
        end = threading.Timer(PATIENCE / 10, loop.call_soon_threadsafe, [loop.stop])
        end.start()
        try:
            with pytest.raises(WrongColour, match="runs its event loop again"):
                flow()
        finally:
            end.cancel()
            end.join(PATIENCE)
            runner.run(app.__aexit__(None, None, None))


def test_where_asyncio_refuses_it_says_so_itself(make: MakeApp) -> None:
    """What nothing has made run again from inside raises what it always did, which libraries look for."""
    app = make()

    @app.workflow
    async def flow() -> str:
        loop, work = asyncio.get_running_loop(), asyncio.sleep(0)
        try:
            loop.run_until_complete(work)
        except RuntimeError as error:
            return str(error)
        finally:
            work.close()
        return ""

    async def main() -> None:
        async with app:
            assert "already running" in await asyncio.wait_for(flow(), PATIENCE)

    asyncio.run(main())
