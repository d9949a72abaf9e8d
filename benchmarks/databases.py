"""The databases that are measured: a server of our own, and files; and how many statements the server is asked."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import psycopg
import psycopg.sql

from benchmarks.cases import BATCH
from operon.embedded import Postgres

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Databases:
    """One Postgres server, and a directory for SQLite's files on the same disk."""

    server: Postgres
    directory: Path

    @contextmanager
    def fresh(self, kind: str, *, logged: bool = False) -> Generator[str]:
        """Give the URL of an empty database of a kind, and drop it at the end.

        `logged`: the server writes each statement to its log, which costs time.
        """
        name = f"bench{next(_numbers)}"
        if kind == "postgres":
            try:
                url = self.server.create_database(name)
                if logged:
                    with psycopg.connect(url, autocommit=True) as connection:
                        connection.execute(
                            psycopg.sql.SQL("alter database {} set log_statement = 'all'").format(
                                psycopg.sql.Identifier(name)
                            )
                        )
                yield url
            finally:
                self.server.drop_database(name)
        elif kind == "sqlite":
            try:
                yield f"sqlite:///{self.directory}/{name}.db"
            finally:
                for file in self.directory.glob(f"{name}.db*"):
                    file.unlink()
        else:
            yield ""


class Bare(Protocol):
    """A database without anything around it: the floor."""

    def commit(self) -> object:
        """Insert one row, and commit."""

    def rows(self, number: int) -> object:
        """Insert so many rows, and commit once."""

    def drain(self, number: int) -> None:
        """Take so many rows off a line and end each, a hundred at a time."""

    def transaction(self) -> object:
        """Insert two rows in one transaction of the user's: theirs, and one more."""


class BarePostgres:
    """Postgres by psycopg and nothing else."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        connection.execute("create table if not exists bare (id bigserial primary key, status int, value text)")
        connection.execute("create index if not exists bare_line on bare (id) where status = 0")

    def commit(self) -> object:
        """Insert one row, and commit."""
        return self._connection.execute("insert into bare (status, value) values (1, '7')", prepare=True)

    def rows(self, number: int) -> object:
        """Insert so many rows, sent as one array, and commit once."""
        values = ["7"] * number
        return self._connection.execute(
            "insert into bare (status, value) select 0, unnest(%s::text[])", [values], prepare=True
        )

    def drain(self, number: int) -> None:
        """Claim a hundred, end a hundred, two commits."""
        self._connection.execute("update bare set status = 2")
        self.rows(number)
        while taken := self._connection.execute(
            "update bare set status = 1 where id in (select id from bare where status = 0 order by id limit 100 "
            "for update skip locked) returning id",
            prepare=True,
        ).fetchall():
            ids = [row[0] for row in taken]
            self._connection.execute("update bare set status = 2 where id = any(%s::bigint[])", [ids], prepare=True)

    def transaction(self) -> object:
        """Insert two rows in one transaction."""
        with self._connection.transaction():
            self._connection.execute("insert into bare (status, value) values (1, '7')", prepare=True)
            return self._connection.execute("insert into bare (status, value) values (1, '8')", prepare=True)


class BareSqlite:
    """SQLite by its own module and nothing else."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=full")
        connection.execute("create table if not exists bare (id integer primary key, status int, value text)")
        connection.execute("create index if not exists bare_line on bare (id) where status = 0")

    def commit(self) -> object:
        """Insert one row, and commit."""
        return self._connection.execute("insert into bare (status, value) values (1, '7')")

    def rows(self, number: int) -> object:
        """Insert so many rows, and commit once."""
        return self._within(
            lambda: self._connection.executemany(
                "insert into bare (status, value) values (0, ?)", (("7",) for _ in range(number))
            )
        )

    def drain(self, number: int) -> None:
        """Claim a hundred, end a hundred, two commits."""
        self._connection.execute("update bare set status = 2")
        self.rows(number)
        while taken := self._connection.execute(
            "update bare set status = 1 where id in (select id from bare where status = 0 order by id limit 100) "
            "returning id"
        ).fetchall():
            ids = list(taken)
            self._within(
                lambda ids=ids: self._connection.executemany(  # type: ignore[misc] # the default binds the loop's value
                    "update bare set status = 2 where id = ?", ids
                )
            )

    def transaction(self) -> object:
        """Insert two rows in one transaction."""

        def both() -> object:
            self._connection.execute("insert into bare (status, value) values (1, '7')")
            return self._connection.execute("insert into bare (status, value) values (1, '8')")

        return self._within(both)

    def _within(self, work: Callable[[], object]) -> object:
        self._connection.execute("begin immediate")
        done = work()
        self._connection.execute("commit")
        return done


@contextmanager
def bare(url: str) -> Generator[Bare]:
    """Connect to a database without anything around it; on SQLite, to another file, so that nobody waits for locks."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(file_of(url) + ".bare", isolation_level=None, check_same_thread=False)) as file:
            yield BareSqlite(file)
    else:
        with psycopg.connect(url, autocommit=True) as connection:
            yield BarePostgres(connection)


def file_of(url: str) -> str:
    """Give the path in a URL of SQLite's."""
    return url.removeprefix("sqlite:///")


def batches(number: int) -> Iterator[range]:
    """Cut so many into lots of a thousand."""
    for begin in range(0, number, BATCH):
        yield range(begin, min(begin + BATCH, number))
