"""How fast PostgresStore commits: alone, from threads, and from one thread that submits, beside a bare prepared insert.

    python benchmarks/lanes.py [URL]

Without a URL it runs an embedded server that syncs to the disk. Every workflow is a start, five steps, and the last
step together with the outcome: six commits alone.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from operon.core.commands import Advance, Command, Count, Enlist, Start
from operon.core.rows import Entry, Filter, Kind, NewWorkflow, Outcome, Process
from operon.core.states import Status
from operon.embedded import Postgres
from operon.stores.postgres import PostgresStore

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

STEPS = 5
_ids = count(time.time_ns())


def life(executor: int) -> Iterator[Command[Any]]:
    """What a workflow asks of the store, one after the other."""
    key = f"{next(_ids):x}"
    yield Start(NewWorkflow(key, "bench", "[]", "digest", 1, executor))
    for n in range(1, STEPS):
        yield Advance(key, 1, (Entry(str(n), n, Kind.STEP, "noop", output="7"),))
    last = Entry(str(STEPS), STEPS, Kind.STEP, "noop", output="7")
    yield Advance(key, 1, (last,), Outcome(Status.SUCCEEDED, "7"))


def bare(url: str, commits: int) -> float:
    """Insert one row a commit, prepared, through libpq: nothing can be faster alone."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table if not exists bare (id text primary key, value text)")
        connection.pgconn.prepare(b"bare", b"insert into bare values ($1, $2)")
        began = time.perf_counter()
        for _ in range(commits):
            connection.pgconn.exec_prepared(b"bare", (f"{next(_ids):x}".encode(), b"7"))
        return commits / (time.perf_counter() - began)


def threads(store: PostgresStore, executor: int, workers: int, workflows: int) -> float:
    """Run workflows on threads, each waiting for each answer."""

    def run(_: int) -> None:
        for command in life(executor):
            store.ask(command)

    with ThreadPoolExecutor(workers) as pool:
        deque(pool.map(run, range(workers)), 0)
        began = time.perf_counter()
        deque(pool.map(run, range(workflows)), 0)
        return workflows / (time.perf_counter() - began)


def submits(store: PostgresStore, executor: int, together: int, workflows: int) -> float:
    """Run workflows from one thread, many at a time, as an event loop does."""
    ready: deque[Iterator[Command[Any]]] = deque(life(executor) for _ in range(workflows))
    under_way: deque[tuple[Iterator[Command[Any]], Future[Any]]] = deque()
    began = time.perf_counter()
    while ready or under_way:
        while ready and len(under_way) < together:
            run = ready.popleft()
            if command := next(run, None):
                under_way.append((run, store.submit(command)))
        if under_way:
            run, future = under_way.popleft()
            future.result()
            ready.appendleft(run)
    return workflows / (time.perf_counter() - began)


@contextmanager
def server(arguments: list[str]) -> Generator[str]:
    """Give the URL of a database: the one that was named, or a new one."""
    if arguments:
        yield arguments[0]
        return
    with tempfile.TemporaryDirectory() as directory, Postgres(Path(directory), fsync=True) as postgres:
        yield postgres.create_database("bench")


def main() -> None:
    """Measure, and print a table."""
    with server(sys.argv[1:]) as url, closing(PostgresStore(url)) as store:
        store.open()
        executor = store.ask(Enlist(Process("bench", "here", 1, "now", "1", 60.0)))
        print(f"{'bare inserts':20} {bare(url, 2000):8.0f} commits/s")
        for name, rate in (
            ("alone", threads(store, executor, 1, 300)),
            ("8 threads", threads(store, executor, 8, 1500)),
            ("64 threads", threads(store, executor, 64, 3000)),
            ("1000 submitted", submits(store, executor, 1000, 8000)),
        ):
            print(f"{name:20} {rate:8.0f} workflows/s {rate * (STEPS + 1):8.0f} commands/s")
        assert store.ask(Count(Filter(status=(Status.RUNNING,)))) == 0


if __name__ == "__main__":
    main()
