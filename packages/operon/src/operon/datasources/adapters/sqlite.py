"""Transactions on connections of sqlite3; it must not know what runs in them."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from operon.datasources.call import call
from operon.datasources.opened import Opened, Parameters, Rows, Transaction, ended

if TYPE_CHECKING:
    from operon.core.commands import Op
    from operon.core.ledger import Work
    from operon.datasources.datasource import Datasource
    from operon.datasources.line import Line
    from operon.datasources.opened import Adapter
    from operon.datasources.turn import Turn


class Joined(Opened):
    """A connection that is open: the caller's."""

    handle: Any

    def rows(self, statement: str, parameters: Parameters) -> Op[Rows]:
        """Execute on a cursor of our own: the connection's rows may have any shape."""
        cursor = self.handle.cursor()
        cursor.row_factory = None
        yield from call(cursor.execute, statement, parameters)
        return cursor.fetchall() if cursor.description else [()] * cursor.rowcount


class Warden:
    """SQLite asks it before it compiles a statement: while it keeps watch, none ends the transaction."""

    def __init__(self) -> None:
        self.watching = False
        self.tempted = False

    def __call__(self, action: int, *_: str | None) -> int:
        """Deny `commit` and `rollback`, however they are spelled; savepoints are another action."""
        if self.watching and action == sqlite3.SQLITE_TRANSACTION:
            self.tempted = True
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK


class Connection(sqlite3.Connection):
    """A connection that only we can commit while a transaction is ours, and that knows what reads on it."""

    warden: Warden
    readers: WeakSet[Any]

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Make a cursor, and note it."""
        made = super().cursor(*args, **kwargs)
        self.readers.add(made)
        return made

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """Execute on a cursor that is noted, which Python's own would not be."""
        cursor: sqlite3.Cursor = self.cursor().execute(*args)
        return cursor

    def blobopen(self, *args: Any, **kwargs: Any) -> Any:
        """Open a blob, and note it."""
        made = super().blobopen(*args, **kwargs)
        self.readers.add(made)
        return made

    def end_reads(self) -> None:
        """Close what somebody still has: half-read, it keeps its snapshot beyond the transaction, or a commit out."""
        for reader in tuple(self.readers):
            reader.close()

    def commit(self) -> None:
        """Refuse, inside a transaction of ours."""
        self._permit()
        super().commit()

    def rollback(self) -> None:
        """Refuse, inside a transaction of ours."""
        self._permit()
        super().rollback()

    def close(self) -> None:
        """Refuse, inside a transaction of ours."""
        self._permit()
        super().close()

    def _permit(self) -> None:
        if self.warden.watching:
            raise ended()


class SqliteTransaction(Joined, Transaction):
    """A transaction of ours; the writer's lock is held as long as it is open."""

    def __init__(self, handle: Connection, adapter: SqliteAdapter, *, read_only: bool) -> None:
        super().__init__(handle)
        self.adapter = adapter
        self.read_only = read_only
        self.writing = False

    def begin(self) -> Op[None]:
        """Begin; a writer with the right to write from the start, so that it never has to give up half-way."""
        if self.read_only:
            yield from call(self.handle.execute, "pragma query_only = on")
            yield from call(self.handle.execute, "begin")
        else:
            yield from self.adapter.turn.take(asynchronous=False)
            self.writing = True
            yield from call(self.handle.execute, "begin immediate")
        self.handle.warden.tempted = False
        self.handle.warden.watching = True

    @property
    def tempted(self) -> bool:
        """Whether the user's code spelled a commit or a rollback."""
        return bool(self.handle.warden.tempted)

    def check(self) -> Op[None]:
        """Ask the connection, not the database."""
        if self.tempted or not self.handle.in_transaction:
            raise ended()
        yield from ()

    def commit(self) -> Op[None]:
        """Commit, and let the next one write."""
        self.handle.warden.watching = False
        self.handle.end_reads()
        yield from call(self.handle.commit)
        self._release()

    def rollback(self) -> Op[None]:
        """Undo, and let the next one write."""
        self.abandon()
        yield from ()

    def abandon(self) -> None:
        """Undo, and let the next one write."""
        self.handle.warden.watching = False
        try:
            self.handle.rollback()
        finally:
            self._release()

    def interrupt(self) -> None:
        """Stop the statement; SQLite lets another thread do that."""
        self.handle.interrupt()

    def _release(self) -> None:
        if self.read_only:
            self.handle.execute("pragma query_only = off")
        if self.writing:
            self.adapter.turn.give()
            self.writing = False
        self.adapter.keep(self.handle)


class SqliteAdapter:
    """Opens transactions on connections to one file."""

    def __init__(self, path: str, turn: Turn) -> None:
        self.path = path
        self.turn = turn
        self.line: Line | None = None
        self.idle: list[Connection] = []

    def begin(self, work: Work) -> Op[Transaction]:
        """Open one, when it is its turn; every isolation level is serializable here."""
        tx = SqliteTransaction(self._connection(), self, read_only=work.read_only)
        try:
            yield from tx.begin()
        except BaseException:
            tx.abandon()
            raise
        return tx

    def glance(self, statement: str, parameters: Parameters) -> Op[Rows]:
        """Execute one statement that commits by itself."""
        tx = SqliteTransaction(self._connection(), self, read_only=True)
        try:
            return (yield from tx.rows(statement, parameters))
        finally:
            tx.abandon()

    def _connection(self) -> Connection:
        try:
            return self.idle.pop()
        except IndexError:
            return connect(self.path)

    def keep(self, connection: Connection) -> None:
        """Keep a connection for the next transaction, as new."""
        connection.end_reads()
        connection.row_factory = None
        connection.text_factory = str
        self.idle.append(connection)

    def close(self) -> None:
        """Close what is not in use."""
        while self.idle:
            self.idle.pop().close()


def adapter(source: Datasource, _handle: type) -> Adapter:
    """Give the file's adapter; all transactions on it share its connections."""
    opened: SqliteAdapter = source.resource("sqlite3", lambda: SqliteAdapter(source.path, source.turn))
    return opened


def join(handle: sqlite3.Connection) -> Opened:
    """See a connection of the caller as an open transaction."""
    return Joined(handle)


def connect(path: str) -> Connection:
    """Open a connection on which only explicit statements begin and end transactions."""
    connection = sqlite3.connect(
        path,
        timeout=5.0,
        isolation_level=None,
        check_same_thread=False,
        factory=Connection,
        uri=path.startswith("file:"),
    )
    connection.warden = Warden()
    connection.readers = WeakSet()
    connection.set_authorizer(connection.warden)
    return connection
