# ruff: noqa: S608 - statements of names that stand here
"""W12: latency, throughput and queues beside many finished workflows, compared with the same on an empty table."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import psycopg

from benchmarks.databases import file_of
from benchmarks.figures import FLOOR, OURS, Figure, figures
from benchmarks.program import Task, main
from benchmarks.workloads.latency import w1
from benchmarks.workloads.queues import w3
from benchmarks.workloads.throughput import w2

LOT = 100_000
COLUMNS = "id, claim, created_at, started_at, ended_at, nonce, status, name, digest, version, input, output"


def w12(task: Task) -> Iterator[Figure]:
    """Measure, fill the table, and measure again."""
    yield from measured(task, FLOOR)
    if task.database == "postgres":
        fill(task.url, task.size.finished)
    else:
        fill_file(task.url, task.size.finished)
    yield from measured(task, OURS)


def measured(task: Task, subject: str) -> Iterator[Figure]:
    """Measure what those three do of ours, under another name."""
    for prefix, measure in (("w1", w1), ("w2", w2), ("w3", w3)):
        for figure in figures(measure(task)):
            if figure.subject == OURS and "p99" not in figure.case:
                yield Figure(f"{prefix} {figure.case}", figure.unit, figure.value, subject)


def fill(url: str, finished: int) -> None:
    """Write finished workflows of one step each, over the last thirty days."""
    ago = "now() - random() * interval '30 days'"
    with psycopg.connect(url, autocommit=True) as connection:
        for begin in range(0, finished, LOT):
            bounds = [begin + 1, min(begin + LOT, finished)]
            connection.execute(
                f"insert into operon.workflows ({COLUMNS}) select 'old-' || g, 1, at, at, at, g, 4, 'flow', 'd', '1', "
                f"'[1]', '7' from (select g, {ago} as at from generate_series(%s::int, %s::int) g) numbers",
                bounds,
            )
            connection.execute(
                "insert into operon.steps (workflow_id, position, ordinal, attempt, claim, started_at, ended_at, kind, "
                "name, digest, version, output) select 'old-' || g, '1', 1, 1, 1, now(), now(), 'step', 'step', 'd', "
                "'1', '7' from generate_series(%s::int, %s::int) g",
                bounds,
            )
        connection.execute("vacuum (analyze)")


def fill_file(url: str, finished: int) -> None:
    """Likewise, on SQLite."""
    numbers = "with recursive numbers (g) as (select ? union all select g + 1 from numbers where g < ?)"
    at = "unixepoch() - abs(random() % 2592000)"
    with closing(sqlite3.connect(file_of(url), isolation_level=None)) as file:
        for begin in range(0, finished, LOT):
            bounds = [begin + 1, min(begin + LOT, finished)]
            file.execute(
                f"insert into operon_workflows ({COLUMNS}) {numbers} "
                f"select 'old-' || g, 1, {at}, {at}, {at}, g, 4, 'flow', 'd', '1', '[1]', '7' from numbers",
                bounds,
            )
            file.execute(
                "insert into operon_steps (workflow_id, position, ordinal, kind, name, digest, output, attempt, "
                f"version, started_at, ended_at, claim) {numbers} "
                "select 'old-' || g, '1', 1, 'step', 'step', 'd', '7', 1, '1', 1, 1, 1 from numbers",
                bounds,
            )
        file.execute("analyze")


if __name__ == "__main__":
    main({"w12": w12})
