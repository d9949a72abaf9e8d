"""W5: what it costs to have Operon: its import, and a process that has nothing to do."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg

import operon
from benchmarks import observing
from benchmarks.app import App
from benchmarks.cases import IDLE
from benchmarks.figures import FLOOR, Figure
from benchmarks.program import Task, main, until_told
from benchmarks.workloads.queues import line

MODULE = "benchmarks.workloads.resting"
QUEUES = 20
SHORT = 0.1
"""Seconds that a workflow is given to end that never does."""


class Queues(App):
    """An app of many queues that let one run at a time, as real ones have them."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.queues = [self.app.queue(f"q{number}", concurrency=1) for number in range(QUEUES)]

        @self.app.workflow(name="hold")
        def hold() -> None:
            time.sleep(3600)

        self.hold = hold


def w5(task: Task) -> Iterator[Figure]:
    """Import, idle, and idle before a full queue with a long line behind it."""
    if task.database == "postgres":
        yield from observing.imports(task, "pass", FLOOR)
        yield from observing.imports(task, "import operon")
    idle = list(observing.idle(task, [MODULE, "run", task.url], IDLE))
    yield from idle
    if task.database == "postgres":
        for figure in idle:
            yield Figure(figure.case.replace(IDLE, "full queue"), figure.unit, figure.value, FLOOR)
        yield from observing.idle(task, [MODULE, "full", task.url, str(task.size.line)], "full queue")


def run(url: str) -> None:
    """Do nothing until the input ends."""
    bench = Queues(url)
    with bench.app:
        operon.enqueue("q1", bench.begun).result(60)
        until_told()


def full(url: str, count: str) -> None:
    """Have one run that never ends, and many wait behind it."""
    bench = Queues(url)
    bench.app.launch()
    operon.enqueue("q0", bench.hold)
    with psycopg.connect(url, autocommit=True) as connection:
        line(connection, "q0", int(count))
    operon.enqueue("q1", bench.begun).result(60)
    until_told()
    bench.app.close(drain=SHORT)


if __name__ == "__main__":
    main({"w5": w5}, run=run, full=full)
