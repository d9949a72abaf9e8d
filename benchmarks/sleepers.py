"""What sleepers cost while they sleep, and how fast they run when all are due at the same second.

    python benchmarks/sleepers.py [sqlite|postgres ...] [--count 100000] [--colour async|sync]

Each case is a process of its own, so that its memory is what the sleepers cost it. A sleeper is started, sleeps until
an instant that all share, and ends. It must come out of its sleep once, and be claimed once for it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

import operon
from operon import Operon, aio
from operon.embedded import Postgres

PAGE = os.sysconf("SC_PAGE_SIZE")
WARM = 300
"""Workflows before anything is measured: threads, connections and caches are no cost of sleepers."""
PATIENCE = 300.0
"""Seconds until those that have not come are given up."""


class Sleepers:
    """An app of workflows that sleep until one instant, and note when they are awake."""

    def __init__(self, url: str) -> None:
        self.woken: list[tuple[str, float]] = []
        self.app = Operon("bench", database=url)

        @self.app.workflow
        def sleeper(until: datetime) -> None:
            operon.sleep(until)
            self.woken.append((operon.context().workflow_id, time.time()))

        @self.app.workflow
        async def asleeper(until: datetime) -> None:
            await aio.sleep(until)
            self.woken.append((operon.context().workflow_id, time.time()))

        self.sleeper, self.asleeper = sleeper, asleeper

    async def put_to_sleep(self, colour: str, count: int, until: datetime) -> None:
        """Start so many; this returns once all are asleep."""
        function: Any = self.sleeper if colour == "sync" else self.asleeper
        already = await aio.count(status="waiting")
        for begin in range(0, count, 500):
            await asyncio.gather(*(aio.start(function, until) for _ in range(min(500, count - begin))))
        while await aio.count(status="waiting") < already + count:
            if datetime.now(UTC) > until:
                sys.exit("They were due before all were asleep: give them longer, with --rest.")
            await asyncio.sleep(0.2)

    async def awake(self, count: int) -> None:
        """Wait until so many have run, and all have ended."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and len(self.woken) < count:
            await asyncio.sleep(0.1)
        while time.monotonic() < end and await aio.count(status=["queued", "running", "waiting"]):
            await asyncio.sleep(0.1)


def resident() -> int:
    """Give this process's memory, in bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * PAGE


async def measure(url: str, colour: str, count: int, rest: float) -> dict[str, float]:
    """Put sleepers to sleep, look at what they cost, and see them all wake."""
    sleepers = Sleepers(url)
    async with sleepers.app:
        await sleepers.put_to_sleep(colour, WARM, datetime.fromtimestamp(time.time() + 2.0, UTC))
        await sleepers.awake(WARM)
        sleepers.woken.clear()
        before, threads = resident(), threading.active_count()
        due = time.time() + rest
        begun = time.perf_counter()
        await sleepers.put_to_sleep(colour, count, datetime.fromtimestamp(due, UTC))
        asleep = time.perf_counter() - begun
        cost, more = resident() - before, threading.active_count() - threads
        commits = transactions(url)
        cpu = time.process_time()
        await asyncio.sleep(due - time.time())
        idle = time.process_time() - cpu
        cpu = time.process_time()
        await sleepers.awake(count)
        spent = time.process_time() - cpu
        ended = time.time() - due
        times = sorted(at - due for _, at in sleepers.woken)
        often = Counter(key for key, _ in sleepers.woken)
        return {
            "asleep_s": asleep,
            "memory_mb": cost / 1e6,
            "threads": more,
            "idle_cpu_s": idle,
            "first_s": times[0],
            "running_s": times[-1],
            "ended_s": ended,
            "cpu_us": spent / count * 1e6,
            "commits": (transactions(url) - commits) / count,
            "ran": len(often),
            "twice": sum(1 for times in often.values() if times > 1) + claimed_again(url),
        }


def transactions(url: str) -> int:
    """Count the transactions that the server has seen."""
    if not url.startswith("postgres"):
        return 0
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "select xact_commit from pg_stat_database where datname = current_database()"
        ).fetchone()
    return int(row[0]) if row else 0


def claimed_again(url: str) -> int:
    """Count the sleepers that were claimed for something else than to be started, to be begun, and to wake."""
    if not url.startswith("postgres"):
        return 0
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("select count(*) from operon.workflows where attempts > 2").fetchone()
    return int(row[0]) if row else 0


def case(url: str, colour: str, count: int, rest: float) -> None:
    """Measure one case in a process of its own, and print a line."""
    command = [sys.executable, __file__, "--case", url, "--colour", colour, "--count", str(count), "--rest", str(rest)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    it: dict[str, float] = json.loads(done.stdout)
    print(
        f"{colour:5} {count:7} sleepers: asleep in {it['asleep_s']:5.1f} s, {it['memory_mb']:6.1f} MB and "
        f"{it['threads']:.0f} threads more, {it['idle_cpu_s']:.2f} s CPU until due; first runs after "
        f"{it['first_s']:5.2f} s, all {it['ran']:.0f} after {it['running_s']:5.1f} s, all ended after "
        f"{it['ended_s']:5.1f} s; {it['cpu_us']:.0f} us CPU and {it['commits']:.2f} transactions each; "
        f"{it['twice']:.0f} ran twice",
        flush=True,
    )


def main() -> None:
    """Measure on one database or on both, in one colour or in both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("databases", nargs="*", default=["sqlite", "postgres"])
    parser.add_argument("--count", type=int, default=5_000)
    parser.add_argument("--colour", choices=["sync", "async"], action="append")
    parser.add_argument("--rest", type=float, help="seconds until all are due")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(asyncio.run(measure(given.case, given.colour[0], given.count, given.rest))))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for database in given.databases:
        for colour in given.colour or ("async", "sync"):
            rest = given.rest or 3 + given.count / (1500 if colour == "async" else 700)
            with tempfile.TemporaryDirectory() as directory:
                print(f"{database:9}", end="", flush=True)
                if database == "sqlite":
                    case(f"sqlite:///{directory}/bench.db", colour, given.count, rest)
                else:
                    with Postgres(Path(directory) / "postgres") as server:
                        case(server.create_database("bench"), colour, given.count, rest)


if __name__ == "__main__":
    main()
