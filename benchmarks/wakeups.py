"""How soon an enqueued workflow starts, what waiting costs, and what a claim costs before a long line.

    python benchmarks/wakeups.py [--count 20000] [--samples 200]

Here: the process that enqueues also runs it. There: another process on the same database does. A bare commit of one
row, measured in between, says what the disk asks for on this machine: compare by ratio.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psycopg
from workflows import bare

import operon
from operon import Client, Operon, remote
from operon.core.commands import Claim, Enlist, Seed, SetQueue
from operon.core.rows import Limits, Process
from operon.embedded import Postgres
from operon.stores.postgres import PostgresStore

QUEUES = 20
LISTEN = 20.0
"""Seconds for which statements are counted."""


@remote("begun")
def begun() -> float:
    """Tell when it began."""
    raise NotImplementedError


def app_of(url: str) -> Operon:
    """Declare twenty queues, and a workflow that tells when it began."""
    app = Operon("bench", database=url)
    for number in range(QUEUES):
        app.queue(f"q{number}", concurrency=1)

    @app.workflow(name="begun")
    def _begun() -> float:
        return time.time()

    @app.workflow
    def hold() -> None:
        time.sleep(3600)

    app.hold = hold  # type: ignore[attr-defined] # a script's shortcut
    return app


def latencies(enqueue: Callable[[], operon.Handle[float]], samples: int) -> list[float]:
    """Give the milliseconds from enqueue to start, each time once everything is idle."""
    times: list[float] = []
    for _ in range(samples):
        # So that it meets a poll at any of its moments.
        time.sleep(random.uniform(0.02, 0.06))
        asked = time.time()
        times.append((enqueue().result(60) - asked) * 1000)
    return times


def commits(url: str, samples: int) -> float:
    """Give the median milliseconds of a bare commit."""
    commit, times = bare(url), list[float]()
    for _ in range(samples):
        asked = time.perf_counter()
        commit()
        times.append((time.perf_counter() - asked) * 1000)
    return median(times)


@contextmanager
def elsewhere(url: str) -> Generator[None]:
    """Run the app in another process."""
    command = [sys.executable, __file__, "--serve", url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.communicate("")


def serve(url: str) -> None:
    """Run the app until the input ends."""
    with app_of(url):
        print("up", flush=True)
        sys.stdin.read()


def show(name: str, times: list[float], commit: float) -> None:
    """Print a line."""
    tail = quantiles(times, n=100)[94]
    middle = median(times)
    print(f"  {name:20} p50 {middle:7.2f} ms, p95 {tail:7.2f} ms = {middle / commit:6.1f} bare commits", flush=True)


def starts(url: str, samples: int) -> None:
    """Measure from enqueue to start, here and there."""
    with app_of(url):
        here = latencies(lambda: operon.enqueue("q7", begun), samples)
    commit = commits(url, samples)
    print(f"  {'bare commit':20} p50 {commit:7.2f} ms")
    show("enqueue here", here, commit)
    with elsewhere(url), Client(url) as client:
        show("enqueue there", latencies(lambda: client.enqueue("q7", begun), samples), commit)


def statements(server: Postgres, seconds: float) -> float:
    """Give the statements a second that a server executes, by its own log."""
    before = server.log.read_text("utf-8").count("LOG:  execute") + server.log.read_text("utf-8").count("LOG:  stat")
    time.sleep(seconds)
    text = server.log.read_text("utf-8")
    return (text.count("LOG:  execute") + text.count("LOG:  stat") - before) / seconds


def idle(count: int) -> None:
    """Count what an idle process asks, with twenty queues, and before a full one with many in line."""
    with tempfile.TemporaryDirectory() as directory:
        settings = {"log_statement": "all"}
        with Postgres(Path(directory) / "postgres", settings=settings) as server:
            url = server.create_database("idle")
            app = app_of(url)
            with app:
                operon.enqueue("q1", begun).result(60)
                nothing = statements(server, LISTEN)
                operon.enqueue("q0", app.hold)  # type: ignore[attr-defined] # see app_of
                with psycopg.connect(url, autocommit=True) as connection:
                    line(connection, "q0", "begun", count)
                operon.enqueue("q1", begun).result(60)
                full = statements(server, LISTEN)
                app.close(drain=0.1)
    print(f"  idle, {QUEUES} queues: {nothing:.2f} statements/s; with {count} in line at a full one: {full:.2f}")


def line(connection: psycopg.Connection[Any], queue: str, name: str, count: int) -> None:
    """Put many in line, and nobody is told."""
    connection.execute(
        "insert into operon.workflows (id, status, name, digest, version, input, nonce, queue, rank, partition) "
        "select %s || g, 0, %s, 'd', '1', '[]', g, %s, now() + g * interval '1 us', 'p' || g %% 5 "
        "from generate_series(1, %s) g",
        [f"{queue}-", name, queue, count],
    )


def claims(url: str, count: int) -> None:
    """Compare claims from a long line, and before a full queue, with claims from a line that they empty."""
    process = Process("bench", "here", 1, "now", "1", 3600.0)
    with closing(PostgresStore(url)) as store, psycopg.connect(url, autocommit=True) as connection:
        store.open()
        me = store.ask(Enlist(process))
        for queue in ("short", "long", "full"):
            store.ask(Seed(queue, Limits(), "bench"))
        for queue in ("long", "full"):
            line(connection, queue, "begun", count)
        store.ask(SetQueue("full", Limits(concurrency=1)))

        def claim(queue: str) -> tuple[float, int]:
            asked = time.perf_counter()
            taken = store.ask(Claim(me, ("begun",), (), "1", 8, ((queue, 8),)))
            return (time.perf_counter() - asked) * 1000, len(taken)

        claim("full")
        times: dict[str, list[float]] = {"short": [], "long": [], "full": []}
        for _ in range(60):
            line(connection, "short", "begun", 8)
            for queue, samples in times.items():
                took, taken = claim(queue)
                assert taken == (0 if queue == "full" else 8)
                samples.append(took)
            connection.execute("delete from operon.workflows where queue = 'short'")
        short, long, full = (median(samples) for samples in times.values())
        print(
            f"  8 of {count} claimed in {long:.2f} ms, 8 of 8 in {short:.2f} ms = {long / short:.2f} times; none, "
            f"at a full queue, in {full:.2f} ms"
        )


def main() -> None:
    """Measure on both databases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=20_000, help="how many are in line")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as directory:
        print("sqlite")
        starts(f"sqlite:///{directory}/bench.db", given.samples)
        print("postgres")
        with Postgres(Path(directory) / "postgres") as server:
            starts(server.create_database("bench"), given.samples)
            claims(server.create_database("claims"), given.count)
    idle(given.count)


if __name__ == "__main__":
    main()
