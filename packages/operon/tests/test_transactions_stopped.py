"""A transaction whose workflow is over does not go on at the server: its statement is cancelled, its locks are free."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast

import anyio
import psycopg
import pytest

import operon
from children import PATIENCE, eventually
from operon import Operon
from operon.core.commands import Op
from operon.engine import interrupting
from operon.errors import Cancelled, Suspended, WorkflowCancelled, WorkflowTimedOut
from transacting import CASES, IDS, ON_POSTGRES, Sql, Way

SLOW = {
    "postgres": "select pg_sleep(3600)",
    "sqlite": "with recursive n (i) as (select 1 union all select i + 1 from n) select count(*) from n",
}
MAKE: Final = "create table account (money int); insert into account values (100);"
WAIT: Final = 30
"""Seconds that the next writer waits for the lock of the one before."""


LOCKS: Final = b"set lock_timeout = '30s'"


class Account:
    """A table in a database of the test's own."""

    def __init__(self, url: str, path: Path | None) -> None:
        self.url = url
        self._path = path
        self.write(MAKE)

    def write(self, text: str) -> list[Any]:
        """Execute SQL as somebody else, who waits for locks for a while."""
        if self._path is not None:
            with closing(sqlite3.connect(self._path, timeout=WAIT)) as other, other:
                for statement in text.split(";")[:-1]:
                    other.execute(statement)
                return other.execute("select money from account").fetchall()
        with psycopg.connect(self.url) as server:
            server.execute(LOCKS)
            server.execute(text.encode())
            return server.execute("select money from account").fetchall()


@pytest.fixture
def account(dialect: str, request: pytest.FixtureRequest) -> Account:
    if dialect == "postgres":
        return Account(request.getfixturevalue("ready_postgres_url"), None)
    path: Path = request.getfixturevalue("sqlite_path")
    return Account(f"sqlite:///{path}", path)


def calling(app: Operon, way: Way, transaction: Any, seen: list[str]) -> Any:
    """Declare a workflow that calls a transaction, and says so if it hears that it is cancelled."""

    @app.workflow
    def flow() -> None:
        try:
            transaction()
        except Cancelled:
            seen.append("heard")
            raise

    @app.workflow
    async def aflow() -> None:
        try:
            await transaction()
        except Cancelled:
            seen.append("heard")
            raise

    return aflow if way.asynchronous else flow


class Bank:
    """An app with a transaction that takes money, and then waits for the server."""

    def __init__(self, way: Way, dialect: str, account: Account, journal: str) -> None:
        url = account.url.replace("postgresql:", f"postgresql+{way.driver}:") if way.driver else account.url
        # A heartbeat would find that nobody runs what was left, and run it again.
        self.app = Operon("bank", database=journal, datasources={"bank": url}, lease=600.0)
        self.inside, self.seen = threading.Event(), list[str]()

        def script(sql: Sql) -> Op[None]:
            yield from sql("update account set money = money - 1")
            self.inside.set()
            yield from sql(SLOW[dialect])

        slow = self.app.transaction(name="slow", datasource="bank")(way.function(script))

        @self.app.workflow
        async def timed(scope: str) -> str:
            try:
                if scope == "anyio":
                    with anyio.fail_after(0.5):
                        await slow()
                else:
                    async with asyncio.timeout(0.5):
                        await slow()
            except TimeoutError:
                return "late"
            return "in time"

        self.flow = calling(self.app, way, slow, self.seen)
        self.timed = timed


@pytest.mark.parametrize("how", ["cancelled", "late", "left"])
@pytest.mark.parametrize(("way", "dialect"), CASES, ids=IDS)
def test_the_statement_of_a_transaction_ends_with_its_workflow(
    way: Way, dialect: str, account: Account, tmp_path: Path, how: str
) -> None:
    """SQLite has one writer, so that a cancellation waits for the transactions in the journal's own file."""
    bank = Bank(way, dialect, account, f"sqlite:///{tmp_path}/journal.db" if dialect == "sqlite" else account.url)
    with bank.app:
        handle = operon.start(bank.flow.using(key="w", timeout=3600))
        assert bank.inside.wait(PATIENCE)
        engine: Any = bank.app._engine
        if how == "left":
            engine.kill(engine.runs["w"], Suspended("It was taken over."))
        else:
            operon.cancel("w") if how == "cancelled" else interrupting.expire(engine, engine.runs["w"])
            with pytest.raises(WorkflowCancelled if how == "cancelled" else WorkflowTimedOut):
                handle.result(PATIENCE)
        assert account.write("update account set money = money + 10;") == [(110,)]
        eventually(lambda: bank.seen == ([] if how == "left" else ["heard"]), "the body does not hear of it")


