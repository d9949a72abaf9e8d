"""An open transaction, as the kernel and `transact` see it, and what opens one; it must not know any driver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

from operon.datasources.call import block, wait
from operon.errors import StoreError, TransactionEnded

if TYPE_CHECKING:
    from operon.core.commands import Op
    from operon.core.ledger import Work
    from operon.datasources.line import Line

Rows: TypeAlias = Sequence[tuple[Any, ...]]
"""What a statement gave; one empty row for each row that it wrote without returning any."""

Parameters: TypeAlias = Mapping[str, Any]


class Opened(ABC):
    """A transaction that is open: the caller's, which is only joined, or one of ours."""

    asynchronous = False

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        """What the user's code works with: a connection or a session."""
        self.queries: Mapping[str, str] = {}
        self.callbacks: list[Callable[[], None]] = []
        self.over = False
        self.confirm: Callable[[], Op[None]] = _nothing
        """Raises if it is not where the queries belong."""

    def execute(self, query: str, parameters: Parameters) -> Any:
        """Execute one of the store's named queries in it; gives rows, or an awaitable of rows."""
        if self.over:
            raise ended()
        op = self._execute(self.queries[query], parameters)
        return wait(op) if self.asynchronous else block(op)

    def _execute(self, statement: str, parameters: Parameters) -> Op[Rows]:
        yield from self.confirm()
        return (yield from self.rows(statement, parameters))

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call this once it has committed; never, where the commit is the caller's."""
        self.callbacks.append(callback)

    def raw(self) -> Op[object]:
        """Give the driver's own connection."""
        yield from ()
        return self.handle

    @abstractmethod
    def rows(self, statement: str, parameters: Parameters) -> Op[Rows]:
        """Execute a statement with `:name` parameters."""


def _nothing() -> Op[None]:
    yield from ()


class Transaction(Opened):
    """A transaction of ours: begun, to be committed or rolled back, its connection to be given back."""

    idle: float = inf
    """Seconds without a statement after which its server ends it, where its driver does not say that it did."""

    @property
    def broken(self) -> bool:
        """Whether the connection is known to be lost."""
        return False

    @property
    def tempted(self) -> bool:
        """Whether the user's code tried to end it, and was not let."""
        return False

    def flush(self) -> Op[None]:
        """Send the database what the user's session still keeps."""
        yield from ()

    @abstractmethod
    def check(self) -> Op[None]:
        """Raise if the transaction is not the one that was begun, or can no longer commit.

        Raises:
            TransactionEnded: it was committed or rolled back under us.
            StoreError: a statement failed, and the user's code went on as if it had not.
        """

    @abstractmethod
    def commit(self) -> Op[None]:
        """Commit and give the connection back; once this returns, the rows are durable."""

    @abstractmethod
    def rollback(self) -> Op[None]:
        """Undo everything and give the connection back, whatever state it is in."""

    @abstractmethod
    def abandon(self) -> None:
        """Drop the connection without a word; its server rolls back."""

    @property
    def stoppable(self) -> bool:
        """Whether `interrupt` does what is needed, and not the cancellation of a task."""
        return not self.asynchronous

    def sever(self) -> None:
        """Break its connection, from another thread: a server that takes no cancellation may not answer at all."""

    def interrupt(self) -> None:
        """Cancel what it executes, from another thread; nothing where it executes nothing."""

    def insist(self) -> None:
        """Cancel once more what it executes, on its own loop: its driver has asked already, perhaps too early."""


class Adapter(Protocol):
    """Opens transactions of one kind: of one type of connection or session, in one database."""

    @property
    def line(self) -> Line | None:
        """Where to wait for a connection; a pool of the user's has its own limits."""
        ...

    def begin(self, work: Work) -> Op[Transaction]:
        """Open a transaction as the work wants it."""
        ...

    def glance(self, statement: str, parameters: Parameters) -> Op[Rows]:
        """Execute one statement as a transaction of its own, outside of any other."""
        ...


def refuse(*_args: object, **_kwargs: object) -> NoReturn:
    """Stand in for `commit`, `rollback` and `close` while a transaction is ours."""
    raise ended()


def ended() -> TransactionEnded:
    """Say that only we may end a transaction."""
    return TransactionEnded(
        "Operon commits this transaction together with its record, so it must not end inside the function: "
        "return to commit it, raise to roll it back; for a part that may fail use a savepoint."
    )


def unfinished() -> StoreError:
    """Say that what a transaction has begun to read or to write on its connection keeps it from being committed."""
    return StoreError(
        "The function returned while a stream or a copy on its connection was under way, so nothing was committed. "
        "Read or write it to its end, or close it, before the function returns."
    )


def swallowed() -> StoreError:
    """Say that a transaction in which a statement failed cannot commit."""
    return StoreError(
        "A statement of this transaction failed and its error was swallowed; the database has aborted the "
        "transaction, so nothing was committed. Let the error out, or run what may fail in a savepoint."
    )
