"""Transactions on connections and sessions of SQLAlchemy, and so of SQLModel; it must not know what runs in them.

What is async in SQLAlchemy is a thin layer over what is not: here everything is done below it, spawned where it is
there. Our record goes to the driver's connection as the driver spells it, with no SQL compiler in between.
"""

from __future__ import annotations

from asyncio import CancelledError
from contextlib import suppress
from inspect import iscoroutine
from math import inf
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from operon.core.addresses import NETWORK
from operon.core.sql import numbered, pyformat
from operon.core.sql import parameters as names_of
from operon.datasources import postgres
from operon.datasources.call import call, complete
from operon.datasources.faults import sqlstate
from operon.datasources.insisting import insist
from operon.datasources.opened import Opened, Parameters, Rows, Transaction, ended, refuse, swallowed

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from operon.core.commands import Op
    from operon.core.ledger import Work
    from operon.datasources.datasource import Datasource
    from operon.datasources.opened import Adapter

GUARDED = ("commit", "rollback", "close", "reset")
MARK = "operon"
"""A savepoint that is gone if the transaction, in which it was the first statement, has ended."""
ASYNC_ONLY = {"asyncpg", "aiosqlite", "psycopg_async"}
LIBPQ = {"psycopg", "psycopg_async", "psycopg2"}


class Joined(Opened):
    """A connection or session that is open: the caller's, or ours."""

    def __init__(self, handle: Any) -> None:
        super().__init__(handle)
        self.asynchronous = isinstance(handle, AsyncConnection | AsyncSession)
        self.below: Any = handle
        if isinstance(handle, AsyncConnection):
            self.below = handle.sync_connection
        elif isinstance(handle, AsyncSession):
            self.below = handle.sync_session

    def connection(self) -> Connection:
        """Give the connection, which a session may first have to take."""
        connection: Connection = self.below.connection() if isinstance(self.below, Session) else self.below
        return connection

    def raw(self) -> Op[object]:
        """Give the driver's own connection."""
        return (yield from self.spawn(lambda: self.connection().connection.driver_connection))

    def rows(self, statement: str, parameters: Parameters) -> Op[Rows]:
        """Execute it where the user's own statements go."""
        rows: Rows = yield from self.spawn(lambda: execute(self.connection(), statement, parameters))
        return rows

    def spawn(self, fn: Callable[[], Any]) -> Op[Any]:
        """Call something of the blocking layer."""
        return call(greenlet_spawn, fn) if self.asynchronous else call(fn)


def execute(connection: Connection, statement: str, parameters: Parameters) -> Rows:
    """Execute on the driver's own connection, in the driver's own spelling."""
    style = connection.dialect.paramstyle
    if style == "pyformat":
        result = connection.exec_driver_sql(pyformat(statement), dict(parameters))
    elif style == "numeric_dollar":
        values = tuple(parameters[name] for name in names_of(statement))
        result = connection.exec_driver_sql(numbered(statement), values)
    else:  # SQLite's drivers understand names
        result = connection.exec_driver_sql(statement, dict(parameters))
    return [tuple(row) for row in result] if result.returns_rows else [()] * result.rowcount


def interrupt(driver: Any) -> None:
    """Cancel what a driver's connection executes: psycopg's way, psycopg2's, sqlite3's or aiosqlite's."""
    if hasattr(driver, "cancel_safe"):
        driver.cancel_safe(timeout=postgres.CANCELLING)
    elif hasattr(driver, "cancel"):
        driver.cancel()
    elif iscoroutine(done := driver.interrupt()):  # which waits for nothing
        with suppress(StopIteration):
            done.send(None)


