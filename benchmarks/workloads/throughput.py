"""W2, W8 and W11: many workflows at once, workflows that come at random, several processes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

import operon
from benchmarks.app import App
from benchmarks.cases import COLOURS, MEANWHILE, PATIENCE, STEPS, steps_of
from benchmarks.children import module
from benchmarks.databases import bare
from benchmarks.figures import FLOOR, RATE, Figure, Finding, Missing, p50, p99, rate, timed, until
from benchmarks.program import Task, main, until_told
from operon import Client, aio

WARM = 50
HOPELESS = 2_000.0
"""Milliseconds of median overhead after which no higher rate is tried."""


def w2(task: Task) -> Iterator[Figure]:
    """So many at once; beside the same rows by themselves, those of each step in one commit for all."""
    number = task.size.workflows
    with bare(task.url) as floor:
        commits = timed(floor.commit, min(number, task.size.samples))
        for steps in STEPS:
            batched = rate(number, lambda steps=steps: [floor.rows(number) for _ in range(steps + 1)])  # type: ignore[misc] # the default binds the loop's value
            for colour in COLOURS:
                yield Figure(steps_of(steps, colour), RATE, batched, FLOOR)
            yield Figure(steps_of(steps, "sync"), RATE, started(task, steps))
            yield Figure(steps_of(steps, "async"), RATE, asyncio.run(gathered(task, steps)))
    yield p50(MEANWHILE, commits, FLOOR)
    yield p50(MEANWHILE, asyncio.run(meanwhile(task)))


def started(task: Task, steps: int) -> float:
    """Start all from one thread, and wait for the results."""
    bench = App(task.url)

    def run(number: int) -> None:
        handles = [operon.start(bench.flow, steps) for _ in range(number)]
        for handle in handles:
            handle.result(PATIENCE)

    with bench.app:
        run(WARM)
        return rate(task.size.workflows, lambda: run(task.size.workflows))


async def gathered(task: Task, steps: int) -> float:
    """Call all at once on one loop."""
    bench = App(task.url)
    async with bench.app:
        await asyncio.gather(*(bench.aflow(steps) for _ in range(WARM)))
        begun = time.perf_counter()
        await asyncio.gather(*(bench.aflow(steps) for _ in range(task.size.workflows)))
        return task.size.workflows / (time.perf_counter() - begun)


async def meanwhile(task: Task) -> list[float]:
    """Await starts one by one, while those that were started run; give the milliseconds of each."""
    bench = App(task.url)
    async with bench.app:
        await asyncio.gather(*(bench.aflow(10) for _ in range(WARM)))
        handles, took = list[operon.Handle[int]](), list[float]()
        for _ in range(task.size.workflows):
            begun = time.perf_counter()
            handles.append(await aio.start(bench.aflow, 10))
            took.append((time.perf_counter() - begun) * 1000)
        await asyncio.wait_for(asyncio.gather(*handles), PATIENCE)
    return took


def w8(task: Task) -> Iterator[Finding]:
    """Workflows of three steps of 0 to 2 ms that come at random, at growing rates: the time beyond their own work."""
    for number, frequency in enumerate(task.size.rates):
        took = asyncio.run(open_loop(task, frequency))
        yield p50(f"overhead at {frequency}/s", took)
        yield p99(f"overhead at {frequency}/s", took)
        if median(took) > HOPELESS and (rest := task.size.rates[number + 1 :]):
            yield Missing(f"{', '.join(map(str, rest))}/s: it fell behind at {frequency}/s already")
            return


async def open_loop(task: Task, frequency: int) -> list[float]:
    """Give the milliseconds from when each was due to its end, without its own work."""
    bench = App(task.url)
    draw = random.Random(frequency)
    took: list[float] = []
    loop = asyncio.get_running_loop()

    @bench.app.step
    async def work(milliseconds: float) -> None:
        await asyncio.sleep(milliseconds / 1000)

    @bench.app.workflow
    async def visit(work_ms: list[float]) -> None:
        for each in work_ms:
            await work(each)

    async def one(due: float) -> None:
        own = [draw.uniform(0, 2) for _ in range(3)]
        await visit(own)
        took.append((loop.time() - due) * 1000 - sum(own))

    async with bench.app:
        await asyncio.gather(*(visit([0.0]) for _ in range(WARM)))
        under_way: set[asyncio.Task[None]] = set()
        due = loop.time()
        end = due + task.size.seconds
        while (due := due + draw.expovariate(frequency)) < end:
            if (ahead := due - loop.time()) > 0:
                await asyncio.sleep(ahead)
            under_way.add(one_task := asyncio.create_task(one(due)))
            one_task.add_done_callback(under_way.discard)
        await asyncio.wait_for(asyncio.gather(*under_way), PATIENCE)
    return took


def w11(task: Task) -> Iterator[Figure]:
    """Workflows of ten steps in one queue, run by more and more processes; beside one process."""
    alone = 0.0
    for processes in task.size.processes:
        measured = shared(task, processes)
        alone = alone or measured
        case = "1 process" if processes == 1 else f"{processes} processes"
        yield Figure(case, RATE, alone, FLOOR)
        yield Figure(case, RATE, measured)


def shared(task: Task, processes: int) -> float:
    """Give the workflows a second of so many processes together."""
    bench = App(task.url)
    number = task.size.workflows
    bench.app.launch(run=False)
    bench.app.close()
    with ExitStack() as stack, Client(task.url) as client:
        for _ in range(processes):
            worker = stack.enter_context(module("benchmarks.workloads.throughput", "run", task.url))
            worker.line()
        begun = time.perf_counter()
        client.enqueue_many("line", [bench.aflow.bind(10) for _ in range(number)])
        until(lambda: not client.count(status=["queued", "running"]), "the line to be empty", PATIENCE)
        return number / (time.perf_counter() - begun)


def run(url: str) -> None:
    """Run what is in line until the input ends."""
    with App(url).app:
        until_told()


if __name__ == "__main__":
    main({"w2": w2, "w8": w8, "w11": w11}, run=run)
