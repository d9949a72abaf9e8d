"""W3: putting work in line, getting through it, waking an idle worker; and what a claim costs before a long line."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from statistics import median
from typing import Any

import psycopg

import operon
from benchmarks.app import App
from benchmarks.cases import DRAIN, ENQUEUE, ENQUEUE_MANY, ONE_BY_ONE, PATIENCE, WAKE, WARM_WAKES
from benchmarks.children import module
from benchmarks.databases import bare, batches
from benchmarks.figures import FLOOR, RATE, Figure, p50, p99, rate, timed, until
from benchmarks.program import Task, main, until_told
from operon import Client
from operon.core.commands import Claim, Enlist, Seed, SetQueue
from operon.core.rows import Limits, Process
from operon.stores.postgres import PostgresStore


def w3(task: Task) -> Iterator[Figure]:
    """Enqueue, drain, wake."""
    yield from floors(task)
    yield from enqueued(task)
    yield from drained(task)
    yield from woken(task)


def floors(task: Task) -> Iterator[Figure]:
    """Insert the same rows; take rows off a line by hundreds."""
    single = min(task.size.line, ONE_BY_ONE)
    with bare(task.url) as floor:
        yield Figure(ENQUEUE, RATE, rate(single, lambda: timed(floor.commit, single)), FLOOR)
        yield Figure(
            ENQUEUE_MANY,
            RATE,
            rate(task.size.line, lambda: [floor.rows(len(it)) for it in batches(task.size.line)]),
            FLOOR,
        )
        yield Figure(DRAIN, RATE, rate(task.size.line, lambda: floor.drain(task.size.line)), FLOOR)


def enqueued(task: Task) -> Iterator[Figure]:
    """Put in line what nobody runs yet; the rest of the line is filled up by thousands."""
    bench = App(task.url)
    single = min(task.size.line, ONE_BY_ONE)
    bench.app.launch(run=False)
    with closing(bench.app):
        yield Figure(
            ENQUEUE,
            RATE,
            rate(single, lambda: timed(lambda: operon.enqueue(bench.line, bench.aflow, 0), single)),
        )

        def many() -> None:
            for batch in batches(task.size.line):
                operon.enqueue_many(bench.line, [bench.aflow.bind(0) for _ in batch])

        yield Figure(ENQUEUE_MANY, RATE, rate(task.size.line, many))


def drained(task: Task) -> Iterator[Figure]:
    """Launch, and run all that is in line."""
    bench = App(task.url)
    number = task.size.line + min(task.size.line, ONE_BY_ONE)
    begun = time.perf_counter()
    with bench.app:
        until(lambda: not operon.count(status=["queued", "running"]), "the line to be empty", PATIENCE)
        yield Figure(DRAIN, RATE, number / (time.perf_counter() - begun))


def woken(task: Task) -> Iterator[Figure]:
    """Enqueue from here what an idle process runs: from the call to the first line of the body."""
    bench = App(task.url)
    with module("benchmarks.workloads.queues", "run", task.url) as worker, Client(task.url) as client:
        worker.line()
        took = latencies(lambda: client.enqueue("line", bench.begun), WARM_WAKES + task.size.wakes)[WARM_WAKES:]
    yield p50(WAKE, took)
    yield p99(WAKE, took)


def latencies(enqueue: Callable[[], operon.Handle[float]], samples: int) -> list[float]:
    """Give the milliseconds from enqueue to start, each time once everything is idle."""
    took: list[float] = []
    for _ in range(samples):
        time.sleep(random.uniform(0.02, 0.06))  # so that it meets a poll at any of its moments
        asked = time.time()
        took.append((enqueue().result(PATIENCE) - asked) * 1000)
    return took


def run(url: str) -> None:
    """Run what is in line until the input ends."""
    with App(url).app:
        until_told()


def claims(task: Task) -> Iterator[Figure]:
    """Compare claims from a long line, and before a full queue, with claims from a line that they empty."""
    process = Process("bench", "here", 1, "now", "1", 3600.0)
    with closing(PostgresStore(task.url)) as store, psycopg.connect(task.url, autocommit=True) as connection:
        store.open()
        me = store.ask(Enlist(process))
        for queue in ("short", "long", "full"):
            store.ask(Seed(queue, Limits(), "bench"))
        for queue in ("long", "full"):
            line(connection, queue, task.size.line)
        store.ask(SetQueue("full", Limits(concurrency=1)))

        def claim(queue: str) -> tuple[float, int]:
            asked = time.perf_counter()
            taken = store.ask(Claim(me, ("begun",), (), "1", 8, ((queue, 8),)))
            return (time.perf_counter() - asked) * 1000, len(taken)

        claim("full")
        took: dict[str, list[float]] = {"short": [], "long": [], "full": []}
        for _ in range(min(60, task.size.line // 8 - 1)):
            line(connection, "short", 8)
            for queue, samples in took.items():
                milliseconds, taken = claim(queue)
                assert taken == (0 if queue == "full" else 8)
                samples.append(milliseconds)
            connection.execute("delete from operon.workflows where queue = 'short'")
    for case, queue in ((f"8 of {task.size.line}", "long"), ("none, of a full queue", "full")):
        yield Figure(case, "ms", median(took["short"]), FLOOR)
        yield Figure(case, "ms", median(took[queue]))


def line(connection: psycopg.Connection[Any], queue: str, count: int, name: str = "begun") -> None:
    """Put many in line, and nobody is told."""
    connection.execute(
        "insert into operon.workflows (id, status, name, digest, version, input, nonce, queue, rank, partition) "
        "select %s || g, 0, %s, 'd', '1', '[]', g, %s, now() + g * interval '1 us', 'p' || g %% 5 "
        "from generate_series(1, %s) g",
        [f"{queue}-", name, queue, count],
    )


if __name__ == "__main__":
    main({"w3": w3, "claims": claims}, run=run)