class SqlalchemyTransaction(Joined, Transaction):
    """A transaction of ours, on a connection that is only its own."""

    def __init__(self, handle: Any, raw: Connection, adapter: SqlalchemyAdapter, *, read_only: bool) -> None:
        super().__init__(handle)
        self.lower = raw
        self.adapter = adapter
        self.read_only = read_only
        self.name: str | None = None
        self.driver: Any = None
        self.readers: WeakSet[Any] = WeakSet()

    def begin(self, settings: str) -> None:
        """Begin; from here on only we may end it."""
        connection = self.connection()
        self.driver = connection.connection.driver_connection
        if not connection.in_transaction():
            connection.begin()
        if self.adapter.sqlite:
            if self._driver().in_transaction:  # a listener of the user's was faster, and has no right to write yet
                connection.exec_driver_sql("rollback")
            connection.exec_driver_sql(f"pragma query_only = {'on' if self.read_only else 'off'}")
            connection.exec_driver_sql("begin" if self.read_only else "begin immediate")
            connection.exec_driver_sql(f"savepoint {MARK}")
            if not self.asynchronous:  # aiosqlite reads to the end at once
                event.listen(self.lower, "after_cursor_execute", self._note)
        else:
            asyncpg = connection.dialect.driver == "asyncpg"
            self.idle = self.adapter.source.idle if asyncpg else inf
            # asyncpg prepares what goes through SQLAlchemy, and then takes one statement at a time.
            for statement in settings.split("; ") if asyncpg else (settings,):
                connection.exec_driver_sql(statement)
            self.name = self._name()
        self._guard()

    @property
    def broken(self) -> bool:
        """Whether the connection is known to be lost."""
        return self.lower.closed or self.lower.invalidated

    def flush(self) -> Op[None]:
        """Send what the session still keeps."""
        if isinstance(self.below, Session):
            yield from self.spawn(self.below.flush)

    def check(self) -> Op[None]:
        """Ask the session, then the driver."""
        if isinstance(self.below, Session) and not self.below.is_active:
            raise swallowed()
        yield from self.spawn(self._check)

    def _check(self) -> None:
        if self.adapter.sqlite:
            self._check_mark()
            return
        driver = self._driver()
        if hasattr(driver, "info"):  # libpq knows without asking
            failed, ours = driver.info.transaction_status == 3, driver.info.transaction_status == 2
        else:
            failed, ours = self._refused(), driver.is_in_transaction()
        if failed:
            raise swallowed()
        if not ours or self.name != self._name():
            raise ended()

    def _refused(self) -> bool:
        try:
            self.lower.exec_driver_sql("select 1")
        except DBAPIError as error:
            if sqlstate(error) == "25P02":
                return True
            raise
        return False

    def _check_mark(self) -> None:
        self._end_reads()
        try:
            self.lower.exec_driver_sql(f"release {MARK}")
        except DBAPIError as error:
            raise ended() from error

    def commit(self) -> Op[None]:
        """Commit; that no statement failed is known from `check`."""
        self._unguard()
        yield from self._complete(self.below.commit)
        yield from self._release()

    def rollback(self) -> Op[None]:
        """Undo; what does not answer is closed, which undoes it too."""
        self._unguard()
        try:
            yield from self._complete(self.below.rollback, self.insist)
        except Exception:
            yield from self._complete(self.lower.invalidate)
        finally:
            yield from self._release()

    def abandon(self) -> None:
        """Close the socket."""
        with suppress(Exception):
            self.lower.dialect.do_terminate(cast("DBAPIConnection", self.lower.connection.dbapi_connection))
        self.adapter.yield_turn(read_only=self.read_only)

    @property
    def stoppable(self) -> bool:
        """Whether its statements go on in a thread, as those of aiosqlite do, too."""
        return self.adapter.sqlite or not self.asynchronous

    def interrupt(self) -> None:
        """Do what the driver has for it."""
        interrupt(self.driver)

    def insist(self) -> None:
        """Ask the server again; what SQLite does in a thread is stopped there."""
        insist(self.driver)

    def sever(self) -> None:
        """Break the socket, if there is one."""
        if hasattr(self.driver, "fileno"):
            postgres.sever(self.driver.fileno())

    def _release(self) -> Op[None]:
        try:
            yield from self._complete(self._close)
        finally:
            self.adapter.yield_turn(read_only=self.read_only)

    def _note(self, _connection: Connection, cursor: object, *_: object) -> None:
        self.readers.add(cursor)

    def _end_reads(self) -> None:
        """Close what somebody still has: half-read, it keeps its snapshot beyond the transaction, or a commit out."""
        for reader in tuple(self.readers):
            reader.close()

    def _close(self) -> None:
        self._end_reads()
        if self.adapter.sqlite and self.read_only and not self.broken:
            self.lower.exec_driver_sql("pragma query_only = off")
        self.lower.close()

    def _complete(self, fn: Callable[[], Any], insist: Callable[[], None] = lambda: None) -> Op[Any]:
        return complete(lambda: greenlet_spawn(fn) if self.asynchronous else fn(), insist)

    def _guard(self) -> None:
        for guarded in (self.below, self.lower):
            for method in GUARDED:
                setattr(guarded, method, refuse)

    def _unguard(self) -> None:
        for guarded in (self.below, self.lower):
            for method in GUARDED:
                vars(guarded).pop(method, None)

    def _driver(self) -> Any:
        return self.lower.connection.driver_connection

    def _name(self) -> str | None:
        driver = self._driver()
        if hasattr(driver, "info"):
            return str(driver.info.parameter_status("application_name"))
        return str(driver.get_settings().application_name)


