"""Transactions on connections of psycopg, blocking and awaited; it must not know what runs in them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from psycopg import AsyncConnection, Connection
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from operon.core.sql import pyformat
from operon.datasources import postgres
from operon.datasources.call import call, complete
from operon.datasources.insisting import insist
from operon.datasources.opened import Opened, Parameters, Rows, Transaction, ended, refuse, swallowed, unfinished

if TYPE_CHECKING:
    from operon.core.commands import Op
    from operon.core.ledger import Work
    from operon.datasources.datasource import Datasource
    from operon.datasources.opened import Adapter

GUARDED = ("commit", "rollback", "close")
LETTING_GO = 1.0
"""Seconds that a statement under way has to notice that its connection is broken."""


class Joined(Opened):
    """A connection that is open: the caller's."""

    def __init__(self, handle: Connection[Any] | AsyncConnection[Any]) -> None:
        super().__init__(handle)
        self.asynchronous = isinstance(handle, AsyncConnection)

    def rows(self, statement: str, parameters: Parameters) -> Op[Rows]:
        """Execute on a cursor of our own: the connection's rows may have any shape."""
        cursor = self.handle.cursor(row_factory=tuple_row)
        yield from call(cursor.execute, pyformat(statement), parameters)
        return (yield from call(cursor.fetchall)) if cursor.description else [()] * cursor.rowcount


class PsycopgTransaction(Joined, Transaction):
    """A transaction of ours, on a connection that commits by itself outside of it."""

    def __init__(self, handle: Any, pool: Any) -> None:
        super().__init__(handle)
        self.pool = pool
        self.shape = handle.row_factory
        self.autocommit = handle.autocommit
        self.name: str | None = None

    def begin(self, text: str) -> Op[None]:
        """Begin; from here on only we may end it."""
        yield from call(self.handle.set_autocommit, True)  # noqa: FBT003 - psycopg's own
        yield from call(self.handle.execute, text)
        self.name = self.handle.info.parameter_status("application_name")
        for method in GUARDED:
            setattr(self.handle, method, refuse)

    @property
    def broken(self) -> bool:
        """Whether the connection is known to be lost."""
        return bool(self.handle.closed)

    def check(self) -> Op[None]:
        """Compare what libpq knows of the transaction; asks the server nothing."""
        info = self.handle.info
        if info.transaction_status is TransactionStatus.INERROR:
            raise swallowed()
        if info.transaction_status is TransactionStatus.ACTIVE:
            raise unfinished()
        if info.transaction_status is not TransactionStatus.INTRANS or self.name != info.parameter_status(
            "application_name"
        ):
            raise ended()
        yield from ()

    def commit(self) -> Op[None]:
        """Commit, and believe only the server's word: a failed transaction answers ROLLBACK, without an error."""
        cursor = yield from complete(lambda: self.handle.execute("commit"))
        if cursor.statusmessage != "COMMIT":
            raise swallowed()
        yield from self._release()

    def rollback(self) -> Op[None]:
        """Undo; what does not answer is closed, which undoes it too, and so is what was left half-done."""
        try:
            if self.handle.info.transaction_status is TransactionStatus.ACTIVE:
                yield from self._break_off()
            elif not self.broken and self.handle.info.transaction_status is not TransactionStatus.IDLE:
                yield from complete(lambda: self.handle.execute("rollback"))
        except Exception:
            self.abandon()
        finally:
            yield from self._release()

    def _break_off(self) -> Op[None]:
        """Close under a stream, a copy, a pipeline or a statement; a stream that somebody keeps never lets go."""
        self.sever()
        if self.asynchronous:
            yield from complete(lambda: _let_go(self.handle.lock))
        elif self.handle.lock.acquire(timeout=LETTING_GO):
            self.handle.lock.release()
        self.abandon()

    def abandon(self) -> None:
        """Close the socket."""
        self.handle.pgconn.finish()

    def interrupt(self) -> None:
        """Ask the server, on a connection of its own."""
        self.handle.cancel_safe(timeout=postgres.CANCELLING)

    def insist(self) -> None:
        """Ask the server again."""
        insist(self.handle)

    def sever(self) -> None:
        """Break the socket."""
        postgres.sever(self.handle.pgconn.socket)

    def _release(self) -> Op[None]:
        for method in GUARDED:
            self.handle.__dict__.pop(method, None)
        self.handle.row_factory = self.shape
        if not self.broken:
            yield from complete(lambda: self.handle.set_autocommit(self.autocommit))
        yield from complete(lambda: self.pool.putconn(self.handle))


class PsycopgAdapter:
    """Opens transactions on connections of a pool: the user's, or one that connects when it is first used."""

    def __init__(self, source: Datasource, handle: type) -> None:
        self.source = source
        asynchronous = issubclass(handle, AsyncConnection)
        self.make: Any = AsyncConnectionPool if asynchronous else ConnectionPool
        self.line = source.line(self.make, asynchronous=asynchronous)

    def begin(self, work: Work) -> Op[Transaction]:
        """Open one, in one message."""
        tx = yield from self._transaction()
        try:
            yield from tx.begin(postgres.begin(work, self.source.idle))
        except BaseException:
            yield from tx.rollback()
            raise
        return tx

    def glance(self, statement: str, parameters: Parameters) -> Op[Rows]:
        """Execute one statement that commits by itself."""
        tx = yield from self._transaction()
        try:
            yield from call(tx.handle.set_autocommit, True)  # noqa: FBT003 - psycopg's own
            return (yield from tx.rows(statement, parameters))
        finally:
            yield from tx.rollback()

    def _transaction(self) -> Op[PsycopgTransaction]:
        pool = self.source.given(self.make) or self.source.resource(self.make.__name__, self._pool)
        yield from call(pool.open)
        return PsycopgTransaction((yield from call(pool.getconn)), pool)

    def _pool(self) -> Any:
        settings: dict[str, Any] = {
            "min_size": 0,
            "max_size": self.source.size,
            "timeout": self.source.waiting,
            "open": False,
        }
        kwargs = {"autocommit": True, **postgres.ENCODING, **postgres.network(self.source.conninfo)}
        return self.make(self.source.conninfo, kwargs=kwargs, **settings)


async def _let_go(lock: asyncio.Lock) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(LETTING_GO), lock:
            pass


def adapter(source: Datasource, handle: type) -> Adapter:
    """Give the adapter of either colour."""
    return PsycopgAdapter(source, handle)


def join(handle: Connection[Any] | AsyncConnection[Any]) -> Opened:
    """See a connection of the caller as an open transaction."""
    return Joined(handle)
