"""Rows that somebody damaged: each is shown as it is, and keeps nobody from seeing, running or deleting the others."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

import operon
from children import PATIENCE
from engine.conftest import MakeApp
from operon import Client, Operon, Unreadable
from operon.errors import NotDeserializable, WorkflowHeld

SQLITE: dict[str, list[str]] = {
    "created_at": ["1e13", "-1e13", "9e999", "-9e999"],
    "started_at": ["1e13", "-9e999"],
    "ended_at": ["1e13", "9e999"],
    "deadline": ["1e13", "9e999"],
    "status": ["99", "-1"],
    "input": ["'no json'", "'[1]'", "'7'", "'{\"$\": 1}'", "''", "cast(x'ff00' as text)"],
    "output": ["'no json'", '\'{"$": "no.such:Class", "v": {}}\'', "''"],
    "error": ["'no json'", "'{}'", "'[]'", '\'{"$": "error", "type": "no:Such", "message": 1}\''],
    "roles": ["'no json'", "'7'", "'{}'", "'[1]'"],
    "attributes": ["'no json'", "'[1]'", "'\"\\ud800\"'", '\'{"tenant": "\\ud800"}\'', "'7'"],
    "version": ["cast(x'ff' as text)"],
    "user": ["cast(x'ff' as text)"],
}
POSTGRES: dict[str, list[str]] = SQLITE | {
    "created_at": ["'infinity'", "'-infinity'", "'20000-01-01'", "'4000-01-01 BC'"],
    "started_at": ["'infinity'", "'20000-01-01'"],
    "ended_at": ["'infinity'", "'4000-01-01 BC'"],
    "deadline": ["'infinity'", "'20000-01-01'"],
    "input": ["'no json'", "'[1]'", "'7'", "'{\"$\": 1}'", "''"],
    "version": ["''"],
    "user": ["E'\\x01'"],
}


class Vandal:
    """Writes into the tables as no program of ours does."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.postgres = url.startswith("postgres")

    @property
    def columns(self) -> dict[str, list[str]]:
        return POSTGRES if self.postgres else SQLITE

    @property
    def now(self) -> str:
        """The database's clock."""
        return "now()" if self.postgres else "unixepoch()"

    def write(self, table: str, assignment: str, where: str = "true") -> None:
        """Update rows of one of Operon's tables."""
        name = f"operon.{table}" if self.postgres else f"operon_{table}"
        statement = f"update {name} set {assignment} where {where}"  # noqa: S608 - the test's own constants
        if self.postgres:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(statement.replace(" user =", ' "user" =').encode())
        else:
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=20)) as db, db:
                db.execute(statement)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, sqlite_path: Path) -> str:
    """A database that can be written by others."""
    return f"sqlite:///{sqlite_path}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def vandal(database: str) -> Vandal:
    return Vandal(database)


@pytest.fixture
def app(make: MakeApp) -> Iterator[Operon]:
    app = make()

    @app.step
    def one(n: int) -> int:
        return n

    @app.workflow
    def flow(n: int) -> int:
        return one(n)

    with app:
        yield app


def start(app: Operon, key: str, **options: Any) -> Any:
    from operon.app.declarations import Workflow

    flow: Workflow[[int], int] = Workflow(app.functions["app.<locals>.flow"])
    return operon.start(flow.using(key=key, attributes={"tenant": "acme"}, **options), 1)


def seen(client: Client) -> set[str]:
    """Look at everything in every way."""
    found = client.find()
    client.find(attributes={"tenant": "acme"})
    client.count(attributes={"tenant": "acme"})
    for record in found:
        client.describe(record.id)
        client.steps(record.id)
    return {record.id for record in found}


