"""A connection to one file, as Operon wants it; it must not know what it is used for."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from operon.stores import queries

if TYPE_CHECKING:
    from collections.abc import Generator

SQL = queries.load("operon.stores.sqlite")


class Connection(sqlite3.Connection):
    """Runs statements by name, each in a transaction only where one was begun."""

    def run(self, statement: str, /, **parameters: Any) -> sqlite3.Cursor:
        """Execute a named statement."""
        return self.execute(SQL[statement], parameters)

    def one(self, statement: str, /, **parameters: Any) -> Any:
        """Execute a named statement and give its first row, or None."""
        return self.run(statement, **parameters).fetchone()

    def changes(self, statement: str, /, **parameters: Any) -> int:
        """Execute a named statement and say how many rows it changed."""
        return self.run(statement, **parameters).rowcount

    @contextmanager
    def savepoint(self) -> Generator[None]:
        """Undo what is done within, and nothing else, if it raises."""
        self.execute("savepoint command")
        try:
            yield
        except BaseException:
            if self.in_transaction:
                self.execute("rollback to command")
            raise
        finally:
            if self.in_transaction:
                self.execute("release command")

    @contextmanager
    def writing(self) -> Generator[None]:
        """Enter a transaction that has the right to write from its beginning; leave no other behind."""
        if self.in_transaction:
            self.rollback()
        self.execute("begin immediate")
        try:
            yield
            self.execute("commit")
        finally:
            if self.in_transaction:
                self.rollback()


def connect(path: str) -> Connection:
    """Open a connection that any thread may use, one at a time; it never waits for a lock, its caller does.

    What somebody wrote that is no text is read as one that shows it.
    """
    connection = sqlite3.connect(
        path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=64, factory=Connection
    )
    connection.row_factory = sqlite3.Row
    connection.text_factory = partial(str, encoding="utf-8", errors="backslashreplace")
    return connection


def connect_writer(path: str) -> Connection:
    """Open a connection whose commits survive a loss of power."""
    connection = connect(path)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    return connection


def connect_reader(path: str) -> Connection:
    """Open a connection that cannot write."""
    connection = connect(path)
    connection.execute("pragma query_only = on")
    return connection