SERVERS: Final = [(way, dialect) for way, dialect in CASES if way.asynchronous and dialect == "postgres"]


@pytest.mark.parametrize(("way", "dialect"), SERVERS, ids=[way.name for way, _ in SERVERS])
def test_a_cancellation_that_came_before_its_statement_is_sent_again(
    way: Way, dialect: str, account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that executes nothing at that moment forgets it; the statement would hold its locks to its end."""
    sent = iter([lost])

    async def cancel(**options: Any) -> None:
        await next(sent, real)(**options)

    driver: Any = import_module("asyncpg.connect_utils")
    real = driver._cancel
    monkeypatch.setattr(driver, "_cancel", cancel)
    monkeypatch.setattr(psycopg.AsyncConnection, "_try_cancel", lost)
    bank = Bank(way, dialect, account, f"sqlite:///{tmp_path}/journal.db")
    with bank.app:
        operon.start(bank.flow.using(key="w"))
        assert bank.inside.wait(PATIENCE)
        operon.cancel("w")
        assert account.write("update account set money = money + 10;") == [(110,)]


async def lost(*_: Any, **__: Any) -> None:
    """What a driver sends does not come to be anything."""


@pytest.mark.parametrize(("way", "dialect"), CASES, ids=IDS)
def test_a_transaction_elsewhere_is_not_committed_after_its_workflow_was_cancelled(
    way: Way, dialect: str, account: Account, tmp_path: Path
) -> None:
    """Also where its code is between two statements: its record is refused."""
    inside, go = threading.Event(), threading.Event()
    app = Operon("bank", database=f"sqlite:///{tmp_path}/journal.db", datasources={"bank": account.url})

    def wait(_: object) -> Any:
        inside.set()
        return asyncio.to_thread(go.wait, PATIENCE) if way.asynchronous else go.wait(PATIENCE)

    def script(sql: Sql) -> Op[None]:
        yield from sql("update account set money = money - 1")
        yield from sql(wait)

    flow = calling(app, way, app.transaction(datasource="bank")(way.function(script)), [])

    with app:
        operon.start(flow.using(key="w"))
        assert inside.wait(PATIENCE)
        operon.cancel("w")
        go.set()
        eventually(lambda: not cast("Any", app._engine).runs.claims())
        assert account.write("update account set money = money + 10;") == [(110,)]


@pytest.mark.parametrize("way", [it for it in ON_POSTGRES if it.asynchronous], ids=lambda it: it.name)
def test_the_connections_of_async_transactions_are_closed_with_the_app(way: Way, ready_postgres_url: str) -> None:
    app = Operon("bank", database="memory:", datasources={"bank": ready_postgres_url})

    def script(sql: Sql) -> Op[None]:
        yield from sql("select 1")

    flow = calling(app, way, app.transaction(datasource="bank")(way.function(script)), [])

    with app:
        operon.start(flow).result(PATIENCE)
        kept = [source._resources for source in app._databases._open.values()]  # nor by the garbage collector
    with psycopg.connect(ready_postgres_url) as server:
        others = "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        eventually(lambda: not server.execute(others).fetchall(), "a connection stays open")
    assert kept


AWAITED = [(way, dialect) for way, dialect in CASES if way.asynchronous]


@pytest.mark.parametrize("scope", ["asyncio", "anyio"])
@pytest.mark.parametrize(("way", "dialect"), AWAITED, ids=[f"{way.name}-{dialect}" for way, dialect in AWAITED])
def test_the_statement_of_a_transaction_ends_with_a_timeout_around_it(
    way: Way, dialect: str, account: Account, tmp_path: Path, scope: str
) -> None:
    """Those of anyio cancel again in every turn of the loop."""
    bank = Bank(way, dialect, account, f"sqlite:///{tmp_path}/journal.db")
    with bank.app:
        assert operon.start(bank.timed, scope).result(PATIENCE) == "late"
        assert account.write("update account set money = money + 10;") == [(110,)]
