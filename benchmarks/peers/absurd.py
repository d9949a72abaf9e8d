"""Absurd, measured as we are: W1, W2, W3, W5; run in its own environment.

It has workers that poll: every 2 ms here where latency is measured, since its default of 250 ms would measure nothing
but that; the default where a wake-up and a process at rest are measured. A task has ended when its body has.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from absurd_sdk import Absurd, AsyncAbsurd

from benchmarks import observing
from benchmarks.cases import (
    DRAIN,
    ENQUEUE,
    IDLE,
    MEANWHILE,
    ONE_BY_ONE,
    PATIENCE,
    STEPS,
    WAKE,
    WARM,
    WARM_WAKES,
    steps_of,
)
from benchmarks.children import module
from benchmarks.figures import RATE, Figure, atimed, p50, p99, rate, timed, until
from benchmarks.program import Task, main, until_told

NAME = "absurd"
MODULE = "benchmarks.peers.absurd"
QUEUE = "default"
FAST = 0.002
DEFAULT = 0.25
PLACES = 64
ended: list[float] = []


def prepare(url: str) -> None:
    """Make its schema, as its own command line has it, and a queue."""
    command = [str(Path(sys.executable).with_name("absurdctl")), "init", "--database", url]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, timeout=PATIENCE)
    client = Absurd(url)
    client.create_queue(QUEUE)
    client.close()


def declare(client: Absurd) -> None:
    """Declare what blocks."""

    @client.register_task("flow")
    def flow(params: dict[str, int], context: Any) -> None:
        for n in range(params["steps"]):
            context.step(f"step-{n}", lambda n=n: n)
        ended.append(time.time())

    @client.register_task("begun")
    def begun(_params: Any, _context: Any) -> None:
        print(time.time(), flush=True)


def declare_async(client: AsyncAbsurd) -> None:
    """Declare what is awaited."""

    async def step() -> int:
        return 7

    @client.register_task("aflow")
    async def aflow(params: dict[str, int], context: Any) -> None:
        for n in range(params["steps"]):
            await context.step(f"step-{n}", step)
        ended.append(time.time())


@contextmanager
def working(url: str, poll: float, places: int) -> Generator[Absurd]:
    """Have a worker on threads, and a client."""
    worker, client = Absurd(url), Absurd(url)
    declare(worker)
    declare(client)
    thread = threading.Thread(
        target=worker.start_worker, kwargs={"concurrency": places, "poll_interval": poll}, daemon=True
    )
    thread.start()
    try:
        yield client
    finally:
        worker.stop_worker()
        thread.join(PATIENCE)
        client.close()


def awaited(spawn: Callable[[], object], count: int = 1) -> None:
    """Spawn so many, and wait for their bodies."""
    already = len(ended)
    for _ in range(count):
        spawn()
    until(lambda: len(ended) >= already + count, "tasks to end", PATIENCE, rest=0.0005)


async def spawned(client: AsyncAbsurd, steps: int, count: int = 1) -> list[float]:
    """Likewise on a loop; give the milliseconds of each spawn."""
    already = len(ended)
    took = await atimed(lambda: client.spawn("aflow", {"steps": steps}), count)
    async with asyncio.timeout(PATIENCE):
        while len(ended) < already + count:
            await asyncio.sleep(0.0005)
    return took


async def loop(task: Task, measure: Callable[[AsyncAbsurd], Any], places: int) -> list[Figure]:
    """Measure beside a worker on the same loop."""
    worker, client = AsyncAbsurd(task.url), AsyncAbsurd(task.url)
    declare_async(worker)
    declare_async(client)
    under_way = asyncio.create_task(worker.start_worker(concurrency=places, poll_interval=FAST))
    try:
        found: list[Figure] = await measure(client)
        return found
    finally:
        worker.stop_worker()
        await asyncio.wait_for(under_way, PATIENCE)
        await client.close()
        await worker.close()


def w1(task: Task) -> Iterator[Figure]:
    prepare(task.url)
    with working(task.url, FAST, 1) as client:
        for steps in STEPS:

            def one(steps: int = steps) -> None:
                awaited(lambda: client.spawn("flow", {"steps": steps}))

            timed(one, WARM)
            yield p50(steps_of(steps, "sync"), timed(one, task.size.samples), NAME)

    async def measure(client: AsyncAbsurd) -> list[Figure]:
        found = []
        for steps in STEPS:
            await atimed(lambda steps=steps: spawned(client, steps), WARM)
            took = await atimed(lambda steps=steps: spawned(client, steps), task.size.samples)
            found.append(p50(steps_of(steps, "async"), took, NAME))
        return found

    yield from asyncio.run(loop(task, measure, 1))


def w2(task: Task) -> Iterator[Figure]:
    prepare(task.url)
    number = task.size.workflows
    with working(task.url, FAST, PLACES) as client:
        for steps in STEPS:

            def all_of_them(steps: int = steps) -> None:
                awaited(lambda: client.spawn("flow", {"steps": steps}), number)

            yield Figure(steps_of(steps, "sync"), RATE, rate(number, all_of_them), NAME)

    async def measure(client: AsyncAbsurd) -> list[Figure]:
        found = []
        for steps in STEPS:
            began = time.perf_counter()
            took = await spawned(client, steps, number)
            found.append(Figure(steps_of(steps, "async"), RATE, number / (time.perf_counter() - began), NAME))
        found.append(p50(MEANWHILE, took, NAME))
        return found

    yield from asyncio.run(loop(task, measure, PLACES))


def w3(task: Task) -> Iterator[Figure]:
    prepare(task.url)
    single = min(task.size.line, ONE_BY_ONE)
    client = Absurd(task.url)
    declare(client)
    yield Figure(ENQUEUE, RATE, rate(single, lambda: timed(lambda: client.spawn("flow", {"steps": 0}), single)), NAME)
    began = time.perf_counter()
    with working(task.url, FAST, PLACES):
        until(lambda: len(ended) >= single, "the line to be empty", PATIENCE)
        yield Figure(DRAIN, RATE, single / (time.perf_counter() - began), NAME)
    took = []
    with module(MODULE, "run", task.url) as worker:
        worker.line()
        for nth in range(WARM_WAKES + task.size.wakes):
            time.sleep(0.05 + nth % 5 * 0.05)  # so that it meets a poll at any of its moments
            asked = time.time()
            client.spawn("begun", {})
            took.append((float(worker.line() or "nan") - asked) * 1000)
    yield p50(WAKE, took[WARM_WAKES:], NAME)
    yield p99(WAKE, took[WARM_WAKES:], NAME)


def run(url: str) -> None:
    with working(url, DEFAULT, PLACES):
        until_told()


def w5(task: Task) -> Iterator[Figure]:
    prepare(task.url)
    yield from observing.imports(task, "import absurd_sdk", NAME)
    yield from observing.idle(task, [MODULE, "run", task.url], IDLE, NAME)


if __name__ == "__main__":
    main({"w1": w1, "w2": w2, "w3": w3, "w5": w5}, run=run)
