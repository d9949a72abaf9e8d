"""The databases of an app: which datasource a transaction means, and whether it is the one that holds the journal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from operon.core.commands import Journal
from operon.errors import DeclarationError, NotLaunched

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

    from operon.core.commands import Op
    from operon.core.function import Function
    from operon.core.host import Opened
    from operon.core.ledger import Done, Ledger, Work
    from operon.core.store import Store
    from operon.datasources import Datasource
    from operon.datasources.sweeper import Sweeper


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
        self._sweeper: Sweeper | None = None
        self._files: TemporaryDirectory[str] | None = None

    def open(self, database: object, store: Store, functions: Iterator[Function]) -> None:
        """Make every datasource; find now which function names one that does not exist, or a type with no adapter."""
        self._home = (database, store)
        if self._others:
            from operon.datasources import Datasource

            journal = store.ask(Journal())
            for name, other in self._others.items():
                self._open[name] = Datasource(other, idle=self._idle, journal=journal)
        for function in functions:
            if function.kind == "transaction":
                self._of(function).adapter(function.fn)

    def sweep(self, store: Store) -> None:
        """Begin to delete, from the datasources with names, the records of workflows that have theirs no more."""
        if self._others:
            from operon.datasources.sweeper import Sweeper

            sources = {name: source for name, source in self._open.items() if name is not None}
            self._sweeper = Sweeper(sources, store, store.ask(Journal()))
            self._sweeper.start()

    def close(self) -> Iterator[Callable[[], object]]:
        """Have nothing open from now on; gives what closes what was. The user's own engines and pools stay open."""
        sweeper, files, opened = self._sweeper, self._files, tuple(self._open.values())
        self._sweeper = self._files = self._home = None
        self._open.clear()
        if sweeper is not None:
            yield sweeper.close
        yield from (datasource.close for datasource in opened)
        if files is not None:
            yield files.cleanup

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
                    raise NotLaunched("Transactions run in a launched app: with app: ..., or app.launch().")
                self._open[None] = self._opened(*self._home)
            return self._open[None]

    def _opened(self, database: object, store: Store) -> Datasource:
        """Open where the journal is; beside one in memory, a SQLite file that is there as long as the app is open."""
        from operon.datasources import Datasource

        if store.dialect != "memory":
            return Datasource(database, store.queries, store.writer, idle=self._idle)
        import sqlite3
        from contextlib import closing
        from tempfile import TemporaryDirectory

        self._files = TemporaryDirectory(prefix="operon-", ignore_cleanup_errors=True)
        path = f"{self._files.name}/memory.db"
        with closing(sqlite3.connect(path)) as file:
            file.execute("pragma journal_mode = wal")  # so that nobody who reads waits for whoever writes
        return Datasource(f"sqlite:///{path}", idle=self._idle, beside="memory:")

    def _of(self, function: Function) -> Datasource:
        name = function.rules.datasource
        if name is None:
            return self._main()
        if name not in self._open:
            known = ", ".join(sorted(self._others)) or "none"
            raise DeclarationError(f"{function.name} names the datasource {name!r}; this app has: {known}.")
        return self._open[name]
