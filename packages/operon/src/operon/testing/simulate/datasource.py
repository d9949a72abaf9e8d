"""A datasource whose database is simulated: its connections are late and lost as those of the store are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from operon.app.app import Operon
from operon.core.commands import Op
from operon.core.function import Function
from operon.core.ledger import Done, Ledger, Work
from operon.datasources.call import call, complete
from operon.datasources.foreign import QUERIES, Foreign
from operon.datasources.opened import Rows, Transaction, swallowed
from operon.datasources.transact import transact
from operon.testing.simulate.database import DatabaseError
from operon.testing.simulate.process import Process
from operon.testing.simulate.user_tables import Session, UserTables
from operon.testing.simulate.wire import Wire

T = TypeVar("T")


class Simulated(Operon):
    """An app whose transactions run in simulated databases."""

    sources: Mapping[str | None, Source]
    """By the name of the datasource; None is where the journal is."""

    def transact(self, function: Function, work: Work, ledger: Ledger | None) -> Op[Done]:
        """Run one transaction on the datasource that the function means."""
        return self.sources[function.rules.datasource].transact(work, ledger)

    def remembers(self, function: Function) -> bool:
        """Whether the function's transactions run in the database that holds the journal."""
        return function.rules.datasource is None


class Connection:
    """What the user's code works with; each statement goes to the server and comes back, or is lost."""

    def __init__(self, tables: UserTables, process: Process, wire: Wire) -> None:
        self.session = Session(tables, process)
        self.lost = False
        self.failed = False
        self._wire = wire

    async def look(self, purse: str) -> int:
        """Ask what is in a purse."""
        return await self.said(lambda: self.session.balance(purse))

    async def spend(self, purse: str, left: int, key: str, value: str) -> None:
        """Take money from a purse for an operation."""
        await self.said(lambda: self.session.spend(purse, left, key, value))

    async def orphan(self) -> None:
        """Break a deferred constraint."""
        await self.said(self.session.orphan)

    async def said(self, work: Callable[[], T]) -> T:
        """Have the server execute something in the transaction."""
        if self.lost:
            raise DatabaseError("the connection is closed", None)
        if self.failed:
            raise DatabaseError("current transaction is aborted", "25P02")
        try:
            return await self._wire.say(lambda: self.session.perform(work))
        except DatabaseError as error:
            self.failed = True
            self.lost = error.sqlstate is None
            raise


class SimulatedTransaction(Transaction):
    """A transaction of ours on such a connection."""

    asynchronous = True

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.connection = connection

    @property
    def broken(self) -> bool:
        """Whether the connection is known to be lost."""
        return self.connection.lost

    def rows(self, statement: str, parameters: Mapping[str, Any]) -> Op[Rows]:
        """Execute one of our statements."""
        session = self.connection.session
        rows: Rows = yield from call(self.connection.said, lambda: session.execute(statement, parameters))
        return rows

    def check(self) -> Op[None]:
        """See whether a statement has failed."""
        yield from ()
        if self.connection.failed:
            raise swallowed()

    def commit(self) -> Op[None]:
        """Commit, to the end."""
        session = self.connection.session

        def commit() -> None:
            session.over = True
            session.tables.commit(session)

        yield from complete(lambda: self.connection.said(commit))

    def rollback(self) -> Op[None]:
        """Undo everything."""
        yield from ()
        self.abandon()

    def abandon(self) -> None:
        """Close the connection; the server hears of it, unless it is lost already."""
        if not self.connection.lost:
            self.connection.session.over = True


class Source:
    """One process's datasource; of the journal's own database, or of another one."""

    line = None

    def __init__(self, tables: UserTables, process: Process, wire: Wire, *, main: bool) -> None:
        self.tables = tables
        self.queries = wire.queries if main else QUERIES["postgres"]
        self.main = main
        self._process = process
        self._wire = wire

    def transact(self, work: Work, ledger: Ledger | None) -> Op[Done]:
        """Run a transaction, as any datasource does."""
        if ledger is not None and not self.main:
            ledger = Foreign(ledger, self, "postgres", "")
        return (yield from transact(self, work, ledger, self.queries, self._process.random))

    def begin(self, work: Work) -> Op[Transaction]:
        """Open a transaction."""
        del work
        return SimulatedTransaction((yield from call(self._connected)))

    def glance(self, statement: str, parameters: Mapping[str, Any]) -> Op[Rows]:
        """Execute one statement that commits by itself."""
        tx = SimulatedTransaction((yield from call(self._connected)))
        try:
            return (yield from tx.rows(statement, parameters))
        finally:
            tx.abandon()

    async def _connected(self) -> Connection:
        return await self._wire.say(lambda: Connection(self.tables, self._process, self._wire))
