"""A transaction that comes to its record and does not commit: its body is told why, and the workflow goes on."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import asyncpg
import psycopg
import pytest

from engine.conftest import HOUR, MakeApp, Woken
from operon import Operon, aio, describe, sleep, start, steps
from operon.errors import WorkflowTimedOut

TABLES = (
    "create table owner (id int primary key)",
    "create table pet (owner int references owner (id) deferrable initially deferred)",
    "create table taken (cents int)",
)


class Refused(Exception):
    """Not enough is there."""


@pytest.fixture
def database(postgres_url: str) -> str:
    """A Postgres with tables of the user's."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for statement in TABLES:
            connection.execute(statement)
    return postgres_url


def test_a_constraint_that_fails_at_the_commit_is_the_bodys_to_handle(make: MakeApp, woken: Woken) -> None:
    """What the database says at the commit is raised in the body, recorded, and replayed; nothing is held."""
    app = make()
    told: list[str] = []

    @app.transaction
    def adopt(tx: psycopg.Connection[Any]) -> None:
        tx.execute("insert into pet values (7)")

    @app.step
    def fed() -> str:
        return "fed"

    @app.workflow
    def flow() -> str:
        try:
            adopt()
        except Exception as error:
            told.append(repr(error))
        sleep(HOUR)
        return fed()

    with app:
        handle = start(flow)
        woken(app, handle.id)
        assert handle.result(timeout=30) == "fed"
        assert [it.status for it in steps(handle.id)] == ["failed", "succeeded", "succeeded"]
    assert len(told) == 2
    assert len(set(told)) == 1
    assert "pet_owner_fkey" in told[0]


def test_who_loses_a_race_and_is_then_refused_goes_on(make: MakeApp, database: str) -> None:
    """Twelve take 100 of 500 cents at once: five get it, seven are refused, and none is held."""
    app = make()
    gate, firsts = threading.Barrier(12), itertools.count()

    @app.transaction
    def take(tx: psycopg.Connection[Any], cents: int) -> int:
        row = tx.execute("select coalesce(sum(cents), 0) from taken").fetchone()
        assert row is not None
        if next(firsts) < gate.parties:
            gate.wait(30)
        if row[0] + cents > 500:
            raise Refused(cents)
        tx.execute("insert into taken values (%s)", [cents])
        return cents

    @app.step
    def said(what: str) -> str:
        return what

    @app.workflow
    def flow() -> str:
        try:
            take(100)
        except Refused:
            return said("refused")
        return said("taken")

    with app:
        handles = [start(flow) for _ in range(12)]
        assert sorted(handle.result(timeout=60) for handle in handles) == ["refused"] * 7 + ["taken"] * 5
    with psycopg.connect(database) as connection:
        assert connection.execute("select sum(cents) from taken").fetchone() == (500,)


@pytest.mark.parametrize("kind", ["sqlite", "blocking", "async"])
def test_all_who_have_the_key_of_a_refused_transaction_are_told_the_refusal(
    request: pytest.FixtureRequest, kind: str
) -> None:
    """The refusal is one commit: nobody meets a workflow that is neither there nor ended."""
    sqlite = kind == "sqlite"
    path = request.getfixturevalue("sqlite_path" if sqlite else "postgres_url")
    app = Operon("app", database=f"sqlite:///{path}" if sqlite else path)

    def refuse(tx: Any, n: int) -> None:
        raise Refused(n)

    async def arefuse(tx: Any, n: int) -> None:
        raise Refused(n)

    refuse.__annotations__["tx"] = sqlite3.Connection if sqlite else psycopg.Connection
    arefuse.__annotations__["tx"] = psycopg.AsyncConnection
    refused: Any = app.transaction(arefuse if kind == "async" else refuse)
    callers = [n for n in range(20) for _ in range(6)]
    told: list[str] = []

    def ask(n: int) -> None:
        try:
            refused.using(key=f"k{n}")(n)
        except Exception as error:
            told.append(repr(error))

    async def aask(n: int) -> None:
        try:
            await refused.using(key=f"k{n}")(n)
        except Exception as error:
            told.append(repr(error))

    async def main() -> None:
        async with app:
            await asyncio.gather(*map(aask, callers))

    if kind == "async":
        asyncio.run(main())
    with app:
        if kind != "async":
            with ThreadPoolExecutor(6) as pool:
                list(pool.map(ask, callers))
        assert sorted(told) == sorted(repr(Refused(n)) for n in callers)
        for n in range(20):
            record = describe(f"k{n}")
            assert (record.status, repr(record.error)) == ("failed", repr(Refused(n)))
            assert [it.status for it in steps(f"k{n}")] == ["failed"]


def test_what_committed_is_told_although_the_time_is_over(make: MakeApp, database: str) -> None:
    """A timeout about the commit: if the row is there the body has the value, and so has every replay."""
    app = make()

    @app.transaction
    async def by_psycopg(tx: psycopg.AsyncConnection[Any], n: int) -> int:
        await tx.execute("insert into owner values (%s)", [n])
        return n

    @app.transaction
    async def by_asyncpg(tx: asyncpg.Connection, n: int) -> int:
        await cast("Any", tx).execute("insert into owner values ($1)", n)
        return n

    told: dict[int, list[str]] = {}

    @app.workflow
    async def flow(n: int) -> str:
        try:
            async with asyncio.timeout(n % 50 * 0.0004):
                await (by_psycopg if n % 2 else by_asyncpg)(n)
        except TimeoutError:
            told.setdefault(n, []).append("late")
        else:
            told.setdefault(n, []).append("told")
        await aio.sleep(0.2)
        return told[n][0]

    async def main() -> None:
        async with app:
            await asyncio.gather(*[by_psycopg(1000), by_asyncpg(1001)])
            handles = [await aio.start(flow, n) for n in range(100)]
            for handle in handles:
                await handle.wait(60)

    asyncio.run(main())
    with psycopg.connect(database) as connection:
        there = {row[0] for row in connection.execute("select id from owner where id < 1000").fetchall()}
    assert all(len(set(each)) == 1 for each in told.values())
    assert there == {n for n, each in told.items() if each[0] == "told"}


def test_the_key_of_a_transaction_counts_in_a_body_too(make: MakeApp) -> None:
    """With options of its own it is a workflow there as well, and not a step that leaves them out."""
    app = make()

    @app.transaction
    def pay(tx: psycopg.Connection[Any], cents: int) -> int:
        tx.execute("insert into taken values (%s)", [cents])
        found = tx.execute("select count(*) from taken").fetchone()
        assert found is not None
        return int(found[0])

    @app.workflow
    def payday() -> int:
        return pay.using(key="payslip-7")(500)

    with app:
        assert [payday(), payday(), pay.using(key="payslip-7")(500)] == [1, 1, 1]
        assert describe("payslip-7").name == pay.name


def test_the_time_of_a_transaction_counts_where_it_is_called_directly(make: MakeApp) -> None:
    app = make()

    @app.transaction
    def nap(tx: psycopg.Connection[Any]) -> None:
        tx.execute("insert into taken values (1)")
        tx.execute("select pg_sleep(60)")

    with app:
        with pytest.raises(WorkflowTimedOut):
            nap.using(key="slow", timeout=0.2)()
        assert describe("slow").status == "failed"
