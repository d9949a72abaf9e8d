"""A card processor, as somebody else runs it: it has books of its own, and knows nothing of Operon or the shop.

Like the real ones it takes an idempotency key: a key it has seen gets the answer it got before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

BOOKS = """
create table if not exists charges (id integer primary key, key text unique not null, card text, cents integer);
create table if not exists calls (key text not null);
"""


class CardDeclined(Exception):
    """The bank said no."""


@dataclass(frozen=True)
class Charge:
    """One charge of a card, and how often we were asked for it."""

    card: str
    cents: int
    calls: int


class Payments:
    def __init__(self, path: str) -> None:
        self.path = path

    def charge(self, card: str, cents: int, *, key: str) -> str:
        """Take the money, once per key; returns the number of the charge."""
        with self._books() as books:
            books.execute("insert into calls values (?)", [key])
            if card.startswith("declined"):
                raise CardDeclined("The card was declined.")
            books.execute(
                "insert into charges (key, card, cents) values (?, ?, ?) on conflict do nothing", [key, card, cents]
            )
            (number,) = books.execute("select id from charges where key = ?", [key]).fetchone()
        return f"C{number:06}"

    def charges(self) -> list[Charge]:
        """The books, for whoever wants to check them."""
        with self._books() as books:
            rows = books.execute(
                "select card, cents, (select count(*) from calls where key = charges.key) from charges order by id"
            )
            return [Charge(*row) for row in rows]

    @contextmanager
    def _books(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=30)) as books:
            books.execute("pragma journal_mode = wal")
            books.executescript(BOOKS)
            with books:
                yield books