class SqlalchemyAdapter:
    """Opens transactions of one type of connection or session: on the user's engine, or one that it makes."""

    def __init__(self, source: Datasource, handle: type) -> None:
        self.source = source
        self.handle = handle
        self.sqlite = source.dialect == "sqlite"
        self.asynchronous = issubclass(handle, AsyncConnection | AsyncSession)
        self.line = source.line(AsyncEngine if self.asynchronous else Engine, asynchronous=self.asynchronous)

    def begin(self, work: Work) -> Op[Transaction]:
        """Open one, on SQLite when it is its turn."""
        if self.sqlite and not work.read_only:
            yield from self.source.turn.take(asynchronous=self.asynchronous)
        try:
            tx: SqlalchemyTransaction = yield from self._spawn(lambda: self._begin(work))
        except BaseException:
            self.yield_turn(read_only=work.read_only)
            raise
        try:
            yield from self._spawn(lambda: tx.begin(postgres.settings(work, self.source.idle)))
        except BaseException:
            yield from tx.rollback()
            raise
        return tx

    def glance(self, statement: str, parameters: Parameters) -> Op[Rows]:
        """Execute one statement that commits by itself."""
        rows: Rows = yield from self._spawn(lambda: self._glance(statement, parameters))
        return rows

    def yield_turn(self, *, read_only: bool) -> None:
        """Let the next one write, if this one could."""
        if self.sqlite and not read_only:
            self.source.turn.give()

    def _spawn(self, fn: Callable[[], Any]) -> Op[Any]:
        return call(greenlet_spawn, fn) if self.asynchronous else call(fn)

    def _engine(self) -> Any:
        make: Any = create_async_engine if self.asynchronous else create_engine
        given = self.source.given(AsyncEngine if self.asynchronous else Engine)
        url = _spelled(make_url(self.source.url), asynchronous=self.asynchronous)
        return given or self.source.resource(make.__name__, lambda: self._made(make, url))

    def _made(self, make: Any, url: URL) -> Any:
        engine = make(url, **_settings(url, self.source))
        if url.get_driver_name() == "asyncpg":
            event.listen(engine.sync_engine, "connect", _watch)
        return engine

    def _connect(self) -> Connection:
        engine = self._engine()
        if not self.asynchronous:
            return cast("Connection", engine.connect())
        if self.sqlite and not event.contains(engine.sync_engine, "invalidate", _undo):
            event.listen(engine.sync_engine, "invalidate", _undo)
        return cast("Connection", engine.sync_engine.connect())

    def _begin(self, work: Work) -> SqlalchemyTransaction:
        raw = self._connect()
        if not self.sqlite:
            raw.execution_options(isolation_level=work.isolation.upper(), postgresql_readonly=work.read_only)
        else:
            # The driver begins when it thinks fit, and not before a select; so that we can, it must not.
            raw.execution_options(isolation_level="AUTOCOMMIT")
        bind: Any = AsyncConnection(self._engine(), raw) if self.asynchronous else raw
        if issubclass(self.handle, Session | AsyncSession):
            bind = self.handle(bind=bind, expire_on_commit=False)
        return SqlalchemyTransaction(bind, raw, self, read_only=work.read_only)

    def _glance(self, statement: str, parameters: Parameters) -> Rows:
        with self._connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            return execute(connection, statement, parameters)


def adapter(source: Datasource, handle: type) -> Adapter:
    """Give the adapter of a type of connection or session."""
    return SqlalchemyAdapter(source, handle)


def join(handle: Any) -> Opened:
    """See a connection or session of the caller as an open transaction."""
    return Joined(handle)


def _watch(connection: Any, _record: object) -> None:
    from operon.datasources.adapters.asyncpg import watch

    watch(connection.driver_connection)


def _undo(connection: Any, _record: object, _why: object) -> None:
    """Undo what a statement did that nobody awaits any more: closing waits for it, and frees no locks."""
    interrupt(connection.driver_connection)
    with suppress(Exception, CancelledError):  # it is being cancelled already
        connection.rollback()


def _settings(url: URL, source: Datasource) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {}
    given: dict[str, Any] = {"timeout": NETWORK["connect_timeout"]}  # asyncpg's, which speaks UTF-8 anyway
    if url.get_driver_name() in LIBPQ:
        given = postgres.ENCODING | postgres.network(source.url)
    return {"pool_size": source.size, "max_overflow": 0, "pool_timeout": source.waiting, "connect_args": given}


def _spelled(url: URL, *, asynchronous: bool) -> URL:
    """Name a driver of the right colour; one that the user names is kept if it is."""
    backend, _, driver = url.drivername.partition("+")
    if driver == "psycopg" or (driver and (driver in ASYNC_ONLY) == asynchronous):
        return url
    if backend == "sqlite":
        return url.set(drivername="sqlite+aiosqlite" if asynchronous else "sqlite+pysqlite")
    return url.set(drivername="postgresql+psycopg")
