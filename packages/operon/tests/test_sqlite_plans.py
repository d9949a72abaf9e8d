"""Which indexes SQLite takes: it never counts its rows, so it takes the same with none and with ten million."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from operon.core import sql
from operon.stores.sqlite import SqliteStore
from operon.stores.sqlite.connection import SQL, Connection, connect

TABLES: Final = "operon_(?:workflows|steps|awaits)"
LARGE: Final = re.compile(rf"\b({TABLES}) +(?!where|set|on|order)(?:as +)?(\w*)")
ALIVE: Final = ("ready", "running", "line", "due", "admitted", "cleanups", "emptying")
"""Indexes that hold what is alive or to be swept, and few of all: they may be read from one end."""
STATEMENTS: Final = [
    name
    for name, text in SQL.items()
    if text.lstrip().lower().startswith(("select", "with", "insert", "update", "delete"))
]
KNOWN: Final = {
    "take_over": "in the order of ids: until so many orphans are found, in the index of all",
    "queues": "no index has all that is queued: what is in line is in one, what is delayed in another",
}
"""What reads all nevertheless, and why; who mends one takes it out."""


@pytest.fixture
def connection(sqlite_path: Path) -> Iterator[Connection]:
    """A connection to a database that has the schema."""
    with closing(SqliteStore(f"sqlite:///{sqlite_path}")) as store:
        store.open()
        with closing(connect(str(sqlite_path))) as made:
            yield made


def test_no_statement_reads_all_workflows(connection: Connection) -> None:
    """Each searches an index, or reads one of what is alive; neither a whole table, nor an index of all of it."""
    reading = {name: plan for name in STATEMENTS if any(map(reads_all, plan := explained(connection, name)))}
    assert reading.keys() == KNOWN.keys(), reading


def explained(connection: Connection, name: str) -> list[str]:
    """Give the plan of a statement, where the large tables bear their own names."""
    text = SQL[name]
    tables = {alias: table for table, alias in LARGE.findall(text) if alias}
    rows = connection.execute(f"explain query plan {text}", dict.fromkeys(sql.parameters(text)))
    words = [row["detail"].split(" ") for row in rows]
    return [" ".join(tables.get(word, word) for word in line) for line in words]


def reads_all(line: str) -> bool:
    """Whether a table, or an index of all of it, is read from one end."""
    return bool(re.match(f"SCAN {TABLES}", line)) and not line.endswith(ALIVE)
