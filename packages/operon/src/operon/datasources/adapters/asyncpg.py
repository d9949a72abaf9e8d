"""Transactions on connections of asyncpg; it must not know what runs in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import asyncpg

from operon.core.addresses import NETWORK
from operon.core.sql import numbered
from operon.core.sql import parameters as names_of
from operon.datasources import postgres
from operon.datasources.call import call, complete
from operon.datasources.insisting import insist
from operon.datasources.opened import Opened, Parameters, Rows, Transaction, ended, refuse, swallowed

if TYPE_CHECKING:
    from operon.core.commands import Op
    from operon.core.ledger import Work
    from operon.datasources.datasource import Datasource
    from operon.datasources.opened import Adapter


class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg ships no types
    """A connection that nobody closes while a transaction is ours."""

    __slots__ = ("ours",)

    async def close(self, **options: Any) -> None:
        """Refuse, inside a transaction of ours."""
        if getattr(self, "ours", False):
            refuse()
        await super().close(**options)  # pyright: ignore[reportUnknownMemberType]


class Joined(Opened):
    """A connection that is open: the caller's."""

    asynchronous = True

    def rows(self, statement: str, parameters: Parameters) -> Op[Rows]:
        """Execute it; what wrote has to say `returning`."""
        values = [parameters[name] for name in names_of(statement)]
        rows = yield from call(self.handle.fetch, numbered(statement), *values)
        return [tuple(row) for row in rows]


class AsyncpgTransaction(Joined, Transaction):
    """A transaction of ours, begun through asyncpg, so that its own nested ones are savepoints."""

    def __init__(self, handle: Any, pool: Any) -> None:
        super().__init__(handle)
        self.pool = pool
        self.transaction: Any = None
        self.name: str | None = None

    def begin(self, work: Work, idle: float) -> Op[None]:
        """Begin; from here on only we may end it."""
        isolation = work.isolation.replace(" ", "_")
        transaction = self.handle.transaction(isolation=isolation, readonly=work.read_only)
        yield from call(transaction.start)
        self.transaction, self.idle = transaction, idle
        yield from call(self.handle.execute, postgres.settings(work, idle))
        self.name = self.handle.get_settings().application_name
        self._guard(ours=True)

    @property
    def broken(self) -> bool:
        """Whether the connection is known to be lost."""
        released = self.handle._con is None  # noqa: SLF001 - as in `_guard`; a pool drops what is lost by itself
        return bool(released or self.handle.is_closed())

    def check(self) -> Op[None]:
        """See whether it is still ours; a statement is the only way to ask whether one has failed."""
        try:
            yield from call(self.handle.fetch, "select 1")
        except asyncpg.InFailedSQLTransactionError as error:
            raise swallowed() from error
        if not self.handle.is_in_transaction() or self.name != self.handle.get_settings().application_name:
            raise ended()

    def commit(self) -> Op[None]:
        """Commit; that no statement failed is known, from the record's or from `check`."""
        self._guard(ours=False)
        yield from complete(self.transaction.commit)
        yield from complete(lambda: self.pool.release(self.handle))

    def rollback(self) -> Op[None]:
        """Undo; what does not answer is closed, which undoes it too."""
        self._guard(ours=False)
        try:
            if self.transaction is not None and not self.broken and self.handle.is_in_transaction():
                yield from complete(self.transaction.rollback, self.insist)
        except Exception:
            self.abandon()
        finally:
            yield from complete(lambda: self.pool.release(self.handle))

    def abandon(self) -> None:
        """Close the socket."""
        self.handle.terminate()

    def insist(self) -> None:
        """Ask the server again."""
        insist(self.handle._con)  # noqa: SLF001 - as in `_guard`

    def _guard(self, *, ours: bool) -> None:
        raw: Any = self.handle._con  # noqa: SLF001 - asyncpg hands out proxies, and has no word for what is behind
        if isinstance(raw, Connection):
            raw.ours = ours


class AsyncpgAdapter:
    """Opens transactions on connections of a pool: the user's, or one that connects when it is first used."""

    def __init__(self, source: Datasource) -> None:
        self.source = source
        self.line = source.line(asyncpg.Pool, asynchronous=True)

    def begin(self, work: Work) -> Op[Transaction]:
        """Open one."""
        tx = yield from self._transaction()
        try:
            yield from tx.begin(work, self.source.idle)
        except BaseException:
            yield from tx.rollback()
            raise
        return tx

    def glance(self, statement: str, parameters: Parameters) -> Op[Rows]:
        """Execute one statement that commits by itself."""
        tx = yield from self._transaction()
        try:
            return (yield from tx.rows(statement, parameters))
        finally:
            yield from tx.rollback()

    def _transaction(self) -> Op[AsyncpgTransaction]:
        pool = self.source.given(asyncpg.Pool) or self.source.resource("asyncpg", self._pool)
        yield from call(lambda: pool)  # a pool is an awaitable that opens it, once
        return AsyncpgTransaction((yield from call(pool.acquire, timeout=self.source.waiting)), pool)

    def _pool(self) -> Any:
        make = cast("Any", asyncpg).create_pool  # asyncpg ships no types
        settings = {"min_size": 0, "max_size": self.source.size, "timeout": NETWORK["connect_timeout"]}
        return make(self.source.conninfo, connection_class=Connection, init=_watch, **settings)


async def _watch(handle: Any) -> None:
    watch(handle)


def watch(handle: Any) -> None:
    """Have a connection lost when its network swallows what is sent, as libpq's are."""
    transport = getattr(handle, "_transport", None)  # asyncpg has no word for it either
    if transport is not None:
        postgres.watch(transport.get_extra_info("socket"))


def adapter(source: Datasource, _handle: type) -> Adapter:
    """Give the adapter; asyncpg has one colour."""
    return AsyncpgAdapter(source)


def join(handle: Any) -> Opened:
    """See a connection of the caller as an open transaction."""
    return Joined(handle)
