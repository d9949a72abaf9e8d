"""What the engine needs of a database, whichever it is; the implementations are in `operon/stores`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Literal, Protocol, TypeVar

from operon.core.commands import Command

T = TypeVar("T")


class Lock(Protocol):
    """A mutual exclusion that any thread may release."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, waiting at most so many seconds; answers whether it was taken."""
        ...

    def release(self) -> None:
        """Give it back."""
        ...


class Store(Protocol):
    """Answers commands, durably: an answer to a write is given only after its commit.

    Transient faults (a lost connection, a deadlock, a full disk) are retried inside the store until `patience`
    seconds have passed, and then raised as `StoreUnavailable`; a write whose commit was ambiguous is resolved
    before it is answered.
    """

    url: str
    """Where the database is, without its password."""

    dialect: Literal["postgres", "sqlite", "memory"]

    queries: Mapping[str, str]
    """Named statements, with `:name` parameters, for the user's own connection (see `operon/datasources`).

    `lock` (Postgres), `record`, `settle` (the workflow row of a one-transaction workflow), `join` and `joined`.
    """

    writer: Lock | None
    """Held by whoever writes, the store and the user's transactions alike, where a database has one writer."""

    def open(self, *, migrate: bool = True, adopt: bool = False) -> None:
        """Connect and bring the schema up to date.

        With `migrate=False`, raise SchemaMismatch if it is not; with `adopt=True`, accept a copied database.

        Raises:
            StoreUnavailable: no connection after some tries.
            SchemaMismatch: the schema is newer than this code, or older and may not be migrated.
            ForeignDatabase: the database is a copy of another one.
        """
        ...

    def ask(self, command: Command[T]) -> T:
        """Answer a command, blocking this thread, which may do the work itself and that of others waiting."""
        ...

    def submit(self, command: Command[T], then: Callable[[Future[T]], object] | None = None) -> Future[T]:
        """Answer a command later, never blocking the caller longer than the inbox is full; and call this first."""
        ...

    def listen(self, heard: Callable[[str], None]) -> None:
        """Call this, on a thread of the store's, whenever another process may have said a word with `shout`.

        A hint, which may be lost, repeated, or come for nothing: the heartbeat finds what no word was heard of.
        """
        ...

    def shout(self, word: str) -> None:
        """Tell all who listen; never blocks.

        `ready`: something is to be claimed. `later`: something will be. `cancelled`: something was.
        """
        ...

    def close(self) -> None:
        """Finish what was submitted and disconnect; closing twice is harmless."""
        ...