def test_one_damaged_column_breaks_no_reader(app: Operon, vandal: Vandal) -> None:
    """Whatever stands in whichever column: find, count, describe and steps answer, with and without the code."""
    start(app, "good").result(PATIENCE)
    start(app, "bad").result(PATIENCE)
    with Client(vandal.url) as client:
        for column, texts in vandal.columns.items():
            for text in texts:
                key = f"{column}-{len(operon.find(limit=1000))}"
                start(app, key).result(PATIENCE)
                vandal.write("workflows", f"{column} = {text}", f"id = '{key}'")
        keys = {record.id for record in operon.find(limit=1000)}
        assert {"good", "bad"} < keys
        assert seen(client) <= keys
        for key in keys:
            operon.describe(key)
            operon.steps(key)
        assert {"good", "bad"} <= {record.id for record in operon.find(attributes={"tenant": "acme"}, limit=1000)}
    assert start(app, "after").result(PATIENCE) == 1


def test_what_cannot_be_read_is_said_in_its_place(app: Operon, vandal: Vandal) -> None:
    start(app, "bad").result(PATIENCE)
    vandal.write("workflows", "input = 'no json', output = 'x', attributes = 'y', error = 'z', roles = '7'")
    record = operon.describe("bad")
    assert record.input["?"] == Unreadable("no json", record.input["?"].why)
    assert isinstance(record.output, Unreadable)
    assert isinstance(record.attributes["?"], Unreadable)
    assert isinstance(record.error, NotDeserializable)


@pytest.mark.parametrize(
    "assignment",
    [
        "output = 'no json'",
        "output = '\"no number\"'",
        "error = 'no json'",
        "kind = 'nothing'",
        "position = 'nowhere'",
    ],
)
def test_a_damaged_record_of_a_journal_holds_its_workflow_alone(app: Operon, vandal: Vandal, assignment: str) -> None:
    """It says what cannot be read; those claimed beside it run."""
    for key in ("bad", "good"):
        start(app, key).result(PATIENCE)
    vandal.write("steps", assignment, "workflow_id = 'bad'")
    vandal.write("workflows", f"status = 0, ended_at = null, output = null, ready_at = {vandal.now}")
    app.host.nudge()  # type: ignore[union-attr] # it is launched
    assert operon.retrieve("good").result(30) == 1
    with pytest.raises(WorkflowHeld) as held:
        operon.retrieve("bad").result(90)
    assert "no reason" not in str(held.value)
    assert operon.describe("bad").status == "held"
    assert f"{operon.describe('bad').error}" in str(held.value)
    operon.steps("bad")


def test_a_damaged_row_is_held_and_says_why(app: Operon, vandal: Vandal) -> None:
    """The one beside it runs."""
    for key in ("bad", "good"):
        start(app, key, delay=1000)
    vandal.write("workflows", "roles = 'no json'", "id = 'bad'")
    vandal.write("workflows", f"ready_at = {vandal.now}")
    app.host.nudge()  # type: ignore[union-attr] # it is launched
    assert operon.retrieve("good").result(30) == 1
    with pytest.raises(WorkflowHeld, match="roles"):
        operon.retrieve("bad").result(30)


def test_a_damaged_schedule_is_listed_and_keeps_no_other_from_firing(app: Operon, vandal: Vandal) -> None:
    from operon.app.declarations import Workflow

    flow: Workflow[[int], int] = Workflow(app.functions["app.<locals>.flow"])
    for name in ("a", "b", "c"):
        operon.schedules.create(name, "@yearly", flow.bind(1))
    vandal.write("schedules", "call = 'no json'", "name = 'a'")
    vandal.write("schedules", "tz = 'No/Where', cron = 'x'", "name = 'b'")
    vandal.write("schedules", f"next_at = {vandal.now}")
    assert {each.name for each in operon.schedules.list()} == {"a", "b", "c"}
    assert operon.schedules.describe("a").input["?"].text == "no json"
    app.host.replan()  # type: ignore[union-attr] # it is launched
    deadline = time.monotonic() + 30
    while operon.schedules.describe("c").last is None:
        assert time.monotonic() < deadline, "the schedule beside the damaged ones did not fire"
