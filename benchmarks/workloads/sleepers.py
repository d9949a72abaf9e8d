"""W7: what sleepers cost while they sleep, and how fast they run when all are due at the same second.

A sleeper is started, sleeps until an instant that all share, and ends. It must come out of its sleep once, and be
claimed once for it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg

import operon
from benchmarks import observing
from benchmarks.children import module
from benchmarks.figures import Figure, Finding, Missing
from benchmarks.program import Task, main
from operon import Operon, aio

WARM = 300
"""Workflows before anything is measured: threads, connections and caches are no cost of sleepers."""
PATIENCE = 300.0
"""Seconds until those that have not come are given up."""
UNITS = {"s": "s", "mb": "MB", "threads": "threads", "us": "us", "n": "workflows"}


class Sleepers:
    """An app of workflows that sleep until one instant, and note when they are awake."""

    def __init__(self, url: str) -> None:
        self.woken: list[tuple[str | None, float]] = []
        self.app = Operon("bench", database=url)

        @self.app.workflow
        def sleeper(until: datetime) -> None:
            operon.sleep(until)
            self.woken.append((operon.context().workflow_id, time.time()))

        @self.app.workflow
        async def asleeper(until: datetime) -> None:
            await aio.sleep(until)
            self.woken.append((operon.context().workflow_id, time.time()))

        self.functions: dict[str, Any] = {"sync": sleeper, "async": asleeper}

    async def put_to_sleep(self, colour: str, count: int, until: datetime) -> None:
        """Start so many; this returns once all are asleep."""
        already = await aio.count(status="waiting")
        for begin in range(0, count, 500):
            lot = range(min(500, count - begin))
            await asyncio.gather(*(aio.start(self.functions[colour], until) for _ in lot))
        while await aio.count(status="waiting") < already + count:
            if datetime.now(UTC) > until:
                raise TimeoutError("They were due before all were asleep")
            await asyncio.sleep(0.2)

    async def awake(self, count: int) -> None:
        """Wait until so many have run, and all have ended."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and len(self.woken) < count:
            await asyncio.sleep(0.1)
        while time.monotonic() < end and await aio.count(status=["queued", "running", "waiting"]):
            await asyncio.sleep(0.1)


def resident() -> float:
    """Give the memory of this process, in MB, without what is only to be collected."""
    gc.collect()
    return observing.resident(os.getpid())


@dataclass(frozen=True, slots=True)
class Costs:
    """What this process has taken until now."""

    memory: float = field(default_factory=resident)
    threads: int = field(default_factory=threading.active_count)
    cpu: float = field(default_factory=time.process_time)


def w7(task: Task) -> Iterator[Finding]:
    """Each colour in a process of its own, so that its memory is what the sleepers cost it."""
    for colour in ("async", "sync"):
        arguments = (task.url, colour, str(task.size.sleepers))
        with module("benchmarks.workloads.sleepers", "sleep", *arguments) as child:
            said = child.line(PATIENCE * 5)
        if said is None:
            yield Missing(f"the {colour} sleepers' program failed")
            continue
        for name, value in json.loads(said).items():
            case, _, unit = name.rpartition("_")
            yield Figure(f"{case.replace('_', ' ')}, {colour}", UNITS[unit], value)


def sleep(url: str, colour: str, count: str) -> None:
    """Measure one colour."""
    print(json.dumps(asyncio.run(measured(url, colour, int(count)))), flush=True)


async def measured(url: str, colour: str, count: int) -> dict[str, float]:
    """Put sleepers to sleep, look at what they cost, and see them all wake."""
    sleepers = Sleepers(url)
    async with sleepers.app:
        warm = min(WARM, count)
        await sleepers.put_to_sleep(colour, warm, datetime.fromtimestamp(time.time() + 3.0, UTC))
        await sleepers.awake(warm)
        sleepers.woken.clear()
        before, begun = Costs(), time.perf_counter()
        due = time.time() + 4 + count / (1000 if colour == "async" else 500)
        await sleepers.put_to_sleep(colour, count, datetime.fromtimestamp(due, UTC))
        asleep, rest = Costs(), time.perf_counter() - begun
        await asyncio.sleep(due - time.time())
        waking = Costs()
        await sleepers.awake(count)
        ended, over = Costs(), time.time() - due
        times = sorted(at - due for _, at in sleepers.woken)
        often = Counter(key for key, _ in sleepers.woken)
        return {
            "all_asleep_s": rest,
            "memory_for_them_mb": asleep.memory - before.memory,
            "threads_for_them_threads": asleep.threads - before.threads,
            "CPU_until_due_s": waking.cpu - asleep.cpu,
            "first_running_s": times[0],
            "all_running_s": times[-1],
            "all_ended_s": over,
            "CPU_to_wake_us": (ended.cpu - waking.cpu) / count * 1e6,
            "never_ran_n": count - len(often),
            "ran_twice_n": sum(1 for number in often.values() if number > 1) + claimed_again(url),
        }


def claimed_again(url: str) -> int:
    """Count the sleepers that were claimed for something else than to be started, to be begun, and to wake."""
    if not url.startswith("postgres"):
        return 0
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("select count(*) from operon.workflows where attempts > 2").fetchone()
    return int(row[0]) if row else 0


if __name__ == "__main__":
    main({"w7": w7}, sleep=sleep)
