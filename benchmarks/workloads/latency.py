"""W1 and W4: how long one workflow takes while nothing else runs, and how many transactions are done in a second."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psycopg

from benchmarks.app import App
from benchmarks.cases import STEPS, THREADS, WARM, alone, many, steps_of
from benchmarks.databases import Bare, bare, file_of
from benchmarks.figures import FLOOR, RATE, Figure, atimed, chunks, p50, rate, timed
from benchmarks.program import Task, main

WIDTH = 64


def w1(task: Task) -> Iterator[Figure]:
    """A workflow of n steps, called and awaited, beside n + 1 bare commits."""
    with bare(task.url) as floor:
        for steps in STEPS:
            yield from blocking(task, floor, steps)
            yield from asyncio.run(awaited(task, floor, steps))


def blocking(task: Task, floor: Bare, steps: int) -> Iterator[Figure]:
    """Call from the main thread."""
    bench = App(task.url)
    ours, commits = list[float](), list[float]()
    with bench.app:
        timed(lambda: bench.flow(steps), WARM)
        for samples in chunks(task.size.samples):
            ours += timed(lambda: bench.flow(steps), samples)
            commits += timed(lambda: several(floor, steps + 1), samples)
    yield p50(steps_of(steps, "sync"), commits, FLOOR)
    yield p50(steps_of(steps, "sync"), ours)


async def awaited(task: Task, floor: Bare, steps: int) -> list[Figure]:
    """Await on the loop; the floor is the same, for a bare commit has no colour."""
    bench = App(task.url)
    ours, commits = list[float](), list[float]()
    async with bench.app:
        await atimed(lambda: bench.aflow(steps), WARM)
        for samples in chunks(task.size.samples):
            ours += await atimed(lambda: bench.aflow(steps), samples)
            commits += timed(lambda: several(floor, steps + 1), samples)
    return [p50(steps_of(steps, "async"), commits, FLOOR), p50(steps_of(steps, "async"), ours)]


def several(floor: Bare, commits: int) -> None:
    """Commit one row after the other."""
    for _ in range(commits):
        floor.commit()


def w4(task: Task) -> Iterator[Figure]:
    """A transaction that is a workflow, beside the user's own transaction with one insert more."""
    with bare(task.url) as floor:
        prepare(task.url)
        bench = App(task.url)
        put = transaction(bench, task.url)
        ours, theirs = list[float](), list[float]()
        with bench.app, ThreadPoolExecutor(THREADS) as pool:
            timed(lambda: put(7), WARM)
            for samples in chunks(task.size.samples):
                ours += timed(lambda: put(7), samples)
                theirs += timed(floor.transaction, samples)
            yield p50(alone("sync"), theirs, FLOOR)
            yield p50(alone("sync"), ours)
            number = task.size.transactions
            yield Figure(many("sync"), RATE, rate(number, lambda: list(pool.map(put, range(number)))))
        yield Figure(many("sync"), RATE, bare_rate(task), FLOOR)
    if task.database == "postgres":
        yield from asyncio.run(transactions(task))


def prepare(url: str) -> None:
    """Make the user's table."""
    statement = "create table if not exists orders (number int)"
    if url.startswith("sqlite"):
        with sqlite3.connect(file_of(url)) as file:
            file.execute(statement)
        file.close()
    else:
        with psycopg.connect(url) as connection:
            connection.execute(statement)


def transaction(bench: App, url: str) -> Callable[[int], object]:
    """Declare an insert in one transaction, on the driver of the database."""
    if url.startswith("sqlite"):

        @bench.app.transaction(name="put")
        def put_file(tx: sqlite3.Connection, number: int) -> None:
            tx.execute("insert into orders values (?)", [number])

        return put_file

    @bench.app.transaction(name="put")
    def put(tx: psycopg.Connection, number: int) -> None:
        tx.execute("insert into orders values (%s)", [number])

    return put


def bare_rate(task: Task) -> float:
    """Give the user's own transactions a second: as many threads as we have; one on SQLite, which has one writer."""
    threads = 1 if task.database == "sqlite" else THREADS
    each = task.size.transactions // threads
    with ExitStack() as stack, ThreadPoolExecutor(threads) as pool:
        floors = [stack.enter_context(bare(task.url)) for _ in range(threads)]

        def transactions_of(floor: Bare) -> list[float]:
            return timed(floor.transaction, each)

        return rate(each * threads, lambda: list(pool.map(transactions_of, floors)))


async def transactions(task: Task) -> list[Figure]:
    """Run many transactions on one loop."""
    bench = App(task.url)

    @bench.app.transaction(name="aput")
    async def put(tx: psycopg.AsyncConnection[Any], number: int) -> None:
        await tx.execute("insert into orders values (%s)", [number])

    async with bench.app:
        await atimed(lambda: put(7), WARM)
        took_alone = await atimed(lambda: put(7), task.size.samples)
        number, loop = task.size.transactions, asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.gather(*(atimed(lambda: put(7), number // WIDTH + 1) for _ in range(WIDTH)))
        took = loop.time() - begun
    return [p50(alone("async"), took_alone), Figure(many("async"), RATE, (number // WIDTH + 1) * WIDTH / took)]


if __name__ == "__main__":
    main({"w1": w1, "w4": w4})
