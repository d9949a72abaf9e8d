"""Work that a body gives to pools of threads replays to the same records, wherever the workflow was killed.

Each program runs once; then, for every prefix of its journal, the workflow is set up as a crash would have left it and
replayed, as in `test_branches`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, as_completed, wait
from functools import partial

import pytest

import operon
from engine.test_branches import Program, World, run, timeless, valued
from operon.core.rows import WorkflowRow

pytestmark = pytest.mark.usefixtures("patient")
SHARED = ThreadPoolExecutor(2)
"""Made by nobody's body, and used by all of them."""


def do(world: World, name: str) -> str:
    """Do a step, and see its value, on whatever thread."""
    value = world.press(name)
    world.seen.append(value)
    return value


def told(world: World, *values: str) -> None:
    """See what pieces have answered."""
    world.seen.extend(f"got {value.partition('#')[0]}" for value in values)


def line(world: World, name: str) -> str:
    return do(world, f"{name}0") and do(world, f"{name}1")


def mapped(world: World) -> None:
    with ThreadPoolExecutor(3) as pool:
        told(world, *pool.map(partial(line, world), "abcd"))
    do(world, "end")


def completed(world: World) -> None:
    with ThreadPoolExecutor(4) as pool:
        for future in as_completed([pool.submit(line, world, name) for name in "abcd"]):
            do(world, f"after {future.result()[0]}")


def completed_before(world: World) -> None:
    futures = [SHARED.submit(do, world, name) for name in "abc"]
    operon.sleep(0.02)
    for future in as_completed(futures):
        do(world, f"after {future.result()[0]}")


def computing(world: World) -> None:
    """Nothing is recorded of them but their end."""

    def spin(name: str) -> str:
        for _ in range(world.rng.randrange(2000)):
            os.sched_yield()
        return name

    with ThreadPoolExecutor(4) as pool:
        for future in as_completed([pool.submit(spin, name) for name in "abcd"]):
            do(world, f"after {future.result()}")


def first_of_them(world: World) -> None:
    with ThreadPoolExecutor(3) as pool:
        left = {pool.submit(line, world, name) for name in "abc"}
        while left:
            done, left = wait(left, return_when=FIRST_COMPLETED)
            do(world, f"{sorted(future.result()[0] for future in done)} {len(left)} left")


def crowded(world: World) -> None:
    with ThreadPoolExecutor(1) as pool:
        futures = [pool.submit(line, world, name) for name in "abc"]
        do(world, "meanwhile")
        told(world, *(future.result() for future in reversed(futures)))


def nested(world: World) -> None:
    def pair(name: str) -> str:
        with ThreadPoolExecutor(2) as inner:
            told(world, *inner.map(partial(line, world), (f"{name}l", f"{name}r")))
        return do(world, name)

    with ThreadPoolExecutor(2) as pool:
        told(world, *pool.map(pair, "ab"))
    do(world, "end")


def sleeping(world: World) -> None:
    def nap(name: str, seconds: float) -> None:
        operon.sleep(seconds)
        do(world, name)

    with ThreadPoolExecutor(2) as pool:
        late, early = pool.submit(nap, "late", 0.03), pool.submit(nap, "early", 0.01)
        line(world, "a")
        for future in (late, early):
            future.result()
    do(world, "end")


def polled(world: World) -> None:
    future = SHARED.submit(line, world, "a")
    while not future.done():
        operon.sleep(0.002)
        world.seen.append("looked")
    do(world, "end")


def failing(world: World) -> None:
    def fail(name: str) -> str:
        do(world, name)
        raise RuntimeError(name)

    def first_fails(name: str) -> str:
        return fail(name) if name == "c" else world.press(name)

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(fail, "a"), pool.submit(do, world, "b")]
        for future in futures:
            world.seen.append(repr(future.exception()))
        try:
            list(pool.map(first_fails, "cdefg"))
        except RuntimeError as error:
            world.seen.append(repr(error))
    do(world, "end")


def given_up(world: World) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(do, world, "a")
        future = pool.submit(do, world, "b")
        do(world, "c")
        world.seen.append(f"{future.cancel()} {future.cancelled()} {future.done()}")
        do(world, "d")
    do(world, "end")


def children(world: World) -> None:
    def parent(n: int) -> str:
        return operon.start(world.child, n).result()

    with ThreadPoolExecutor(2) as pool:
        world.seen.extend(pool.map(parent, range(3)))
    do(world, "end")


def left_behind(world: World) -> None:
    """Nobody waits for it but the workflow."""
    SHARED.submit(line, world, "a")


async def gathered(world: World) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as pool:
        executed: list[Awaitable[object]] = [loop.run_in_executor(pool, line, world, name) for name in "ab"]
        await asyncio.gather(*executed, asyncio.to_thread(line, world, "c"), world.line("d"))
    await world.do("end")


async def as_they_come(world: World) -> None:
    futures = [asyncio.create_task(asyncio.to_thread(line, world, name)) for name in "abc"]
    for future in asyncio.as_completed(futures):
        await world.do(f"after {(await future)[0]}")


async def out_of_time(world: World) -> None:
    def slow() -> None:
        do(world, "slow")
        operon.sleep(3600)

    try:
        async with asyncio.timeout(0.02):
            await asyncio.to_thread(slow)
    except TimeoutError:
        world.seen.append("timed out")
    await world.do("end")


PROGRAMS: list[Program] = [
    mapped,
    completed,
    completed_before,
    computing,
    first_of_them,
    crowded,
    nested,
    sleeping,
    polled,
    failing,
    given_up,
    children,
    left_behind,
    gathered,
    as_they_come,
    out_of_time,
]


def name_of(program: Callable[..., object]) -> str:
    return program.__name__


@pytest.mark.parametrize("program", PROGRAMS, ids=name_of)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_replay_sees_what_the_first_run_saw_of_threads(program: Program, seed: int) -> None:
    """Killed after any record, the workflow goes on from the same past, and ends."""
    born: dict[str, WorkflowRow] = {}
    journal, seen = run(program, seed, (), born)
    assert journal
    for length in range(len(journal) + 1):
        again, seen_again = run(program, seed + 100 + length, journal[:length], dict(born))
        assert timeless(again[:length]) == timeless(journal[:length])
        if length == len(journal):
            assert seen_again == seen
        values, values_again = valued(seen), valued(seen_again)
        fresh = next((n for n, text in enumerate(values_again) if f"#{seed}." not in text), len(values_again))
        assert values_again[:fresh] == values[:fresh], f"after {length} records"
