"""Callbacks that a body gives to its loop: a replay calls them between the same two results as the first run did."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from engine.test_branches import Loops, Program, Stores, World, check_replays, late, prompt

Task = asyncio.Task[None]


async def around(world: World, give: Callable[[Callable[[], None]], object]) -> None:
    """Have a callback begin a line, beside the body's own and beside a task of its own."""
    loop, tasks = asyncio.get_running_loop(), list[Task]()

    def begin() -> None:
        world.seen.append("called")
        tasks.append(loop.create_task(world.line("c")))

    give(begin)
    await world.line("a")
    own = loop.create_task(world.line("o"))
    await world.line("b")
    await asyncio.gather(own, *tasks)
    await world.do("end")


async def called_soon(world: World) -> None:
    await around(world, lambda call: asyncio.get_running_loop().call_soon(call))


async def called_soon_threadsafe(world: World) -> None:
    await around(world, lambda call: asyncio.get_running_loop().call_soon_threadsafe(call))


async def called_in_the_end(world: World) -> None:
    """By a chain of callbacks that is longer than any of futures."""
    loop = asyncio.get_running_loop()

    def later(turns: int, call: Callable[[], None]) -> None:
        loop.call_soon(later, turns - 1, call) if turns else call()

    await around(world, lambda call: later(20, call))


async def called_when_done(world: World) -> None:
    future = asyncio.get_running_loop().create_future()

    def give(call: Callable[[], None]) -> None:
        future.add_done_callback(lambda _: call())
        future.set_result(None)

    await around(world, give)


async def called_when_done_before(world: World) -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_result(None)
    await around(world, lambda call: future.add_done_callback(lambda _: call()))


async def called_by_a_timer(world: World) -> None:
    loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def give(call: Callable[[], None]) -> None:
        future.add_done_callback(lambda _: call())
        loop.call_later(0.001, future.set_result, None)

    await around(world, give)
    await future


async def called_by_a_timer_at_once(world: World) -> None:
    """It fires during the first step: a replay asks for the result of that before the timer has fired."""
    loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def give(call: Callable[[], None]) -> None:
        future.add_done_callback(lambda _: call())
        loop.call_later(0, future.set_result, None)

    await around(world, give)
    await future


async def cancelled_call(world: World) -> None:
    await around(world, lambda call: asyncio.get_running_loop().call_soon(call).cancel())


async def told_by_a_callback(world: World) -> None:
    """A body awaits a future that a callback completes, beside a line that a callback of that begins."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[str] = loop.create_future()
    tasks: list[Task] = []
    future.add_done_callback(lambda _: tasks.append(loop.create_task(world.line("c"))))
    loop.call_soon(future.set_result, "told")
    await world.do("a")
    world.seen.append(await future)
    await world.line("b")
    await asyncio.gather(*tasks)
    await world.do("end")


async def called_in_a_task(world: World) -> None:
    async def line(name: str) -> None:
        tasks: list[Task] = []
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: tasks.append(loop.create_task(world.line(f"{name}c"))))
        await world.line(name)
        await asyncio.gather(*tasks)

    await asyncio.gather(line("x"), line("y"))
    await world.do("end")


PROGRAMS: list[Program] = [
    called_soon,
    called_soon_threadsafe,
    called_in_the_end,
    called_when_done,
    called_when_done_before,
    called_by_a_timer,
    called_by_a_timer_at_once,
    cancelled_call,
    told_by_a_callback,
    called_in_a_task,
]


@pytest.mark.parametrize("stores", [prompt, late], ids=["prompt", "late"])
@pytest.mark.parametrize("loops", [asyncio.SelectorEventLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_replay_calls_back_when_the_first_run_did(program: Program, loops: Loops, stores: Stores) -> None:
    """Killed after any record, the workflow is called back before the same result, and none is held."""
    check_replays(program, 1, loops, stores)


def test_what_a_timer_calls_comes_before_the_result_that_waited_for_it() -> None:
    """Whether a body rests before a result is decided when its turn has come: the timer before it may have given a
    callback to the loop. One run in fifteen showed the difference, so there are twenty.
    """
    for seed in range(20):
        check_replays(called_by_a_timer, seed, uvloop.new_event_loop, prompt)
