"""Procrastinate, a queue without steps: W3, W5; run in its own environment."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import procrastinate

from benchmarks import observing
from benchmarks.cases import BATCH, DRAIN, ENQUEUE, ENQUEUE_MANY, IDLE, ONE_BY_ONE, PATIENCE, WAKE, WARM_WAKES
from benchmarks.children import module
from benchmarks.figures import RATE, Figure, atimed, p50, p99
from benchmarks.program import Task, main

NAME = "procrastinate"
MODULE = "benchmarks.peers.procrastinate"
PLACES = 64


def app_of(url: str) -> procrastinate.App:
    """Declare what is queued."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))

    @app.task(name="noop")
    async def noop() -> None: ...

    @app.task(name="begun")
    async def begun() -> None:
        print(time.time(), flush=True)

    return app


def w3(task: Task) -> Iterator[Figure]:
    yield from asyncio.run(lined(task))
    yield from asyncio.run(woken(task))


async def lined(task: Task) -> list[Figure]:
    """Enqueue one by one and many, and run a worker until the line is empty."""
    app = app_of(task.url)
    noop = app.tasks["noop"]
    single = min(task.size.line, ONE_BY_ONE)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        began = time.perf_counter()
        await atimed(noop.defer_async, single)
        one_by_one = single / (time.perf_counter() - began)
        began = time.perf_counter()
        for done in range(0, task.size.line, BATCH):
            await noop.batch_defer_async(*({} for _ in range(min(BATCH, task.size.line - done))))
        many = task.size.line / (time.perf_counter() - began)
        began = time.perf_counter()
        await asyncio.wait_for(app.run_worker_async(wait=False, concurrency=PLACES), PATIENCE)
        drained = (single + task.size.line) / (time.perf_counter() - began)
    return [
        Figure(ENQUEUE, RATE, one_by_one, NAME),
        Figure(ENQUEUE_MANY, RATE, many, NAME),
        Figure(DRAIN, RATE, drained, NAME),
    ]


async def woken(task: Task) -> list[Figure]:
    """Enqueue what an idle worker of another process runs."""
    app = app_of(task.url)
    took = []
    with module(MODULE, "run", task.url) as worker:
        async with app.open_async():
            worker.line()
            await asyncio.sleep(1)  # until it listens
            for _ in range(WARM_WAKES + task.size.wakes):
                await asyncio.sleep(0.05)
                asked = time.time()
                await app.tasks["begun"].defer_async()
                took.append((float(await asyncio.to_thread(worker.line) or "nan") - asked) * 1000)
    return [p50(WAKE, took[WARM_WAKES:], NAME), p99(WAKE, took[WARM_WAKES:], NAME)]


def run(url: str) -> None:
    """Run a worker until the input ends."""

    async def work() -> None:
        app = app_of(url)
        async with app.open_async():
            worker = asyncio.create_task(app.run_worker_async(concurrency=PLACES, install_signal_handlers=False))
            print("up", flush=True)
            await asyncio.to_thread(sys.stdin.read)
            worker.cancel()
            with suppress(asyncio.CancelledError):
                await worker

    asyncio.run(work())


def w5(task: Task) -> Iterator[Figure]:
    async def prepare() -> None:
        app = app_of(task.url)
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    asyncio.run(prepare())
    yield from observing.imports(task, "import procrastinate", NAME)
    yield from observing.idle(task, [MODULE, "run", task.url], IDLE, NAME)


if __name__ == "__main__":
    main({"w3": w3, "w5": w5}, run=run)
