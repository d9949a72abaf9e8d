"""Scopes, groups and primitives of asyncio and of anyio around steps: a replay sees what the first run saw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
import pytest
import uvloop

from engine.test_branches import Loops, Program, World, check_replays, slow
from operon import aio

pytestmark = pytest.mark.usefixtures("patient")
SOON = 0.02
"""Seconds after which a scope is cancelled."""


class Failed(Exception):
    """What a branch raises."""


async def failing(world: World) -> None:
    await world.do("failing")
    raise Failed


# ── anyio: its scopes cancel in every turn of the loop until they are left ───────────────────────────────────────


async def anyio_move_on(world: World) -> None:
    for n in range(2):
        with anyio.move_on_after(SOON) as scope:
            await world.hang(f"h{n}")
        world.seen.append(f"cancelled {scope.cancelled_caught}")
        await world.do(f"after {n}")


async def anyio_fail_after(world: World) -> None:
    try:
        with anyio.fail_after(SOON):
            await aio.sleep(60)
    except TimeoutError:
        world.seen.append("late")
    await world.do("end")


async def anyio_shield(world: World) -> None:
    with anyio.move_on_after(SOON):
        try:
            await world.hang("h")
        finally:
            with anyio.CancelScope(shield=True):
                await world.line("clean up", 2)
    await world.do("end")


async def anyio_group_cancelled(world: World) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(world.hang, "h")
        group.start_soon(world.line, "a", 3)
        await world.do("m")
        group.cancel_scope.cancel()
    await world.do("end")


async def anyio_group_failing(world: World) -> None:
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(world.hang, "h")
            group.start_soon(failing, world)
            group.start_soon(world.line, "l", 4)
    except* Failed:
        world.seen.append("failed")
    await world.do("end")


async def anyio_stream(world: World) -> None:
    send, receive = anyio.create_memory_object_stream[str](2)

    async def produce() -> None:
        async with send:
            for n in range(3):
                await send.send(await world.work(f"p{n}"))

    async with anyio.create_task_group() as group:
        group.start_soon(produce)
        async with receive:
            async for item in receive:
                await world.do(f"got {item[:2]}")


# ── asyncio ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def ticks(world: World) -> None:
    """A timer that sets the next one when it fires."""
    left, over, loop = [3], asyncio.Event(), asyncio.get_running_loop()

    def tick() -> None:
        left[0] -= 1
        if left[0]:
            loop.call_later(SOON / 2, tick)
        else:
            over.set()

    loop.call_later(SOON / 2, tick)
    await world.line("a", 2)
    await over.wait()
    await world.do("end")


async def barrier(world: World) -> None:
    meeting = asyncio.Barrier(3)

    async def come(name: str) -> None:
        await world.line(name, 2)
        await world.do(f"{name} is number {await meeting.wait()}")

    await asyncio.gather(*(come(name) for name in "abc"))


async def condition(world: World) -> None:
    changed, items = asyncio.Condition(), list[str]()

    async def take(name: str) -> None:
        async with changed:
            await changed.wait_for(lambda: len(items) > 1)
            items.pop()
        await world.do(name)

    async def give() -> None:
        for n in range(4):
            item = await world.work(f"i{n}")
            async with changed:
                items.append(item)
                changed.notify()

    async with asyncio.TaskGroup() as group:
        for work in (take("x"), take("y"), give()):
            group.create_task(work)


async def timeouts_in_one_another(world: World) -> None:
    try:
        async with asyncio.timeout(3 * SOON):
            try:
                async with asyncio.timeout(SOON):
                    await world.hang("h")
            except TimeoutError:
                world.seen.append("inner")
            await world.do("m")
            await world.hang("h")
    except TimeoutError:
        world.seen.append("outer")
    await world.do("end")


async def deadlines_in_a_slow_commit(world: World) -> None:
    async def one(name: str) -> None:
        await world.do(name)  # is written before the next step begins, and both deadlines pass meanwhile
        try:
            async with asyncio.timeout(0.004):
                try:
                    async with asyncio.timeout(0.002):
                        await world.hang("h")
                except TimeoutError:
                    world.seen.append(f"{name} inner")
        except TimeoutError:
            world.seen.append(f"{name} outer")

    await one("a")
    await asyncio.gather(one("b"), one("c"))
    await world.do("end")


async def rescheduled(world: World) -> None:
    try:
        async with asyncio.timeout(None) as scope:
            await world.do("a")
            scope.reschedule(asyncio.get_running_loop().time() + SOON)
            await world.do("b")
            await world.hang("h")
    except TimeoutError:
        world.seen.append("late")
    await world.do("end")


async def deadline_of_the_past(world: World) -> None:
    deadline = asyncio.get_running_loop().time() - SOON
    await world.do("a")
    try:
        async with asyncio.timeout_at(deadline):
            await aio.sleep(3600)
    except TimeoutError:
        world.seen.append("late")
    await world.do("end")


async def group_failing(world: World) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for work in (failing(world), world.line("c", 4), world.hang("h")):
                group.create_task(work)
    except* Failed:
        world.seen.append("failed")
    await world.do("end")


async def a_set_is_cancelled(world: World) -> None:
    async def one(name: str) -> None:
        try:
            await world.hang(name)
        finally:
            await world.do(f"clean up {name}")

    tasks = {asyncio.create_task(one(name)) for name in "abcde"}
    await world.do("m")
    for task in tasks:
        task.cancel()
    done, _ = await asyncio.wait(tasks)
    world.seen.extend(str(task.cancelled()) for task in done)


async def survivor(world: World) -> None:
    async def one() -> None:
        try:
            await world.hang("h")
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            await world.do("goes on")
        await world.do("more")

    task = asyncio.create_task(one())
    await world.do("m")
    task.cancel()
    await task


async def generator(world: World) -> None:
    async def items() -> AsyncGenerator[str, None]:
        try:
            for n in range(4):
                yield await world.work(f"g{n}")
        finally:
            await world.do("closed")

    async with aclosing(items()) as them:
        async for item in them:
            if item.startswith("g2"):
                break
    await world.do("end")


async def first_exception(world: World) -> None:
    works = (failing(world), world.line("a", 3), world.hang("h"))
    tasks = [asyncio.create_task(work) for work in works]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    world.seen.extend(repr(task.exception()) for task in done)
    for task in pending:
        task.cancel()
    results = await asyncio.gather(*pending, return_exceptions=True)
    world.seen.extend(type(result).__name__ for result in results)
    await world.do("end")


async def as_completed_too_late(world: World) -> None:
    try:
        for earliest in asyncio.as_completed([world.work("a"), world.hang("h"), world.work("b")], timeout=SOON):
            await world.do(f"after {(await earliest)[0]}")
    except TimeoutError:
        world.seen.append("late")
    await world.do("end")


PROGRAMS: list[Program] = [
    anyio_move_on,
    anyio_fail_after,
    anyio_shield,
    anyio_group_cancelled,
    anyio_group_failing,
    anyio_stream,
    ticks,
    barrier,
    condition,
    timeouts_in_one_another,
    rescheduled,
    deadline_of_the_past,
    group_failing,
    a_set_is_cancelled,
    survivor,
    generator,
    first_exception,
    as_completed_too_late,
]


@pytest.mark.parametrize("loops", [asyncio.SelectorEventLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_replay_sees_what_the_first_run_saw(program: Program, loops: Loops) -> None:
    """Killed after any record, the workflow goes on from the same past, whatever asyncio or anyio did to it."""
    check_replays(program, 1, loops)


@pytest.mark.parametrize("loops", [asyncio.SelectorEventLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_deadlines_that_pass_while_a_record_is_written_are_told_alike(loops: Loops) -> None:
    """Which of two deadlines a body hears of is decided when it hears of it, in the first run as in a replay."""
    check_replays(deadlines_in_a_slow_commit, 1, loops, slow)
