"""What the work costs on Postgres, counted from the server's own log."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

import operon
from children import eventually
from operon import Operon
from operon.core.commands import KeepSchedule, Schedules
from operon.core.timetable import Template
from operon.embedded import Postgres
from operon.engine.executor import BEATS_A_LEASE
from operon.engine.settings import Settings

_marks = count()
STATEMENT = re.compile(r"LOG:\s+(?:statement|execute [^:]*): (.*)")


@pytest.fixture(scope="module")
def logging_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server that logs every statement it executes."""
    directory = tmp_path_factory.mktemp("logged") / "data"
    with Postgres(directory, settings={"log_statement": "all"}, fsync=False) as server:
        yield server


class Log:
    """The statements that a server executed while something was done."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._file = server.log
        self.statements: list[str] = []

    @contextmanager
    def counted(self) -> Generator[None]:
        start = self._mark("begin")
        yield
        end = self._mark("end")
        text = self._file.read_text("utf-8").replace("\n\t", " ")
        between = text[text.index(start) + len(start) : text.rindex("LOG:", 0, text.index(end))]
        self.statements = [found[1] for found in STATEMENT.finditer(between) if "mark:" not in found[1]]

    def _mark(self, name: str) -> str:
        mark = f"mark:{name}:{next(_marks)}:"
        with psycopg.connect(self._server.url, autocommit=True) as connection:
            connection.execute(f"select '{mark}'".encode())
        for _ in range(1000):
            if self._file.exists() and mark in self._file.read_text("utf-8"):
                return mark
        raise AssertionError("the log never showed the mark")


@pytest.fixture
def log(logging_postgres: Postgres) -> Log:
    return Log(logging_postgres)


@pytest.fixture
def app(logging_postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[Operon]:
    server = logging_postgres
    name = re.sub(r"\W+", "_", request.node.name).lower()
    made = Operon("app", database=server.create_database(name), lease=3600.0)
    yield made
    made.close()


@pytest.mark.parametrize("steps", [0, 1, 10])
def test_a_workflow_of_n_steps_costs_n_plus_2_commits_at_most(app: Operon, log: Log, steps: int) -> None:
    """Alone, a workflow of N plain steps is at most N + 2 statements and commits; a peer needs 8 + 10 N."""

    @app.step
    def one(n: int) -> int:
        return n

    @app.workflow
    def flow() -> int:
        return sum(one(n) for n in range(steps))

    with app:
        flow()
        with log.counted():
            flow()
    assert len(log.statements) == max(2, steps + 1), log.statements
    assert not [it for it in log.statements if it.lower().startswith(("begin", "commit"))]


def test_a_transaction_costs_one_statement_more_than_the_users(app: Operon, log: Log) -> None:
    """In a workflow, and alone: begin, the user's statements, one of ours, commit."""

    @app.transaction
    def add(tx: psycopg.Connection[Any]) -> int:
        tx.execute("select 1 as users")
        return 1

    @app.workflow
    def flow() -> int:
        return add() + add()

    with app:
        add()
        flow()
        with log.counted():
            add()
        assert kinds(log) == ["begin", "users", "ours", "commit"], log.statements
        with log.counted():
            flow()
    assert kinds(log) == ["ours", *["begin", "users", "ours", "commit"] * 2, "ours"], log.statements


SLEEPER = {
    "start": "with parent as",
    "write": "insert into operon.steps",
    "end": "update operon.workflows set status = $1",
    "claim": "with picked as",
    "load": "from operon.steps where workflow_id = any",
}


def test_a_sleeper_costs_one_claim_and_its_journal_more(logging_postgres: Postgres, log: Log) -> None:
    """Started, asleep, parked: three statements. Due: one claim, one journal, the end; no claim because it slept."""
    server = logging_postgres
    app = Operon("app", database=server.create_database("sleeper"), lease=3600.0, grace=0.05)

    @app.workflow
    def flow() -> None:
        operon.sleep(0.3)

    with app:
        operon.start(flow).result(20)
        with log.counted():
            operon.start(flow).result(20)
    text = [re.sub(r"\s+", " ", it.lower()) for it in log.statements]
    counted = {name: sum(mark in it for it in text) for name, mark in SLEEPER.items()}
    assert counted.pop("claim") <= 2, "one by its own clock, and one because the heartbeat says that it is due"
    assert counted == {"start": 1, "write": 1, "end": 2, "load": 1}, text


def kinds(log: Log) -> list[str]:
    return [kind(statement.lower()) for statement in log.statements]


def kind(statement: str) -> str:
    if statement.startswith(("begin", "commit")):
        return statement.split(maxsplit=1)[0].rstrip(";")
    return "users" if "users" in statement else "ours"


def test_an_idle_process_issues_one_statement_a_heartbeat(logging_postgres: Postgres, log: Log) -> None:
    """Nothing to do costs nothing but the heartbeat, which is three seconds: with 20 queues and 20 schedules, too.

    A schedule that is due, and that nobody here can fire, is among them.
    """
    server = logging_postgres
    app = Operon("app", database=server.create_database("idle"), lease=1.0)
    assert Settings().ttl / BEATS_A_LEASE >= 1
    for n in range(20):
        app.queue(f"queue {n}", concurrency=n + 1)

    @app.workflow
    def flow() -> int:
        return 1

    for n in range(20):
        app.schedule(f"{n} 0 1 1 *", name=f"schedule {n}")(flow)

    with app:
        flow()
        host = app.host
        assert host is not None
        (row,) = host.store.ask(Schedules("schedule 7"))
        plan = replace(row.plan, name="of another app", call=Template("elsewhere", "{}"))
        assert host.store.ask(KeepSchedule(replace(row, plan=plan, next_at=1.0, turn=1)))
        launched = _beats(server)
        beats = eventually(lambda: (seen := _beats(server)) >= launched + 2 and seen, "what a launch leaves behind")
        with log.counted():
            eventually(lambda: _beats(server) >= beats + 5, "five heartbeats")
        now = _beats(server)
        own = [
            it for it in log.statements if "operon.executors" in it and "beat" in it and "select sum(beat)" not in it
        ]
        rest = [it for it in log.statements if it not in own and "select sum(beat)" not in it]
    assert not rest
    assert len(own) <= now - beats + 1
    assert operon.__name__ == "operon"


def _beats(server: Postgres) -> int:
    with psycopg.connect(server.database_url("idle"), autocommit=True) as connection:
        row = connection.execute("select sum(beat) from operon.executors").fetchone()
    assert row is not None
    return int(row[0])
