"""How a transaction of the user leaves its record: what a datasource executes for the kernel, and nothing more.

The record is the last statement before the commit, on the user's own connection, so that both are one commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from msgspec import Struct

from operon.core.commands import Op

Isolation = Literal["serializable", "repeatable read", "read committed"]


class Statement(Struct, frozen=True):
    """One of the store's named queries and its parameters; exactly one row must come back, or be written."""

    query: str
    parameters: Mapping[str, str | int | float | None]
    otherwise: Callable[[], BaseException]
    """What to raise, after a rollback, when no row is affected."""


class Adopted(Struct, frozen=True):
    """What an earlier attempt recorded."""

    output: str


class Ledger(Protocol):
    """Keeps the record of one transaction."""

    @property
    def key(self) -> tuple[str, str]:
        """The workflow's id and the position: under this, another database than the journal's keeps its own record."""
        ...

    def check(self) -> None:
        """Raise what has ended the run that this is for, if anything has."""
        ...

    def opening(self) -> tuple[Statement, ...]:
        """What is executed before the user's code, inside the transaction."""
        ...

    def closing(self, output: str) -> tuple[Statement, ...]:
        """What is executed after the user's code, as the last thing before the commit."""
        ...

    def adopt(self) -> Op[Adopted | None]:
        """Ask the store, after a duplicate record, a serialization failure or a lost answer, whether it is done.

        None: it is not, and may be tried again. Raises the recorded error, or what fenced this run.
        """
        ...


class Work(Struct, frozen=True):
    """One transaction to be run."""

    name: str
    body: Callable[[Any], Any]
    """The user's function, waiting for its connection or session; gives an awaitable if it is async."""
    encode: Callable[[Any], tuple[str, Any]]
    """Makes the recorded form of the result, and reads it back: the caller sees what a replay would see."""
    decode: Callable[[str], Any]
    """Reads back a recorded result, when an earlier attempt turns out to have committed."""
    isolation: Isolation = "serializable"
    read_only: bool = False


class Done(Struct, frozen=True):
    """What came of a transaction."""

    output: str
    value: Any
    recorded: bool
    """Whether the record was part of the commit; if not, the caller has still to write it."""
