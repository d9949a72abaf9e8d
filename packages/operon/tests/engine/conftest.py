"""Apps on every database, and what a crash leaves of them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

import operon
from children import PATIENCE, eventually
from operon import Operon
from operon.core import apps
from operon.core.rows import Kind
from operon.engine import interrupting, turns
from operon.errors import OperonError, Suspended
from operon.stores.memory import Clock, MemoryStore

MakeApp = Callable[..., Operon]
Woken = Callable[[Operon, str], None]
HOUR = 3600.0
"""Seconds that a body sleeps which is to leave its process, however slow that is; `woken` ends it."""
HALF_AN_HOUR = timedelta(minutes=30)
OVERDUE = "update {table}workflows set deadline = {past}, ready_at = {past} where id = {id}"
SLEPT = (
    "update {table}steps set output = '1.0' where workflow_id = {id} and kind = 'sleep'",
    "update {table}workflows set ready_at = {past} where id = {id}",
)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def database(request: pytest.FixtureRequest, sqlite_path: Path) -> Any:
    """A database that outlives the apps on it."""
    if request.param == "memory":
        return MemoryStore(Clock(time.time))
    if request.param == "sqlite":
        return f"sqlite:///{sqlite_path}"
    return request.getfixturevalue("ready_postgres_url")


@pytest.fixture
def make(database: Any) -> Iterator[MakeApp]:
    """Make an app on the test's database, with a short lease and a short grace; whatever is launched is closed."""
    made: list[Operon] = []

    def one(name: str = "app", **options: Any) -> Operon:
        settings: dict[str, Any] = {"database": database, "lease": 1.0, "grace": 0.05} | options
        app = Operon(name, **settings)
        made.append(app)
        return app

    yield one
    for app in made:
        with suppress(OperonError):
            app.close(drain=5)


def execute(url: str, workflow_id: str, *statements: str) -> None:
    """Change the rows of a workflow on SQLite or Postgres; in each statement stand {table}, {past} and {id}."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30)) as file, file:
            for statement in statements:
                file.execute(statement.format(table="operon_", past="1", id="?"), [workflow_id])
    else:
        with psycopg.connect(url) as server:
            for statement in statements:
                text = statement.format(table="operon.", past="to_timestamp(1)", id="%s")
                server.execute(text.encode(), [workflow_id])


@pytest.fixture
def overdue(database: Any) -> Callable[[Operon, str], None]:
    """Let the deadline of a workflow that sleeps, or of one that runs here, be over now."""

    def one(app: Operon, workflow_id: str) -> None:
        engine: Any = app._engine
        if operon.describe(workflow_id).status == "running":
            interrupting.expire(engine, engine.runs[workflow_id])
            return
        if isinstance(database, MemoryStore):
            row = database.tables.workflows[workflow_id].row
            database.tables.workflows[workflow_id].row = replace(row, deadline=1.0, ready_at=1.0)
        else:
            execute(database, workflow_id, OVERDUE)
        engine.service.nudge(news=True)

    return one


@pytest.fixture
def woken(database: Any) -> Woken:
    """Wait until a workflow sleeps for an hour and no process runs it, and let that hour be over: it is replayed."""

    def sleeps(engine: Any, workflow_id: str) -> bool:
        it = operon.describe(workflow_id)
        late = it.ready_at is not None and it.ready_at - datetime.now(UTC) > HALF_AN_HOUR
        return late and it.status == "waiting" and workflow_id not in dict(engine.runs.claims())

    def one(app: Operon, workflow_id: str) -> None:
        engine: Any = app._engine
        eventually(lambda: sleeps(engine, workflow_id), f"{workflow_id} sleeps, and nobody runs it")
        if isinstance(database, MemoryStore):
            with database._lock:
                it = database.tables.workflows[workflow_id]
                for key, entry in tuple(it.journal.items()):
                    if entry.kind is Kind.SLEEP:
                        it.journal[key] = replace(entry, output="1.0")
                it.row = replace(it.row, ready_at=1.0)
        else:
            execute(database, workflow_id, *SLEPT)
        engine.service.nudge(news=True)

    return one


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait long for threads and tasks to come to rest: each of such a test does, though the machine may keep one."""
    monkeypatch.setattr(turns, "PATIENCE", PATIENCE)


def crash(app: Operon) -> None:
    """End an app as SIGKILL would: nothing is handed back, nothing more is written, nobody says goodbye."""
    engine = app._engine
    assert engine is not None
    app._engine = app.host = None
    apps.launched.remove(engine)
    engine.places.open = False
    for run in tuple(engine.runs.all()):
        engine.kill(run, Suspended("crashed"))
    engine.service.stop()
    engine.timers.stop()
    engine.loop.close()
    for part in (*app._databases.close(), engine.store.close):
        part()
