"""A database that transactions run in, and the connections they run on; it must not know any driver."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from threading import Lock as Mutex
from typing import TYPE_CHECKING, Any

from operon.datasources.call import call
from operon.datasources.kinds import declared, kind_of
from operon.datasources.transact import transact
from operon.datasources.turn import Turn
from operon.errors import DeclarationError, WrongDatabase

if TYPE_CHECKING:
    from operon.core.commands import Op
    from operon.core.ledger import Done, Ledger, Work
    from operon.core.store import Lock
    from operon.datasources.opened import Adapter, Opened

SCHEME = re.compile(r"^(postgres(?:ql)?|sqlite)(?:\+\w+)?:")


class Datasource:
    """One database; makes connections when a transaction first wants them.

    Args:
        database: its URL, or an Engine, an AsyncEngine or a pool of the user's, which stays the user's to close.
        queries: the store's named statements, if the journal is in this database; without them, it keeps records of its own.
        writer: held by whoever writes, where a database has one writer; the store's own, if the journal is in this database.
        idle: seconds after which Postgres ends a transaction that does nothing; about the lease.
        size: connections at most, for each driver.
    """

    def __init__(
        self,
        database: Any,
        queries: Mapping[str, str] | None = None,
        writer: Lock | None = None,
        *,
        idle: float = 15.0,
        size: int = 16,
    ) -> None:
        self.database = database
        self.url = url_of(database)
        self.main = queries is not None
        self.queries = queries or {}
        self.turn = Turn(writer or Mutex())
        self.idle = idle
        self.size = size
        self._adapters: dict[Any, Adapter] = {}
        self._resources: dict[str, Any] = {}
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
        return (yield from transact(self.adapter(function), work, ledger, self.queries))

    def adapter(self, function: Callable[..., Any]) -> Adapter:
        """Choose the adapter by the type of the function's first parameter; safe to call early, to find mistakes.

        Raises:
            DeclarationError: no adapter serves that type, in that colour, on this database.
        """
        if function not in self._adapters:
            self._adapters[function] = self._adapter(declared(function), function.__qualname__)
        return self._adapters[function]

    def _adapter(self, handle: type, name: str) -> Adapter:
        kind = kind_of(handle)
        if kind is None or self.dialect not in kind.dialects:
            raise DeclarationError(
                f"{name} takes {handle.__module__}.{handle.__qualname__}, and its database is {self.dialect}."
            )
        adapter: Adapter = kind.adapters.adapter(self, handle)
        return adapter

    def given(self, kind: type) -> Any:
        """The user's own engine or pool, if it is of this kind."""
        return self.database if isinstance(self.database, kind) else None

    def resource(self, name: str, make: Callable[[], Any]) -> Any:
        """Give what is made once and shared: a pool, an engine."""
        with self._mutex:
            if name not in self._resources:
                self._resources[name] = make()
            return self._resources[name]

    def within(self, handle: Any) -> Opened:
        """See a connection or session of the caller as an open transaction that a start can join.

        Raises:
            WrongDatabase: it is none, or of another database; the latter perhaps only when it is used.
        """
        return within(handle, self.queries)

    def close(self) -> Op[None]:
        """Close what was opened here; awaited if any of it is async."""
        resources, self._resources, self._adapters = self._resources, {}, {}
        for resource in resources.values():
            close = getattr(resource, "close", None) or resource.dispose
            yield from call(close)


def within(handle: Any, queries: Mapping[str, str]) -> Opened:
    """See a connection or session of the caller, or a transaction of ours, as an open one."""
    from operon.datasources.opened import Opened

    if isinstance(handle, Opened):
        return handle
    kind = kind_of(type(handle))
    if kind is None:
        raise WrongDatabase(f"within= takes an open connection or session, not {type(handle).__qualname__}.")
    opened: Opened = kind.adapters.join(handle)
    opened.queries = queries
    return opened


def url_of(database: Any) -> str:
    """Say where the database of an engine or a pool is."""
    url: Any = getattr(database, "url", None) or getattr(database, "conninfo", None) or database
    if hasattr(url, "render_as_string"):
        return str(url.render_as_string(hide_password=False))
    return str(url)
