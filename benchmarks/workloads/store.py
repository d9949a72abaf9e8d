# ruff: noqa: S608 - statements of names that stand here
"""The store by itself: what a heartbeat costs while many wait for others, and how fast Postgres is committed to.

Of the lanes, every workflow is a start, five steps, and the last step together with the outcome: six commits alone.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import count
from statistics import median
from typing import Any

import psycopg

from benchmarks.databases import bare, file_of
from benchmarks.figures import FLOOR, RATE, Figure, rate, timed
from benchmarks.program import Task, main
from operon.app.stores import store_for
from operon.core.commands import Advance, Beat, Command, Count, Enlist, Start
from operon.core.rows import Entry, Filter, Kind, NewWorkflow, Outcome, Process
from operon.core.states import Status
from operon.stores.postgres import PostgresStore

BEATS = 20
STEPS = 5
_ids = count(time.time_ns())


def heartbeat(task: Task) -> Iterator[Figure]:
    """Beat while nobody waits, and while many parked parents each await a child that sleeps."""
    with closing(store_for(task.url)) as store:
        store.open()
        for subject in (FLOOR, "operon"):
            took = timed(lambda: store.ask(Beat(0, 0.0)), BEATS)
            yield Figure("a heartbeat, p50", "ms", median(took), subject)
            yield Figure("a heartbeat, longest", "ms", max(took), subject)
            if subject == FLOOR:
                park(task)


def park(task: Task) -> None:
    """Write parents and children, and who awaits whom."""
    if task.database == "sqlite":
        with closing(sqlite3.connect(file_of(task.url))) as file, file:
            for statement in rows(task.size.parents, "operon_", "null", str(time.time() + 86400), "1"):
                file.execute(statement)
            file.execute("analyze")
        return
    with psycopg.connect(task.url, autocommit=True) as connection:
        for statement in rows(task.size.parents, "operon.", "null::timestamptz", "now() + interval '1 day'", "now()"):
            connection.execute(statement.encode())
        connection.execute("vacuum analyze")


def rows(parents: int, prefix: str, never: str, later: str, now: str) -> Iterator[str]:
    """Spell the statements, in the words of a dialect."""
    numbers = f"with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < {parents})"
    columns = "id, claim, ready_at, created_at, nonce, status, name, digest, version, input"
    for kind, ready in (("p", never), ("c", later)):
        row = f"'{kind}' || n, 1, {ready}, {now}, 1, 2, 'w', '', '', '{{}}'"
        yield f"insert into {prefix}workflows ({columns}) {numbers} select {row} from numbers"
    yield f"insert into {prefix}awaits {numbers} select 'p' || n, 'c' || n from numbers"


def lanes(task: Task) -> Iterator[Figure]:
    """Commit alone, from threads, and from one thread that submits."""
    number = task.size.workflows
    with bare(task.url) as floor, closing(PostgresStore(task.url)) as store:
        store.open()
        executor = store.ask(Enlist(Process("bench", "here", 1, "now", "1", 60.0)))
        commits = rate(number, lambda: timed(floor.commit, number))
        for case, workflows in (
            ("alone", threads(store, executor, 1, number // 10)),
            ("8 threads", threads(store, executor, 8, number)),
            ("64 threads", threads(store, executor, 64, number)),
            ("1000 submitted", submits(store, executor, 1000, number * 2)),
        ):
            yield Figure(f"commands, {case}", RATE, commits, FLOOR)
            yield Figure(f"commands, {case}", RATE, workflows * (STEPS + 1))
        assert store.ask(Count(Filter(status=(Status.RUNNING,)))) == 0


def life(executor: int) -> Iterator[Command[Any]]:
    """What a workflow asks of the store, one after the other."""
    key = f"{next(_ids):x}"
    yield Start(NewWorkflow(key, "bench", "[]", "digest", 1, executor))
    for n in range(1, STEPS):
        yield Advance(key, 1, (Entry(str(n), n, Kind.STEP, "noop", output="7"),))
    last = Entry(str(STEPS), STEPS, Kind.STEP, "noop", output="7")
    yield Advance(key, 1, (last,), Outcome(Status.SUCCEEDED, "7"))


def threads(store: PostgresStore, executor: int, workers: int, workflows: int) -> float:
    """Run workflows on threads, each waiting for each answer."""

    def run(_: int) -> None:
        for command in life(executor):
            store.ask(command)

    with ThreadPoolExecutor(workers) as pool:
        deque(pool.map(run, range(workers)), 0)
        return rate(workflows, lambda: deque(pool.map(run, range(workflows)), 0))


def submits(store: PostgresStore, executor: int, together: int, workflows: int) -> float:
    """Run workflows from one thread, many at a time, as an event loop does."""
    ready: deque[Iterator[Command[Any]]] = deque(life(executor) for _ in range(workflows))
    under_way: deque[tuple[Iterator[Command[Any]], Future[Any]]] = deque()

    def run() -> None:
        while ready or under_way:
            while ready and len(under_way) < together:
                body = ready.popleft()
                if command := next(body, None):
                    under_way.append((body, store.submit(command)))
            if under_way:
                body, future = under_way.popleft()
                future.result()
                ready.appendleft(body)

    return rate(workflows, run)


if __name__ == "__main__":
    main({"heartbeat": heartbeat, "lanes": lanes})
