"""What a workflow costs, beside what its commits cost bare: latency alone, and throughput with many at a time.

Run it as `python benchmarks/workflows.py [sqlite|postgres] [seconds]`. Compare the ratios of one run: walls differ.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import psycopg

import operon
from operon import Operon
from operon.embedded import Postgres


def app_of(url: str) -> Operon:
    """Declare a workflow of n steps in both colours."""
    app = Operon("bench", database=url)

    @app.step
    def one(n: int) -> int:
        return n

    @app.step
    async def aone(n: int) -> int:
        return n

    @app.workflow(name="flow")
    def flow(steps: int) -> int:
        return sum(one(n) for n in range(steps))

    @app.workflow(name="aflow")
    async def aflow(steps: int) -> int:
        total = 0
        for n in range(steps):
            total += await aone(n)
        return total

    app.flow, app.aflow = flow, aflow  # type: ignore[attr-defined] # a script's shortcut
    return app


def latency(call: Callable[[], object], seconds: float) -> float:
    """Give the median time of a call, in milliseconds."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        call()
        times.append(time.perf_counter() - begun)
    return median(times) * 1000


def bare(url: str) -> Callable[[], object]:
    """Make a call that does nothing but commit one row."""
    if url.startswith("sqlite"):
        file = sqlite3.connect(url.removeprefix("sqlite:///") + ".bare", isolation_level=None)
        file.executescript("pragma journal_mode=wal; pragma synchronous=full; create table t (a)")
        return lambda: file.execute("insert into t values (1)")
    connection = psycopg.connect(url, autocommit=True)
    connection.execute("create table bare (a int)")
    return lambda: connection.execute("insert into bare values (1)", prepare=True)


async def throughput(app: Operon, steps: int, seconds: float, width: int = 256) -> float:
    """Give async workflows a second, `width` at a time."""
    done = 0
    end = time.perf_counter() + seconds

    async def worker() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await app.aflow(steps)  # type: ignore[attr-defined] # see app_of
            done += 1

    async with app:
        begun = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(width)))
        return done / (time.perf_counter() - begun)


def starts(app: Operon, seconds: float) -> float:
    """Give blocking starts a second, from one thread, run in the background."""
    done: list[operon.Handle[int]] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        done.extend(operon.start(app.flow, 1) for _ in range(50))  # type: ignore[attr-defined] # see app_of
        for handle in done[-50:]:
            handle.result(60)
    return len(done) / (time.perf_counter() - begun)


def measure(url: str, seconds: float) -> None:
    """Print one line a figure."""
    commit = latency(bare(url), seconds)
    print(f"bare commit            p50 {commit:8.3f} ms")
    app = app_of(url)
    with app:
        for steps in (1, 10):
            p50 = latency(lambda steps=steps: app.flow(steps), seconds)  # type: ignore[misc, attr-defined]
            ratio = p50 / commit / (steps + 1)
            print(f"workflow, {steps:2} steps     p50 {p50:8.3f} ms = {ratio:4.2f} x {steps + 1} bare commits")
        print(f"starts, 1 step, threads    {starts(app, seconds):8.0f} workflows/s")
    for steps in (1, 10):
        rate = asyncio.run(throughput(app_of(url), steps, seconds))
        print(f"async, {steps:2} steps           {rate:8.0f} workflows/s")


def main() -> None:
    """Measure on one database, or on both."""
    which = sys.argv[1:2] or ["sqlite", "postgres"]
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0
    with tempfile.TemporaryDirectory() as directory:
        for name in which:
            print(f"── {name}")
            if name == "sqlite":
                measure(f"sqlite:///{Path(directory)}/bench.db", seconds)
            else:
                with Postgres(Path(directory) / "postgres") as server:
                    measure(server.create_database("bench"), seconds)


if __name__ == "__main__":
    main()
