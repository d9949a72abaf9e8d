"""The application: what is declared on it, and its life from launch to close."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

from operon.app.closing import CLOSING, DRAIN, let_go, regardless
from operon.app.databases import Databases
from operon.app.declarations import Launchable
from operon.app.entering import entered
from operon.app.lifespan import Lifespan, Manager
from operon.app.queues import Queue
from operon.app.routes import Routes
from operon.app.serving import Serving
from operon.app.stores import default_url, store_for
from operon.app.versions import digest, spelled
from operon.asynchronous import running
from operon.core.codec import Codec
from operon.core.given import seconds, whole
from operon.core.ids import checked, names
from operon.core.queues import limits as queue_limits
from operon.core.retention import keeping
from operon.core.states import Status
from operon.engine.settings import Settings
from operon.errors import BadValue, DeclarationError, NotFound

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

    from operon.core.commands import Op
    from operon.core.function import Function
    from operon.core.host import Host, Opened
    from operon.core.ledger import Done, Ledger, Work
    from operon.core.queues import Rate
    from operon.core.retention import Duration, Keep
    from operon.core.rows import Limits
    from operon.core.schedules import Definition
    from operon.core.store import Store
    from operon.engine.engine import Engine

T = TypeVar("T")
SHORT = 2**15 - 2
"""Takeovers are counted in a column of 16 bits."""
SOON = 0.1
"""Seconds that are left, at least, for what comes last."""
_apps: weakref.WeakSet[Operon] = weakref.WeakSet()


class Operon(Serving, Launchable, Routes):
    """An app: workflows, steps and transactions, and the database that remembers them.

    Args:
        name: names the app in the database; also the SQLite file, when no database is given.
        database: a URL, a SQLAlchemy engine, or a psycopg pool; by default `OPERON_DATABASE_URL`, else
            `DATABASE_URL`, else `sqlite:///<name>.db`.
        datasources: other databases that transactions may name.
        lifespan: `lifespan(app)`, a context manager, sync or async, is entered before anything is claimed, and left
            after the drain; an async one on the loop of the async bodies.
        authenticate: `authenticate(request)` gives the `User` who makes an HTTP request, or None; sync or async.
        around: `around()` is entered around each execution of a blocking body.
        version: the version of the code; by default a digest of the declared functions' sources.
        pin: run rows only on the code version that started them.
        threads: how many blocking bodies run at a time; more stay queued.
        tasks: how many async bodies run at a time; more stay queued.
        max_payload: the largest recorded value, in bytes.
        encryption_key: 16, 24 or 32 bytes that `Secret` values are encrypted with.
        grace: seconds that a wait stays in the process before the workflow leaves it.
        keep: how long records are kept once their workflow has ended: a timedelta, or one for each outcome,
            `{"succeeded": timedelta(days=7), "failed": None}`; None is for ever. Then only the key is left: a call with
            it joins a run that is over, and `result()` raises RecordDeleted.
        keep_keys: how long after its end a key is known; None is for ever. Then a call with it runs anew.
        moved: classes by the path that older records name them by, once they have moved to another module or have
            another name: `{"shop.models:Order": Order}`.
        lease: seconds after which others take over from a process that fell silent; a transaction that does nothing
            for so long is ended by the server, for it may be in their way.
        max_takeovers: how often a workflow is taken over from a process that died before it recorded anything; the
            next time it is held, for it may be what kills them. In between it waits 0, 1, 3, 7, ... seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        database: object = None,
        datasources: Mapping[str, object] | None = None,
        lifespan: Callable[[Any], Manager] | None = None,
        around: Callable[[], AbstractContextManager[Any]] | None = None,
        authenticate: Callable[..., Any] | None = None,
        version: str | None = None,
        pin: bool = False,
        threads: int = 64,
        tasks: int = 1000,
        max_payload: int = 10_000_000,
        encryption_key: bytes | None = None,
        grace: float = 1.0,
        lease: float = 15.0,
        max_takeovers: int = 5,
        keep: Keep = None,
        keep_keys: Duration | None = timedelta(days=365),
        moved: Mapping[str, type] | None = None,
    ) -> None:
        super().__init__()
        self.functions: dict[str, Function] = {}
        if not name:
            raise DeclarationError('An app has a name: Operon("shop").')
        _counted(threads=threads, tasks=tasks, max_payload=max_payload)
        whole("max_takeovers", max_takeovers, least=0, most=SHORT, error=DeclarationError)
        grace, lease = _length("grace=", grace), _length("lease=", lease)
        if lease == 0:
            raise DeclarationError(f"lease={lease!r} must be above 0.")
        self.name = checked(name, "The name of an app", DeclarationError)
        self.database = database
        self.authenticate = authenticate
        self.codec = Codec(max_payload=max_payload, key=encryption_key, moved=moved)
        self.host: Host | None = None
        self.pin = pin
        self.runs: bool | Sequence[str] = True
        """What a launch that does not say runs here; `operon run --paused` sets it to False."""
        self._version = None if version is None else checked(version, "version=", DeclarationError)
        self._lifespan = lifespan
        self._around = around
        self._settings = Settings(
            threads,
            tasks,
            grace,
            ttl=lease,
            poison=max_takeovers,
            keep=keeping(keep),
            keep_keys=keeping(keep_keys, "keep_keys=")[Status.SUCCEEDED],
        )
        self._queues: dict[str, Queue] = {}
        self._instances: dict[str, object] = {}
        self._names: dict[int, str] = {}
        self._databases = Databases(datasources or {}, idle=lease)
        self._engine: Engine | None = None
        self._entered: Lifespan | None = None
        self._lock = threading.Lock()
        self.settle(self)
        _apps.add(self)

    def __repr__(self) -> str:
        return f"<Operon {self.name!r}{' launched' if self._engine else ''}>"

    # ── Declaring ────────────────────────────────────────────────────────────────────────────────────────────────────

    def register(self, instance: T, *, name: str) -> T:
        """Register an object whose methods are workflows or transactions; rows record its class and this name.

        Raises:
            DeclarationError: the name is taken for this class, or the app is launched.
        """
        full = f"{type(instance).__qualname__}/{checked(name, 'The name of an object', DeclarationError)}"
        if self._engine is not None:
            raise DeclarationError(f"Register {full} before launch: rows may be claimed at once.")
        if full in self._instances:
            raise DeclarationError(f"Two objects are registered as {full}; names are unique per class.")
        self._instances[full] = instance
        self._names[id(instance)] = full
        return instance

    def queue(
        self,
        name: str,
        *,
        concurrency: int | None = None,
        worker_concurrency: int | None = None,
        rate: Rate | None = None,
        partition_concurrency: int | None = None,
        partition_rate: Rate | None = None,
    ) -> Queue:
        """Declare a queue; its limits hold over all processes, and those changed elsewhere win until `reset`.

        Args:
            name: names it in the database.
            concurrency: how many may run.
            worker_concurrency: how many may run in each process.
            rate: how many may begin in any period: `(100, timedelta(minutes=1))`, or in seconds.
            partition_concurrency: how many of each partition may run.
            partition_rate: how many of each partition may begin in any period.

        Raises:
            DeclarationError: it is declared otherwise already, or the app is launched.
            BadValue: a limit below one, or a rate without a period.
        """
        limits = queue_limits(
            concurrency=concurrency,
            worker_concurrency=worker_concurrency,
            rate=rate,
            partition_concurrency=partition_concurrency,
            partition_rate=partition_rate,
        )
        if name in self._queues and self._queues[name].limits != limits:
            raise DeclarationError(f"{self.name} declares the queue {name!r} twice, with different limits.")
        if self._engine is not None:
            raise DeclarationError(f"Declare the queue {name!r} before launch: work may be claimed at once.")
        return self._queues.setdefault(checked(name), Queue(self, name, limits))

    # ── Life ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def launch(self, *, run: bool | Sequence[str] | None = None, migrate: bool = True, adopt: bool = False) -> None:
        """Connect, take up what was left, and begin to run. Importing never launches anything; this does.

        Args:
            run: False serves, starts and waits, but runs nothing here; a list of queues runs those and what is in no
                queue; None is what `runs` says: True.
            migrate: bring the schema up to date; False raises SchemaMismatch if it is not.
            adopt: go on with the work of a database that was copied, restored or moved here; the original must be gone.

        Raises:
            StoreUnavailable: the database is out of reach.
            SchemaMismatch, ForeignDatabase: this database is not for this code.
        """
        self._launch(None, run=run, migrate=migrate, adopt=adopt)

    def close(self, drain: float | timedelta = DRAIN) -> None:
        """Claim nothing more, let what runs end for `drain` seconds, hand the rest back. Closing twice is harmless.

        It takes a second more at most, whatever is locked, full or away: what does not let go by then is left behind,
        as after a crash. Only a blocking `lifespan` is waited for.
        """
        length = seconds(drain, "drain=")
        ends = time.monotonic() + length + CLOSING
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is None:
            return
        if engine.forked:  # threads, connections and lease are the parent's
            engine.forget()
            self.host = self._entered = None
            return
        try:
            engine.stop(length)
        except BaseException:  # as by a second Ctrl-C: nobody waits for the rest
            ends = time.monotonic() + CLOSING
            raise
        finally:
            self._let_go(engine.store, engine, ends)

    def __enter__(self) -> Self:
        """Launch."""
        self.launch()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close; at once when an error is on its way out."""
        self.close(drain=DRAIN if kind is None else 0.0)

    async def __aenter__(self) -> Self:
        """Launch; async bodies run on this loop. If this is cancelled, the launch is undone."""
        loop = running()
        await entered(lambda: self._launch(loop), self._interrupt, lambda: self.close(drain=0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Close; at once when an error is on its way out."""
        import asyncio

        drain = DRAIN if kind is None else 0.0
        await asyncio.get_running_loop().run_in_executor(None, lambda: self.close(drain))

    def _launch(
        self,
        loop: asyncio.AbstractEventLoop | None,
        *,
        run: bool | Sequence[str] | None = None,
        migrate: bool = True,
        adopt: bool = False,
    ) -> None:
        from operon.engine.engine import Engine

        run = self.runs if run is None else run
        only = None if isinstance(run, bool) else names(run, "run=", "The name of a queue", DeclarationError)
        if unknown := next((name for name in only or () if name not in self._queues), None):
            there = ", ".join(self._queues) or "none"
            raise DeclarationError(f"{self.name} has no queue {unknown!r} to run; it has {there}.")
        with self._lock:
            if self._engine is not None:
                self._engine.unforked()
                raise DeclarationError(f"{self.name} is launched already.")
            database = self.database if self.database is not None else default_url(self.name)
            store = store_for(database)
            engine: Engine | None = None
            try:
                store.open(migrate=migrate, adopt=adopt)
                self._databases.open(database, store, self.each())
                self._entered = Lifespan(None if self._lifespan is None else self._lifespan(self))
                engine = Engine(self, store, replace(self._settings, run=run is not False, only=only))
                engine.launch(loop)
                self._engine = self.host = engine
                if run is not False:
                    self._databases.sweep(store)
            except BaseException:
                self._give_up(store, engine)
                raise

    def _interrupt(self) -> None:
        """Cancel an async lifespan that a launch is entering; on its loop."""
        if self._entered is not None:
            self._entered.interrupt()

    def _give_up(self, store: Store, engine: Engine | None) -> None:
        """Undo what a launch has begun that failed or was interrupted, wherever that was."""
        self._engine = None
        with regardless(f"The app {self.name}"):
            if engine is not None:
                engine.stop(0.0)
            self._let_go(store, engine, time.monotonic() + CLOSING)

    def _let_go(self, store: Store, engine: Engine | None, ends: float) -> None:
        """Leave the lifespan, and end and close all else in the time that is left."""
        try:
            self.leave(max(SOON, ends - time.monotonic()))
        finally:
            self.host = self._entered = None
            close, end = ((), ()) if engine is None else ((engine.close,), (engine.end,))
            parts = (*close, *self._databases.close(), *end, store.close)
            let_go(f"The app {self.name}", max(SOON, ends - time.monotonic()), parts)

    # ── What the engine asks of a program ────────────────────────────────────────────────────────────────────────────

    @property
    def version(self) -> str:
        """The version of the code: what was given, or a digest of the declared functions and of Python's version."""
        if self._version is None:
            self._version = digest(self.each())
        return spelled(self._version)

    @property
    def awaits(self) -> bool:
        """Whether an event loop is needed at once: the lifespan is async."""
        return self._entered is not None and self._entered.asynchronous

    def enter(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Enter the lifespan."""
        if self._entered is not None:
            self._entered.enter(loop)

    def leave(self, seconds: float) -> None:
        """Leave the lifespan."""
        if self._entered is not None:
            self._entered.leave(seconds)

    def declared(self, function: Function) -> None:
        """Learn of a function, at whatever time: the executor's thread may be reading, so the table is made anew."""
        self.functions = self.functions | dict.fromkeys(function.names, function)

    @property
    def limits(self) -> Mapping[str, Limits]:
        """The declared queues, and their limits."""
        return {name: queue.limits for name, queue in self._queues.items()}

    @property
    def timetable(self) -> tuple[Definition, ...]:
        """The declared schedules.

        Raises:
            DeclarationError: two have one name.
        """
        found: dict[str, Definition] = {}
        for each in self.definitions():
            if found.setdefault(each.name, each) is not each:
                raise DeclarationError(f"Two schedules of {self.name} are named {each.name!r}: give one name=….")
        return tuple(found.values())

    def instances(self) -> tuple[str, ...]:
        """The names of the registered objects."""
        return tuple(self._instances)

    def instance(self, name: str) -> object:
        """The object registered under a name.

        Raises:
            NotFound: nothing is.
        """
        if name not in self._instances:
            raise NotFound(f"No object is registered as {name}; call app.register(..., name=...) before launch.")
        return self._instances[name]

    def instance_name(self, instance: object) -> str:
        """Under which name an object was registered.

        Raises:
            DeclarationError: it was not.
        """
        if id(instance) not in self._names:
            kind = type(instance).__qualname__
            raise DeclarationError(f"This {kind} is not registered; call app.register(it, name=...) before launch.")
        return self._names[id(instance)]

    def around(self, body: Callable[[], T]) -> T:
        """Run one execution inside what was given as `around`."""
        if self._around is None:
            return body()
        with self._around():
            return body()

    def within(self, connection: object) -> Opened:
        """See an open transaction of the caller."""
        return self._databases.within(connection)

    def transact(self, function: Function, work: Work, ledger: Ledger | None) -> Op[Done]:
        """Run one transaction on the datasource that the function means."""
        return self._databases.transact(function, work, ledger)

    def remembers(self, function: Function) -> bool:
        """Whether the function's transactions run in the database that holds the journal."""
        return self._databases.remembers(function)


def _counted(**given: int) -> None:
    for what, number in given.items():
        whole(what, number, least=1, error=DeclarationError)


def _length(what: str, duration: object) -> float:
    try:
        return seconds(duration, what)
    except BadValue as error:
        raise DeclarationError(str(error)) from None


def _forked() -> None:
    """Tell the apps of a forked child that their threads did not come along."""
    for app in _apps:
        app._lock = threading.Lock()  # noqa: SLF001 - this module's own class; a thread of the parent may have held it
        if app._engine is not None:  # noqa: SLF001
            app._engine.forked = True  # noqa: SLF001


os.register_at_fork(after_in_child=_forked)
