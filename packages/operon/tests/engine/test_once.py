"""Transactions through an app: the user's rows and the record are one commit, once per key, whatever happens."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest

import operon
from children import PATIENCE, eventually, joined
from engine.conftest import crash
from engine.gates import Gate
from operon import Operon
from operon.errors import KeyConflict, TransactionEnded


class Bank(Protocol):
    """One account table and the transactions on it, in either database."""

    app: Operon
    add: Any
    fail: Any
    total: Any
    spawn: Any
    ended: Any

    def balance(self) -> int: ...


class Postgres:
    """Accounts in Postgres."""

    def __init__(self, app: Operon, url: str) -> None:
        self.app, self.url = app, url
        with psycopg.connect(url) as connection:
            connection.execute("create table if not exists entries (id serial primary key, cents int)")

        @app.transaction(name="add")
        def add(tx: psycopg.Connection[Any], cents: int) -> int:
            tx.execute("insert into entries (cents) values (%s)", [cents])
            row = tx.execute("select sum(cents) from entries").fetchone()
            assert row is not None
            return int(row[0])

        @app.transaction(name="fail")
        def fail(tx: psycopg.Connection[Any], cents: int) -> None:
            tx.execute("insert into entries (cents) values (%s)", [cents])
            raise ValueError("no funds")

        @app.transaction(name="total", read_only=True)
        def total(tx: psycopg.Connection[Any]) -> int:
            row = tx.execute("select coalesce(sum(cents), 0) from entries").fetchone()
            assert row is not None
            return int(row[0])

        @app.workflow(name="later")
        def later(cents: int) -> int:
            return int(add(cents))

        @app.transaction(name="spawn")
        def spawn(tx: psycopg.Connection[Any], cents: int, *, fine: bool) -> str:
            tx.execute("insert into entries (cents) values (%s)", [cents])
            handle = operon.start(later, cents)
            if not fine:
                raise ValueError("changed my mind")
            return handle.id

        @app.transaction(name="ended")
        def ended(tx: psycopg.Connection[Any]) -> None:
            tx.commit()

        self.add, self.fail, self.total, self.spawn, self.ended, self.later = add, fail, total, spawn, ended, later

    def balance(self) -> int:
        with psycopg.connect(self.url) as connection:
            row = connection.execute("select coalesce(sum(cents), 0) from entries").fetchone()
            assert row is not None
            return int(row[0])


class Sqlite:
    """Accounts in SQLite."""

    def __init__(self, app: Operon, path: Path) -> None:
        self.app, self.path = app, path
        connection = sqlite3.connect(path)
        connection.execute("pragma journal_mode=wal")
        connection.execute("create table if not exists entries (id integer primary key, cents int)")
        connection.close()

        @app.transaction(name="add")
        def add(tx: sqlite3.Connection, cents: int) -> int:
            tx.execute("insert into entries (cents) values (?)", [cents])
            return int(tx.execute("select sum(cents) from entries").fetchone()[0])

        @app.transaction(name="fail")
        def fail(tx: sqlite3.Connection, cents: int) -> None:
            tx.execute("insert into entries (cents) values (?)", [cents])
            raise ValueError("no funds")

        @app.transaction(name="total", read_only=True)
        def total(tx: sqlite3.Connection) -> int:
            return int(tx.execute("select coalesce(sum(cents), 0) from entries").fetchone()[0])

        @app.workflow(name="later")
        def later(cents: int) -> int:
            return int(add(cents))

        @app.transaction(name="spawn")
        def spawn(tx: sqlite3.Connection, cents: int, *, fine: bool) -> str:
            tx.execute("insert into entries (cents) values (?)", [cents])
            handle = operon.start(later, cents)
            if not fine:
                raise ValueError("changed my mind")
            return handle.id

        @app.transaction(name="ended")
        def ended(tx: sqlite3.Connection) -> None:
            tx.commit()

        self.add, self.fail, self.total, self.spawn, self.ended, self.later = add, fail, total, spawn, ended, later

    def balance(self) -> int:
        connection = sqlite3.connect(self.path)
        try:
            return int(connection.execute("select coalesce(sum(cents), 0) from entries").fetchone()[0])
        finally:
            connection.close()


@pytest.fixture(params=["sqlite", "postgres"])
def bank(request: pytest.FixtureRequest, sqlite_path: Path) -> Iterator[Any]:
    options: dict[str, Any] = {"lease": 1.0, "grace": 0.05}
    if request.param == "sqlite":
        made: Any = Sqlite(Operon("bank", database=f"sqlite:///{sqlite_path}", **options), sqlite_path)
    else:
        url = request.getfixturevalue("postgres_url")
        made = Postgres(Operon("bank", database=url, **options), url)
    yield made
    made.app.close(drain=5)


def test_a_transaction_alone_is_once_per_key(bank: Any) -> None:
    """Called outside a workflow it is a workflow of one commit; its key makes it once and only once."""
    with bank.app:
        assert bank.add(5) == 5
        assert bank.add.using(key="k")(10) == 15
        assert bank.add.using(key="k")(10) == 15
        with pytest.raises(KeyConflict):
            bank.add.using(key="k")(11)
        assert bank.total() == 15
        record = operon.describe("k")
        assert (record.status, record.name, record.output, record.input) == ("succeeded", "add", 15, {"cents": 10})
        assert [(s.kind, s.name, s.output) for s in operon.steps("k")] == [("transaction", "add", 15)]
        assert operon.count(name="total") == 0, "a read-only one without a key writes nothing"
    assert bank.balance() == 15


def test_eight_callers_of_one_key_commit_once(bank: Any) -> None:
    results: list[int] = []

    def call() -> None:
        results.append(bank.add.using(key="k")(10))

    with bank.app:
        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            joined(thread)
    assert results == [10] * 8
    assert bank.balance() == 10


def test_an_error_rolls_back_and_is_the_outcome(bank: Any) -> None:
    """What it raises undoes its rows, and is what its key answers from then on."""
    with bank.app:
        for _ in range(2):
            with pytest.raises(ValueError, match="no funds"):
                bank.fail.using(key="k")(10)
        assert operon.describe("k").status == "failed"
    assert bank.balance() == 0


def test_in_a_workflow_it_is_a_step(bank: Any) -> None:
    """Its record commits with its rows, so a workflow that is replayed does not do it again."""
    app: Operon = bank.app

    @app.workflow(name="flow")
    def flow() -> int:
        first = bank.add(1)
        gate.pass_through()
        second = bank.add(2)
        return int(first + second)

    gate = Gate(app)
    with bank.app:
        gate.shut()
        handle = operon.start(flow.using(key="w"))
        gate.open_behind("w")
        assert handle.result(PATIENCE) == 1 + 3
        kinds = [(s.kind, s.output) for s in operon.steps("w") if s.kind == "transaction"]
        assert kinds == [("transaction", 1), ("transaction", 3)]
        assert operon.describe("w").attempts == 2
    assert bank.balance() == 3


def test_a_start_inside_joins_the_transaction(bank: Any) -> None:
    """What a transaction starts, starts when it commits; if it rolls back, it never was."""
    with bank.app:
        with pytest.raises(ValueError, match="changed"):
            bank.spawn(10, fine=False)
        assert operon.count(name="later") == 0
        child = bank.spawn(10, fine=True)
        assert operon.retrieve(child, bank.later).result(20) == 20
    assert bank.balance() == 20


def test_commit_inside_teaches(bank: Any) -> None:
    with bank.app, pytest.raises(TransactionEnded, match="return to commit"):
        bank.ended()


def test_started_in_the_background_it_commits_once(bank: Any) -> None:
    with bank.app:
        handles = [operon.start(bank.add, 1) for _ in range(10)]
        assert sorted(operon.gather(*handles)) == list(range(1, 11))
    assert bank.balance() == 10


def test_a_crash_after_its_commit_does_not_repeat_it(bank: Any) -> None:
    """Committed but its caller killed before he knew: the new owner finds the record."""
    crashed, go = threading.Event(), threading.Event()

    app: Operon = bank.app

    @app.workflow(name="flow")
    def flow() -> int:
        value = bank.add(7)
        if not crashed.is_set():
            go.set()
            crashed.wait(20)
        return int(value)

    bank.app.launch()
    operon.start(flow.using(key="w"))
    assert go.wait(PATIENCE)
    crash(bank.app)
    crashed.set()
    with bank.app:
        assert operon.retrieve("w").result(20) == 7
    eventually(lambda: bank.balance() == 7)
