# ruff: noqa: S608 - statements of names that stand here
"""What many workflows leave in Postgres: bytes, dead rows, and the work of removing them when their time is over.

The floor of a size is the same rows copied into a new table with the same indexes. That of the sweep is two statements
that delete all at once, the least that any retention by rows can cost; dropping a partition would cost neither.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg

from benchmarks.app import App
from benchmarks.figures import FLOOR, OURS, RATE, Figure
from benchmarks.program import Task, main
from operon.app.stores import store_for
from operon.core.commands import Strip, Sweep
from operon.core.rows import Policy
from operon.core.states import Status
from operon.engine.retention import ENTRIES, PAGE

TABLES = ("workflows", "steps")
TOGETHER = 1_000
"""Workflows at once."""
SIZE = "select sum(pg_total_relation_size(t::regclass)) from unnest(%s::text[]) t"
WAL = "select pg_current_wal_insert_lsn() - '0/0'"
DEAD = "select sum(n_dead_tup)::float8 / sum(n_live_tup) from pg_stat_user_tables where relname = any(%s)"
HOT = "select n_tup_hot_upd::float8 / n_tup_upd from pg_stat_user_tables where relname = 'workflows'"


def lifetime(task: Task) -> Iterator[Figure]:
    """Run workflows of one step, look at what is left of them, and sweep them away."""
    number = task.size.lived
    with psycopg.connect(task.url, autocommit=True) as server:
        before = asked(server, WAL)
        took = asyncio.run(lived(task.url, number))
        yield Figure("run, 1 step, async", RATE, number / took)
        yield Figure("WAL of a workflow", "bytes", (asked(server, WAL) - before) / number)
        if server.info.server_version >= 150000:
            server.execute("select pg_stat_force_next_flush()")
        yield Figure("updates in place (HOT)", "%", asked(server, HOT) * 100)
        yield Figure("dead rows", "%", asked(server, DEAD, [*TABLES]) * 100)
        here = [f"operon.{table}" for table in TABLES]
        for table in TABLES:
            server.execute(f"create table public.{table} (like operon.{table} including all)")
            server.execute(f"insert into public.{table} select * from operon.{table}")
        there = [f"public.{table}" for table in TABLES]
        yield Figure("size of a workflow", "bytes", asked(server, SIZE, there) / number, FLOOR)
        full = asked(server, SIZE, here)
        yield Figure("size of a workflow", "bytes", full / number)
        for subject, sweep in ((FLOOR, deleted), (OURS, swept)):
            wal, begun = asked(server, WAL), time.perf_counter()
            sweep(server, task.url)
            yield Figure("swept", RATE, number / (time.perf_counter() - begun), subject)
            yield Figure("WAL of sweeping a workflow", "bytes", (asked(server, WAL) - wal) / number, subject)
        server.execute("vacuum operon.workflows, operon.steps")
        asyncio.run(lived(task.url, number))
        yield Figure("size after as many again", "of the first", asked(server, SIZE, here) / full)


def asked(server: psycopg.Connection[Any], query: str, *parameters: object) -> float:
    """Ask for one number."""
    row = server.execute(query.encode(), parameters).fetchone()
    return float(row[0]) if row and row[0] is not None else 0.0


async def lived(url: str, number: int) -> float:
    """Run so many workflows; give the seconds."""
    bench = App(url)
    async with bench.app:
        begun = time.perf_counter()
        for done in range(0, number, TOGETHER):
            await asyncio.gather(*(bench.aflow(1) for _ in range(min(TOGETHER, number - done))))
        return time.perf_counter() - begun


def deleted(server: psycopg.Connection[Any], _url: str) -> None:
    """Delete the copies with one statement each."""
    for table in TABLES:
        server.execute(f"delete from public.{table}".encode())


def swept(_server: psycopg.Connection[Any], url: str) -> None:
    """Sweep as a process does, without the pauses between two pages: records and journals, then keys."""
    policies = (Policy("aflow", Status.SUCCEEDED, 0.0),)
    with closing(store_for(url)) as store:
        store.open()
        for keys in (False, True):
            while store.ask(Sweep(policies, PAGE, None, keys)).gone:
                store.ask(Strip(ENTRIES))
            while store.ask(Strip(ENTRIES)):
                pass


if __name__ == "__main__":
    main({"lifetime": lifetime})
