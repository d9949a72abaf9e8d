"""An app in memory is an app: what waits comes to its end by the machine's clock, and transactions commit."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import Connection
from sqlalchemy import text
from sqlalchemy.orm import Session

from operon import Operon, describe, sleep, start
from operon.errors import DeclarationError, WorkflowTimedOut, WrongDatabase


@pytest.fixture
def app() -> Iterator[Operon]:
    app = Operon("memory", database="memory:", grace=0.02)
    yield app
    app.close(drain=5)


def test_what_waits_ends(app: Operon) -> None:
    """A sleep longer than the grace, a delay and a deadline: the clock is the machine's."""

    @app.workflow
    def nap(seconds: float) -> str:
        sleep(seconds)
        return "awake"

    app.launch()
    before = time.time()
    late = start(nap.using(delay=0.1), 0.1)
    assert nap(0.1) == late.result(timeout=20) == "awake"
    with pytest.raises(WorkflowTimedOut):
        nap.using(timeout=0.1)(3600)
    row = describe(late.id)
    assert before - 1 < row.created_at.timestamp() < time.time() + 1


def test_transactions_commit_once(app: Operon) -> None:
    """In a workflow that is replayed, and once per key outside; read through another adapter; gone with the app."""

    @app.transaction
    def add(tx: sqlite3.Connection, n: int) -> int:
        tx.execute("create table if not exists numbers (n integer)")
        tx.execute("insert into numbers values (?)", [n])
        return n

    @app.transaction(read_only=True)
    def count(tx: Session) -> int:
        return int(tx.execute(text("select count(*) from numbers")).scalar_one())

    @app.workflow
    def flow() -> int:
        add(1)
        sleep(0.1)
        return count()

    app.launch()
    assert flow() == 1
    assert add.using(key="k")(2) == add.using(key="k")(2) == 2
    assert count() == 2
    files = app._databases._files
    assert files is not None
    app.close()
    assert not Path(files.name).exists()


def test_what_memory_cannot_do_is_said(app: Operon) -> None:
    """One commit with the journal, and another database's driver: the error says what to do."""

    @app.workflow
    def other() -> None: ...

    @app.transaction
    def both(tx: sqlite3.Connection) -> str:
        return start(other).id

    app.launch()
    with pytest.raises(WrongDatabase, match=r"memory: .* sqlite:///"):
        both()
    app.close()

    @app.transaction
    def postgres(tx: Connection) -> None: ...

    with pytest.raises(DeclarationError, match="memory:, whose transactions run on sqlite"):
        app.launch()
