"""What a SQLite file says of the migrations applied to it."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from operon.stores.migrations import Migration
    from operon.stores.sqlite.connection import Connection


class SqliteLedger:
    """Reads and writes `operon_migrations` on one connection, whose owner holds the writer's lock."""

    def __init__(self, connection: Connection, now: float) -> None:
        self._connection = connection
        self._now = now

    def applied(self) -> Mapping[int, tuple[str, str]]:
        """Give name and checksum of each."""
        if self._connection.one("schema") is None:
            return {}
        return {number: (name, checksum) for number, name, checksum in self._connection.run("migrations")}

    def lock(self) -> AbstractContextManager[None]:
        """Enter a transaction that no other process can enter."""
        return self._connection.writing()

    def apply(self, migration: Migration) -> None:
        """Run a script within that transaction: `executescript` would commit it."""
        for statement in statements(migration.script):
            self._connection.execute(statement)
        noted = {"number": migration.number, "name": migration.title, "checksum": migration.checksum}
        self._connection.run("note", **noted, now=self._now)


def statements(script: str) -> Iterator[str]:
    """Split a script where SQLite says that a statement is complete."""
    text = ""
    for line in script.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            yield text
            text = ""
