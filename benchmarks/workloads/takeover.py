"""W6 and W9: going on with what a killed process left, and a history of many steps."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from statistics import median
from typing import Any

import operon
from benchmarks.cases import COLOURS, PATIENCE, resumed
from benchmarks.children import module
from benchmarks.figures import FLOOR, Figure, until
from benchmarks.program import Task, main, until_told
from operon import Operon

LEASE = 2.0
ENDS = 100
"""Steps at the beginning of a long history that are compared with as many at its end."""


class Interrupted:
    """Workflows of some steps and a last one, in which they stand when their process is killed."""

    def __init__(self, url: str, places: int, *, hang: bool) -> None:
        self.reached: list[float] = []
        self.instants: list[float] = []
        self.app = Operon("bench", database=url, lease=LEASE, threads=places, tasks=places)

        @self.app.step
        def step() -> None: ...

        @self.app.step
        async def astep() -> None: ...

        @self.app.step
        def stand() -> None:
            self.reached.append(time.time())
            if hang:
                threading.Event().wait()

        @self.app.step
        async def astand() -> None:
            self.reached.append(time.time())
            if hang:
                await asyncio.Event().wait()

        @self.app.workflow(name="saga")
        def saga(steps: int) -> None:
            for _ in range(steps):
                step()
                self.instants.append(time.perf_counter())
            stand()

        @self.app.workflow(name="asaga")
        async def asaga(steps: int) -> None:
            for _ in range(steps):
                await astep()
                self.instants.append(time.perf_counter())
            await astand()

        self.workflows: dict[str, Any] = {"sync": saga, "async": asaga}


def w6(task: Task) -> Iterator[Figure]:
    """Many are interrupted after their first step; their lease is over when the next process is launched."""
    warm(task)
    for colour in COLOURS:
        interrupt(task, colour, task.size.interrupted, 1)
        launched, reached = resume(task, task.size.interrupted)
        yield Figure(resumed("the first", colour), "s", reached[-1] - reached[0])
        yield Figure(resumed("launch", colour), "s", reached[-1] - launched)


def w9(task: Task) -> Iterator[Figure]:
    """One is interrupted after many steps."""
    warm(task)
    for colour in COLOURS:
        for steps in (task.size.steps // 10, task.size.steps):
            took = interrupt(task, colour, 1, steps)
            if steps == task.size.steps:
                ends = min(ENDS, steps // 2)
                yield Figure(f"last steps of {steps}, {colour}", "ms", median(took[:ends]), FLOOR)
                yield Figure(f"last steps of {steps}, {colour}", "ms", median(took[-ends:]))
            launched, reached = resume(task, 1)
            yield Figure(f"resume {steps} steps, {colour}", "s", reached[-1] - launched)


def warm(task: Task) -> None:
    """Launch once, so that what a process does once is no part of what it resumes."""
    with Interrupted(task.url, 1, hang=False).app:
        pass


def interrupt(task: Task, colour: str, number: int, steps: int) -> list[float]:
    """Run workflows in another process, and kill it once all stand; give the milliseconds of each step of the first."""
    with module("benchmarks.workloads.takeover", "stand", task.url, colour, str(number), str(steps)) as child:
        said = child.line(PATIENCE)
        child.kill()
    time.sleep(LEASE + 0.5)
    took: list[float] = json.loads(said or "[]")
    return took


def resume(task: Task, number: int) -> tuple[float, list[float]]:
    """Launch anew; give when that began, and when each was resumed."""
    bench = Interrupted(task.url, number, hang=False)
    launched = time.time()
    with bench.app:
        until(lambda: len(bench.reached) >= number, "all to be resumed", PATIENCE)
        until(lambda: not operon.count(status=["queued", "running", "waiting"]), "all to end", PATIENCE)
    return launched, sorted(bench.reached)


def stand(url: str, colour: str, number: str, steps: str) -> None:
    """Have all stand in their last step, and say how long each step took."""
    bench = Interrupted(url, int(number), hang=True)
    bench.app.launch()
    for _ in range(int(number)):
        operon.start(bench.workflows[colour], int(steps))
    until(lambda: len(bench.reached) == int(number), "all to stand", PATIENCE)
    instants = bench.instants
    until_told(json.dumps([(b - a) * 1000 for a, b in pairwise(instants)]))
    os._exit(0)  # they never end


if __name__ == "__main__":
    main({"w6": w6, "w9": w9}, stand=stand)
