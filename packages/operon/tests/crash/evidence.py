"""What is known after a campaign: the engine's rows, the user's rows, and what was seen outside; read by plain SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg

from crash.effects import Effect

SUCCEEDED = 4
ENDED = frozenset({4, 5, 6})

WORKFLOWS = "select id, name, status, claim, executor, parent, takeovers, output, error from $workflows order by id"
RECORDS = (
    "select workflow_id, position, ordinal, kind, name, attempt, claim, output, error, child from $steps order by 1, 2"
)


@dataclass(frozen=True, slots=True)
class Workflow:
    """A row of the engine's."""

    id: str
    name: str
    status: int
    claim: int
    executor: int | None
    parent: str | None
    takeovers: int
    output: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Record:
    """A row of a journal."""

    workflow: str
    position: str
    ordinal: int
    kind: str
    name: str
    attempt: int
    claim: int
    output: str | None
    error: str | None
    child: str | None


@dataclass(frozen=True, slots=True)
class Move:
    """A row of the user's."""

    key: str
    account: int
    cents: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything the laws are held against."""

    accepted: frozenset[str]
    """Ids whose start was acknowledged to somebody."""
    expected: dict[str, tuple[int, int]]
    """Every transfer that a completed set of orders makes: its key, the account and the cents."""
    workflows: tuple[Workflow, ...]
    records: tuple[Record, ...]
    moves: tuple[Move, ...]
    balances: dict[int, int]
    effects: tuple[Effect, ...]
    told: tuple[tuple[str, Any], ...] = ()
    """Results that callers were given: (id, value), each time one was."""


@dataclass(frozen=True, slots=True)
class Database:
    """Where a campaign runs, as its judge sees it: on connections of his own."""

    url: str

    @property
    def postgres(self) -> bool:
        """Whether it is a Postgres."""
        return self.url.startswith("postgres")

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one statement, with `?` for parameters and `$` before the engine's tables, and commit it."""
        text = statement.replace("$", "operon." if self.postgres else "operon_")
        if self.postgres:
            with psycopg.connect(self.url, autocommit=True) as connection:
                cursor = connection.execute(text.replace("?", "%s").encode(), parameters)
                return cursor.fetchall() if cursor.description else []
        with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=30, isolation_level=None)) as lite:
            return lite.execute(text, parameters).fetchall()

    def create(self, statements: Sequence[str]) -> None:
        """Make the user's tables."""
        for statement in statements:
            self.rows(statement)

    def workflows(self) -> tuple[Workflow, ...]:
        """Read every workflow."""
        return tuple(Workflow(*row) for row in self.rows(WORKFLOWS))

    def records(self) -> tuple[Record, ...]:
        """Read every journal."""
        return tuple(Record(*row) for row in self.rows(RECORDS))

    def moves(self) -> tuple[Move, ...]:
        """Read every transfer."""
        return tuple(Move(*row) for row in self.rows("select key, account, cents from moves"))

    def balances(self) -> dict[int, int]:
        """Read every account."""
        return {int(account): int(cents) for account, cents in self.rows("select id, cents from accounts")}

    def unfinished(self) -> int:
        """Count what has not ended."""
        return int(self.rows("select count(*) from $workflows where status < 4")[0][0])

    def patience(self) -> float:
        """Say for how long, at most, a takeover put off what has not ended: it was taken over too often of late."""
        (takeovers,) = self.rows("select coalesce(max(takeovers), 0) from $workflows where status < 4")[0]
        return 2.0 ** min(int(takeovers), 5)

    def held_by(self, executor: int) -> list[tuple[str, int, int]]:
        """List what an executor runs: (id, claim, takeovers)."""
        statement = "select id, claim, takeovers from $workflows where status = 1 and executor = ?"
        return [(row[0], row[1], row[2]) for row in self.rows(statement, executor)]
