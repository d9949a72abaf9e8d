"""The databases of an app: which datasource a transaction means, and whether it is the one that holds the journal."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from operon.errors import DeclarationError, NotLaunched

if TYPE_CHECKING:
    from operon.core.commands import Op
    from operon.core.function import Function
    from operon.core.host import Opened
    from operon.core.ledger import Done, Ledger, Work
    from operon.core.store import Store
    from operon.datasources import Datasource


class Databases:
    """The main datasource and those with names; open while the app is launched.

    A transaction that does nothing for `idle` seconds is ended by the server, and what it locked is free for others.
    """

    def __init__(self, others: Mapping[str, object], *, idle: float) -> None:
        self._others = dict(others)
        self._idle = idle
        self._open: dict[str | None, Datasource] = {}
        self._lock = threading.Lock()
        self._home: tuple[object, Store] | None = None

    def open(self, database: object, store: Store, functions: Iterator[Function]) -> None:
        """Make every datasource; find now which function names one that does not exist, or a type with no adapter."""
        self._home = None if store.dialect == "memory" else (database, store)
        if self._others:
            from operon.datasources import Datasource

            for name, other in self._others.items():
                self._open[name] = Datasource(other, idle=self._idle)
        for function in functions:
            if function.kind == "transaction":
                self._of(function).adapter(function.fn)

    def close(self) -> None:
        """Close what was opened here; the user's own engines and pools stay open."""
        for datasource in self._open.values():
            datasource.close()
        self._open.clear()
        self._home = None

    def within(self, connection: object) -> Opened:
        """See an open transaction of the caller as one that a start can join.

        Raises:
            WrongDatabase: it is in another database than the journal.
        """
        return self._main().within(connection)

    def transact(self, function: Function, work: Work, ledger: Ledger | None) -> Op[Done]:
        """Run one transaction."""
        return self._of(function).transact(function.fn, work, ledger)

    def remembers(self, function: Function) -> bool:
        """Whether this function's transactions and the journal are in one database."""
        return self._of(function).main

    def _main(self) -> Datasource:
        """Make it when it is first asked for: a program may declare no transaction, or only later."""
        with self._lock:
            if None not in self._open:
                if self._home is None:
                    raise NotLaunched("Transactions need a launched app with a database of its own.")
                from operon.datasources import Datasource

                database, store = self._home
                self._open[None] = Datasource(database, store.queries, store.writer, idle=self._idle)
            return self._open[None]

    def _of(self, function: Function) -> Datasource:
        name = function.rules.datasource
        if name is None:
            return self._main()
        if name not in self._open:
            known = ", ".join(sorted(self._others)) or "none"
            raise DeclarationError(f"{function.name} names the datasource {name!r}; this app has: {known}.")
        return self._open[name]
