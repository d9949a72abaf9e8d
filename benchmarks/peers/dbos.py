"""dbos, measured as we are: W1 to W6; run in its own environment."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from dbos import DBOS, DBOSClient, SQLAlchemyDatasource
from sqlalchemy import text

from benchmarks import observing
from benchmarks.cases import (
    COLOURS,
    DRAIN,
    ENQUEUE,
    IDLE,
    MEANWHILE,
    ONE_BY_ONE,
    PATIENCE,
    STEPS,
    THREADS,
    WAKE,
    WARM,
    WARM_WAKES,
    alone,
    many,
    resumed,
    steps_of,
)
from benchmarks.children import module
from benchmarks.figures import RATE, Figure, atimed, p50, p99, rate, timed, until
from benchmarks.program import Task, main, until_told

NAME = "dbos"
MODULE = "benchmarks.peers.dbos"
VERSION = "1"
QUEUE = "line"
ran: list[float] = []
"""When each body of `begun`, and each last step, has run."""
hang = threading.Event()
"""Whether a last step stands until its process is killed."""


@DBOS.step()
def step(n: int) -> int:
    return n


@DBOS.step()
async def astep(n: int) -> int:
    return n


@DBOS.workflow()
def flow(steps: int) -> int:
    return sum(step(n) for n in range(steps))


@DBOS.workflow()
async def aflow(steps: int) -> int:
    total = 0
    for n in range(steps):
        total += await astep(n)
    return total


@DBOS.workflow()
def begun() -> float:
    now = time.time()
    ran.append(now)
    return now


@DBOS.step()
def stand() -> None:
    ran.append(time.time())
    if hang.is_set():
        threading.Event().wait()


@DBOS.step()
async def astand() -> None:
    ran.append(time.time())
    if hang.is_set():
        await asyncio.Event().wait()


@DBOS.workflow()
def saga() -> None:
    step(1)
    stand()


@DBOS.workflow()
async def asaga() -> None:
    await astep(1)
    await astand()


@contextmanager
def launched(url: str, **options: Any) -> Generator[None]:
    """Launch with its defaults, quietly."""
    DBOS(
        config={
            "name": "bench",
            "system_database_url": url,
            "application_version": VERSION,
            "log_level": "CRITICAL",
            **options,
        }
    )
    DBOS.launch()
    try:
        yield
    finally:
        DBOS.destroy()


def w1(task: Task) -> Iterator[Figure]:
    with launched(task.url):
        for steps in STEPS:
            timed(lambda steps=steps: flow(steps), WARM)
            yield p50(steps_of(steps, "sync"), timed(lambda steps=steps: flow(steps), task.size.samples), NAME)

        async def awaited(steps: int) -> list[float]:
            await atimed(lambda: aflow(steps), WARM)
            return await atimed(lambda: aflow(steps), task.size.samples)

        for steps in STEPS:
            yield p50(steps_of(steps, "async"), asyncio.run(awaited(steps)), NAME)


def w2(task: Task) -> Iterator[Figure]:
    number = task.size.workflows

    def started(steps: int, count: int) -> None:
        for handle in [DBOS.start_workflow(flow, steps) for _ in range(count)]:
            handle.get_result()

    async def gathered(steps: int) -> float:
        await asyncio.gather(*(aflow(steps) for _ in range(WARM)))
        began = time.perf_counter()
        await asyncio.gather(*(aflow(steps) for _ in range(number)))
        return number / (time.perf_counter() - began)

    async def meanwhile() -> list[float]:
        handles, took = [], []
        for _ in range(number):
            began = time.perf_counter()
            handles.append(await DBOS.start_workflow_async(aflow, 10))
            took.append((time.perf_counter() - began) * 1000)
        await asyncio.gather(*(handle.get_result() for handle in handles))
        return took

    with launched(task.url):
        for steps in STEPS:
            started(steps, WARM)
            yield Figure(steps_of(steps, "sync"), RATE, rate(number, lambda steps=steps: started(steps, number)), NAME)
            yield Figure(steps_of(steps, "async"), RATE, asyncio.run(gathered(steps)), NAME)
        yield p50(MEANWHILE, asyncio.run(meanwhile()), NAME)


def w3(task: Task) -> Iterator[Figure]:
    """Its queue polls once a second, by default; the line is over when the last body has run."""
    with launched(task.url):
        DBOS.register_queue(QUEUE)
    single = min(task.size.line, ONE_BY_ONE)
    client = DBOSClient(system_database_url=task.url)
    yield Figure(ENQUEUE, RATE, rate(single, lambda: timed(lambda: enqueue(client), single)), NAME)
    began = time.perf_counter()
    with launched(task.url):
        DBOS.register_queue(QUEUE)
        until(lambda: len(ran) >= single, "the line to be empty", PATIENCE)
        yield Figure(DRAIN, RATE, single / (time.perf_counter() - began), NAME)
    with module(MODULE, "run", task.url) as worker:
        worker.line()
        took = []
        for _ in range(WARM_WAKES + task.size.wakes):
            time.sleep(0.05)
            asked = time.time()
            took.append((enqueue(client).get_result() - asked) * 1000)
    yield p50(WAKE, took[WARM_WAKES:], NAME)
    yield p99(WAKE, took[WARM_WAKES:], NAME)
    client.destroy()


def enqueue(client: DBOSClient) -> Any:
    return client.enqueue({"queue_name": QUEUE, "workflow_name": begun.__qualname__})


def run(url: str) -> None:
    with launched(url):
        DBOS.register_queue(QUEUE)
        until_told()


def w4(task: Task) -> Iterator[Figure]:
    source = SQLAlchemyDatasource.create(task.url)
    with source.engine.begin() as connection:
        connection.execute(text("create table orders (number int)"))

    @source.transaction
    def insert(number: int) -> None:
        source.sql_session().execute(text("insert into orders values (:number)"), {"number": number})

    @DBOS.workflow()
    def put(number: int) -> None:
        insert(number)

    number = task.size.transactions // 4
    with launched(task.url), ThreadPoolExecutor(THREADS) as pool:
        timed(lambda: put(7), WARM)
        yield p50(alone("sync"), timed(lambda: put(7), task.size.samples), NAME)
        yield Figure(many("sync"), RATE, rate(number, lambda: list(pool.map(put, range(number)))), NAME)


def w5(task: Task) -> Iterator[Figure]:
    if task.database == "postgres":
        yield from observing.imports(task, "import dbos", NAME)
    yield from observing.idle(task, [MODULE, "run", task.url], IDLE, NAME)


def w6(task: Task) -> Iterator[Figure]:
    """It is launched with the same executor's name, and takes up what that left."""
    number = task.size.interrupted
    for colour in COLOURS:
        ran.clear()
        with module(MODULE, "interrupted", task.url, colour, str(number)) as child:
            child.line(PATIENCE)
            child.kill()
        before = time.time()
        with launched(task.url):
            until(lambda: len(ran) >= number, "all to be resumed", PATIENCE)
        yield Figure(resumed("the first", colour), "s", max(ran) - min(ran), NAME)
        yield Figure(resumed("launch", colour), "s", max(ran) - before, NAME)


def interrupted(url: str, colour: str, number: str) -> None:
    """Have so many stand in their last step."""
    hang.set()

    async def start() -> None:
        for _ in range(int(number)):
            await DBOS.start_workflow_async(asaga)
        while len(ran) < int(number):
            await asyncio.sleep(0.05)
        await asyncio.to_thread(until_told, json.dumps("up"))

    with launched(url, max_executor_threads=int(number) + THREADS):
        if colour == "async":
            asyncio.run(start())
        else:
            for _ in range(int(number)):
                DBOS.start_workflow(saga)
            until(lambda: len(ran) >= int(number), "all to stand", PATIENCE)
            until_told()
        os._exit(0)  # they never end


if __name__ == "__main__":
    main({"w1": w1, "w2": w2, "w3": w3, "w4": w4, "w5": w5, "w6": w6}, run=run, interrupted=interrupted)
