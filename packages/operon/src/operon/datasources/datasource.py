"""A database that transactions run in, and the connections they run on; it must not know any driver."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import import_module
from inspect import iscoroutine
from threading import Lock as Mutex
from typing import TYPE_CHECKING, Any

from operon.core.addresses import address, rendered
from operon.datasources.foreign import QUERIES, Foreign
from operon.datasources.kinds import declared, kind_of
from operon.datasources.line import Line
from operon.datasources.opened import Opened
from operon.datasources.place import Place
from operon.datasources.transact import transact
from operon.datasources.turn import Turn
from operon.errors import DeclarationError, WrongDatabase

if TYPE_CHECKING:
    from operon.core.commands import Op
    from operon.core.ledger import Done, Ledger, Work
    from operon.core.store import Lock
    from operon.datasources.opened import Adapter

WAITING = 5.0
"""Seconds to wait for a free connection at a time."""
CLOSING = 5.0
"""Seconds for connections to say goodbye."""

SCHEME = re.compile(r"^(postgres(?:ql)?|sqlite)(?:\+\w+)?:")


class Datasource:
    """One database; makes connections when a transaction first wants them.

    Args:
        database: its URL, or an Engine, an AsyncEngine or a pool of the user's, which stays the user's to close.
        queries: the store's named statements, if the journal is in this database; else it keeps records of its own.
        writer: the store's, held by whoever writes, if the journal is in this database and it has one writer.
        idle: seconds after which Postgres ends a transaction that does nothing; about the lease.
        size: connections at most, for each driver.
        journal: the name of the journal that its records belong to.
        beside: the database of the journal, where this one only stands in for it: so it is spoken of.
    """

    def __init__(
        self,
        database: Any,
        queries: Mapping[str, str] | None = None,
        writer: Lock | None = None,
        *,
        idle: float = 15.0,
        size: int = 16,
        beside: str = "",
        journal: str = "",
    ) -> None:
        self.database = address(database)
        self.url = url_of(self.database)
        self.main = queries is not None
        self.queries = QUERIES[self.dialect] if queries is None else queries
        self.place = Place(self.dialect)
        self.turn = Turn(writer or Mutex())
        self.idle = idle
        self.size = size
        self.beside = beside
        self.journal = journal
        self.waiting = WAITING
        self._adapters: dict[Any, Adapter] = {}
        self._resources: dict[str, tuple[Any, asyncio.AbstractEventLoop | None]] = {}
        self._lines: dict[type, Line] = {}
        self._mutex = Mutex()

    @property
    def dialect(self) -> str:
        """Which database it is."""
        return "sqlite" if self.url.startswith("sqlite") else "postgres"

    @property
    def conninfo(self) -> str:
        """The URL as libpq reads it."""
        return SCHEME.sub("postgresql:", self.url)

    @property
    def path(self) -> str:
        """The file of a SQLite database."""
        return SCHEME.sub("", self.url).removeprefix("//").removeprefix("/").partition("?")[0]

    def transact(self, function: Callable[..., Any], work: Work, ledger: Ledger | None) -> Op[Done]:
        """Run a transaction of a function; see `transact`."""
        adapter = self.adapter(function)
        if ledger is not None and not self.main:
            ledger = Foreign(ledger, adapter, self.dialect, self.journal)
        return (yield from transact(adapter, work, ledger, self.queries))

    def adapter(self, function: Callable[..., Any]) -> Adapter:
        """Choose the adapter by the type of the function's first parameter; safe to call early, to find mistakes.

        Raises:
            DeclarationError: no adapter serves that type, in that colour, on this database.
        """
        if function not in self._adapters:
            self._adapters[function] = self._adapter(declared(function), function.__qualname__)
        return self._adapters[function]

    @cached_property
    def own(self) -> Adapter:
        """An adapter of blocking connections, for what we do here ourselves."""
        module = import_module("sqlite3" if self.dialect == "sqlite" else "psycopg")
        return self._adapter(module.Connection, "own")

    def _adapter(self, handle: type, name: str) -> Adapter:
        kind = kind_of(handle)
        if kind is None or self.dialect not in kind.dialects:
            beside = f"{self.beside}, whose transactions run on " if self.beside else ""
            raise DeclarationError(
                f"{name} takes {handle.__module__}.{handle.__qualname__}, and its database is {beside}{self.dialect}."
            )
        adapter: Adapter = kind.adapters.adapter(self, handle)
        return adapter

    def line(self, kind: type, *, asynchronous: bool) -> Line | None:
        """Give the line before a pool of ours, which all adapters of that pool share."""
        if self.dialect == "sqlite" or self.given(kind) is not None:
            return None
        with self._mutex:
            return self._lines.setdefault(kind, Line(self.size, asynchronous=asynchronous))

    def given(self, kind: type) -> Any:
        """The user's own engine or pool, if it is of this kind."""
        return self.database if isinstance(self.database, kind) else None

    def resource(self, name: str, make: Callable[[], Any]) -> Any:
        """Give what is made once and shared, a pool or an engine; what is async belongs to the loop it is made on."""
        with self._mutex:
            if name not in self._resources:
                self._resources[name] = make(), asyncio._get_running_loop()  # noqa: SLF001 - None where there is none
            return self._resources[name][0]

    def within(self, handle: Any) -> Opened:
        """See a connection or session of the caller, or a transaction of ours, as one that a start can join.

        Raises:
            WrongDatabase: it is no such thing; once it is used, also if it is of another database.
        """
        if self.beside:
            raise WrongDatabase(
                f"With {self.beside} nothing can be started or sent in a transaction, the journal being elsewhere: "
                "do it after the transaction, or give this app a file, sqlite:///test.db, or a Postgres."
            )
        if isinstance(handle, Opened):
            if handle.queries is not self.queries:
                raise WrongDatabase("This transaction is in another datasource than the journal: start after it.")
            return handle
        kind = kind_of(handle.__class__)
        if kind is None or self.dialect not in kind.dialects:
            raise WrongDatabase(
                f"within= takes an open connection or session of this {self.dialect} database, "
                f"not {handle.__class__.__module__}.{handle.__class__.__qualname__}."
            )
        opened: Opened = kind.adapters.join(handle)
        opened.queries = self.queries
        opened.confirm = lambda: self.place.confirm(opened, self._adapter(handle.__class__, "within=").glance)
        return opened

    def close(self) -> None:
        """Close what was opened here; call it while the loop of async transactions still runs, from another thread."""
        self.turn.close()
        resources, self._resources, self._adapters = self._resources, {}, {}
        for resource, loop in resources.values():
            closing = (getattr(resource, "close", None) or resource.dispose)()
            if loop is not None and loop.is_running() and iscoroutine(closing):
                asyncio.run_coroutine_threadsafe(closing, loop).result(CLOSING)
            elif iscoroutine(closing):
                closing.close()


def url_of(database: Any) -> str:
    """Say where the database of an engine or a pool is."""
    url: Any = getattr(database, "url", None) or getattr(database, "conninfo", None) or database
    if hasattr(url, "render_as_string"):
        return rendered(url)
    return str(url)
