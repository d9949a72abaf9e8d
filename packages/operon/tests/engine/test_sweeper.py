"""Records of transactions in other databases go with their workflow's own: erased, forgotten or deleted."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

import operon
from engine.conftest import MakeApp
from operon import Operon
from operon.core.commands import Sweep
from operon.core.rows import Policy
from operon.core.states import Status
from operon.datasources import sweeper

Rows = Callable[[], list[tuple[str, str]]]


@pytest.fixture(params=["sqlite", "postgres"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Another database than the journal's."""
    return f"sqlite:///{tmp_path}/other.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def rows(other: str) -> Rows:
    """The records there: id and output."""
    return lambda: sorted(read(other))


def read(url: str) -> list[tuple[str, str]]:
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db:
            return db.execute("select workflow_id, output from operon_transactions").fetchall()
    with psycopg.connect(url) as connection:
        return connection.execute("select workflow_id, output from operon.transactions").fetchall()


@pytest.fixture
def app(make: MakeApp, other: str) -> Iterator[Operon]:
    with declared(make(datasources={"other": other}), other) as app:
        yield app


def declared(app: Operon, other: str) -> Operon:
    if other.startswith("sqlite"):

        @app.transaction(datasource="other", name="note")
        def note(tx: sqlite3.Connection, secret: str) -> str:
            return secret
    else:

        @app.transaction(datasource="other", name="note")
        def note(tx: psycopg.Connection[Any], secret: str) -> str:
            return secret

    @app.workflow(name="flow")
    def flow(secret: str) -> str:
        return str(note(secret))

    return app


def start(app: Operon, key: str, word: str = "known") -> None:
    from operon.app.declarations import Workflow

    flow: Workflow[[str], str] = Workflow(app.functions["flow"])
    assert operon.start(flow.using(key=key), word).result(30) == word


def sweep(app: Operon) -> int:
    it = app._databases._sweeper
    assert it is not None
    return it.round()


def erase(app: Operon, *, keys: bool = False) -> None:
    """Do what retention does, now."""
    assert app.host is not None
    store = app._engine.store  # type: ignore[union-attr] # it is launched
    store.ask(Sweep((Policy("flow", Status.SUCCEEDED, 0.0),), 1000, None, keys))


def test_a_record_stays_as_long_as_its_workflow_has_its_own(app: Operon, rows: Rows) -> None:
    start(app, "a")
    assert sweep(app) == 0
    assert rows() == [("a", '"known"')]


def test_an_erased_workflow_takes_its_records_along(app: Operon, rows: Rows) -> None:
    """With more of them than a page."""
    for key in ("a", "b", "c"):
        start(app, key)
    erase(app)
    start(app, "d")
    assert sweep(app) == 3
    assert rows() == [("d", '"known"')]


def test_a_deleted_workflow_takes_its_records_along(app: Operon, rows: Rows) -> None:
    """Also where its key is used anew meanwhile: the new one keeps its own."""
    start(app, "a", "old")
    operon.delete("a")
    start(app, "a", "new")
    assert sweep(app) == 1
    assert rows() == [("a", '"new"')]


def test_many_records_go_page_by_page(app: Operon, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "PAGE", 2)
    for number in range(7):
        start(app, f"k{number}")
    operon.delete("k3")
    assert sweep(app) == 1
    erase(app)
    assert sweep(app) == 6
    assert rows() == []


class Away:
    """A database that nobody reaches."""

    def glance(self, *_: object) -> Any:
        raise ConnectionError("away")


def test_a_database_that_is_away_is_swept_when_it_is_back(
    app: Operon, rows: Rows, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost, nothing else stops, and it is said once."""
    start(app, "a")
    operon.delete("a")
    source = app._databases._open["other"]
    with monkeypatch.context() as patch:
        patch.setitem(vars(source), "own", Away())
        assert sweep(app) == sweep(app) == 0
    assert [it.message for it in caplog.records if "other" in it.message and "away" in it.message][1:] == []
    assert sweep(app) == 1
    assert rows() == []


def test_records_of_another_journal_are_left_alone(app: Operon, other: str, rows: Rows, tmp_path: Path) -> None:
    """Two apps with databases of their own may have one datasource."""
    with declared(
        Operon("second", database=f"sqlite:///{tmp_path}/second.db", datasources={"other": other}), other
    ) as it:
        from operon.app.declarations import Workflow

        flow: Workflow[[str], str] = Workflow(it.functions["flow"])
        assert operon.start(flow.using(key="theirs"), "x").result(30) == "x"
        assert sweep(app) == 0
        assert rows() == [("theirs", '"x"')]
