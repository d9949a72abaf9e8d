"""What a task awaits that another thread brings: it comes to its loop, and a cancellation is neither lost nor early."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from children import PATIENCE
from operon.engine.bridge import Bridged, bridged
from operon.promises import Promise

MAKERS: dict[str, Callable[..., Any]] = {"compiled": asyncio.Task, "python": vars(asyncio.tasks)["_PyTask"]}
"""Both tasks of asyncio; other loops have the first."""


@pytest.fixture(params=MAKERS)
def task(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Make a task of either kind."""
    return MAKERS[request.param]


def settle(futures: list[Promise[int]]) -> None:
    """Give each its number."""
    for n, future in enumerate(futures):
        future.set_result(n)


def elsewhere(call: Callable[[], object]) -> None:
    """Call this on a thread of its own, and wait for its end."""
    thread = threading.Thread(target=call, name="elsewhere")
    thread.start()
    thread.join(PATIENCE)


def test_what_another_thread_brings_is_awaited(task: Callable[..., Any]) -> None:
    async def main() -> list[int]:
        futures = [Promise[int]() for _ in range(3)]
        tasks = [task(bridged(future)) for future in futures]
        await asyncio.sleep(0)
        elsewhere(lambda: settle(futures))
        return [await asyncio.wait_for(each, PATIENCE) for each in tasks]

    assert asyncio.run(main()) == [0, 1, 2]


def test_what_fails_there_is_raised_here(task: Callable[..., Any]) -> None:
    async def main() -> None:
        future = Promise[int]()
        waiting = task(bridged(future))
        await asyncio.sleep(0)
        elsewhere(lambda: future.set_exception(ValueError("there")))
        with pytest.raises(ValueError, match="there"):
            await asyncio.wait_for(waiting, PATIENCE)

    asyncio.run(main())


def test_a_wait_is_over_when_it_is_cancelled(task: Callable[..., Any]) -> None:
    """What was waited for goes on, and its coming later wakes nobody."""

    async def main() -> None:
        future = Promise[int]()
        waiting = task(bridged(future))
        await asyncio.sleep(0)
        waiting.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await asyncio.wait_for(waiting, PATIENCE)
        elsewhere(lambda: future.set_result(1))
        await asyncio.sleep(0)
        assert future.result(0) == 1

    asyncio.run(main())


def test_a_commit_is_awaited_to_its_end(task: Callable[..., Any]) -> None:
    """Who is cancelled meanwhile, however often, is told how it ended, and is cancelled at his next await."""
    told: list[object] = []

    async def commits(future: Future[int]) -> None:
        value = await Bridged(future, firm=True)
        told.append(value)
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError as error:
            told.append(error.args)
            raise

    async def main() -> None:
        future = Promise[int]()
        waiting = task(commits(future))
        await asyncio.sleep(0)
        for _ in range(3):
            waiting.cancel("scope")
            await asyncio.sleep(0)
        assert told == []
        elsewhere(lambda: future.set_result(1))
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(waiting, PATIENCE)

    asyncio.run(main())
    assert told == [1, ("scope",)]


def test_a_timeout_that_was_left_meanwhile_cancels_nothing() -> None:
    async def main() -> int:
        future = Promise[int]()
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, elsewhere, lambda: future.set_result(1))
        async with asyncio.timeout(0.001):
            value = await Bridged(future, firm=True)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return value

    assert asyncio.run(main()) == 1


def test_who_interrupts_the_process_keeps_nobody_else_waiting(task: Callable[..., Any]) -> None:
    futures = [Promise[int]() for _ in range(3)]
    told: list[int] = []

    async def waits(future: Future[int]) -> None:
        told.append(await bridged(future))
        if len(told) == 1:
            raise KeyboardInterrupt

    loop = asyncio.new_event_loop()
    try:
        tasks = [loop.create_task(asyncio.sleep(0)), *(task(waits(future), loop=loop) for future in futures)]
        loop.run_until_complete(tasks[0])
        elsewhere(lambda: settle(futures))
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.wait(tasks))
        loop.run_until_complete(asyncio.wait_for(asyncio.wait(tasks), PATIENCE))
    finally:
        loop.close()
    assert told == [0, 1, 2]


class AtOnce(Promise[int]):
    """Comes as soon as somebody waits for it, as an answer from memory may."""

    def add_done_callback(self, fn: Callable[[Future[int]], object]) -> None:
        super().add_done_callback(fn)
        self.set_result(1)


def test_who_lands_again_and_again_keeps_nobody_else_waiting() -> None:
    """The loop does other things between two of its answers."""
    answered: list[int] = []

    async def busy() -> None:
        while True:
            answered.append(await bridged(AtOnce()))

    async def main() -> None:
        tasks = [asyncio.create_task(busy()) for _ in range(2)]
        for _ in range(10):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()

    asyncio.run(main())
    assert 10 <= len(answered) <= 30


def test_what_comes_after_the_loop_is_over_wakes_nobody() -> None:
    future = Promise[int]()

    async def main() -> None:
        waiting = asyncio.create_task(bridged(future))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(waiting, PATIENCE)

    asyncio.run(main())
    elsewhere(lambda: future.set_result(1))
    assert future.result(0) == 1
