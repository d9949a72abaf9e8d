"""A client: the verbs as methods, for a process without the app; it runs nothing, and no other process learns of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, cast, overload

from operon.app import queues, schedules
from operon.app.closing import CLOSING, let_go, regardless
from operon.app.declarations import Durable
from operon.app.entering import entered
from operon.app.overloads import AsyncGather, AsyncRetrieve, Gather, Retrieve
from operon.app.remote import named
from operon.app.stores import store_for
from operon.app.verbs import retrieve
from operon.asynchronous import running
from operon.core import asking, deleting, results
from operon.core.codec import Codec
from operon.core.commands import Op
from operon.core.results import Handle
from operon.core.rows import Limits
from operon.engine.settings import Settings
from operon.errors import BadValue, NotLaunched

if TYPE_CHECKING:
    from types import TracebackType

    from operon.core.function import Function
    from operon.core.host import Host, Opened
    from operon.core.store import Store
    from operon.datasources import Datasource
    from operon.engine.engine import Engine

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Nothing:
    """The program of a process that declares nothing."""

    name = "client"
    version = ""

    def __init__(self, database: object, store: Store, codec: Codec) -> None:
        self.codec = codec
        self.functions: Mapping[str, Function] = {}
        self._database = database
        self._store = store

    @property
    def limits(self) -> Mapping[str, Limits]:
        """No queues of its own."""
        return {}

    timetable = ()

    def instances(self) -> tuple[str, ...]:
        """No objects."""
        return ()

    def around(self, body: Callable[[], T]) -> T:
        """Nothing is put around what is never run."""
        return body()

    awaits = False

    def enter(self, loop: object) -> None:
        """Nothing lives as long as a client but its connection."""

    def leave(self, seconds: float) -> None:
        """Likewise."""

    def within(self, connection: object) -> Opened:
        """See an open transaction of the caller."""
        return self.datasource.within(connection)

    @cached_property
    def datasource(self) -> Datasource:
        """The database, as the caller's connections are held against it."""
        from operon.datasources import Datasource

        return Datasource(self._database, self._store.queries, self._store.writer)


class Connection:
    """What both clients are: an engine that runs nothing.

    Args:
        database: a URL, a path, a SQLAlchemy engine or a psycopg pool.
        encryption_key: what the app encrypts its `Secret` values with.
    """

    def __init__(self, database: object, *, encryption_key: bytes | None = None) -> None:
        self._database = database
        self._codec = Codec(key=encryption_key)
        self._engine: Engine | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._engine.store.url if self._engine else 'closed'}>"

    @property
    def host(self) -> Host:
        """What its verbs are driven by.

        Raises:
            NotLaunched: it is closed, or was never entered.
        """
        if self._engine is None:
            kind = type(self).__name__
            raise NotLaunched(f"This {kind} is not connected: wrap its use in `with {kind}(url) as client:`.")
        return self._engine

    def _connect(self) -> None:
        from operon.engine.engine import Engine

        store = store_for(self._database)
        engine: Engine | None = None
        try:
            store.open(migrate=False)
            engine = Engine(Nothing(self._database, store, self._codec), store, Settings(run=False))
            engine.connect()
            self._engine = engine
        except BaseException:
            self._engine = None
            with regardless(what := f"The {type(self).__name__}"):
                let_go(what, CLOSING, (store.close,) if engine is None else (engine.disconnect, store.close))
            raise

    def _disconnect(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            let_go(f"The {type(self).__name__}", CLOSING, (engine.disconnect, engine.store.close))


class Hosted(Protocol):
    """What has verbs as methods."""

    @property
    def host(self) -> Host:
        """What they are driven by."""
        ...


def blocking(verb: Callable[Concatenate[Host, P], Op[T]]) -> Callable[Concatenate[Hosted, P], T]:
    """Make a method that blocks."""

    @wraps(verb)
    def method(self: Hosted, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.host.drive(verb(self.host, *args, **kwargs))

    return method


def awaited(
    verb: Callable[Concatenate[Host, P], Op[T]],
) -> Callable[Concatenate[Hosted, P], Coroutine[Any, Any, T]]:
    """Make a method that is awaited."""

    @wraps(verb)
    async def method(self: Hosted, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.host.adrive(verb(self.host, *args, **kwargs))

    return method


class Noun:
    """The verbs about one noun, of a client."""

    def __init__(self, client: Hosted) -> None:
        self._client = client

    @property
    def host(self) -> Host:
        """What they are driven by."""
        return self._client.host


class Schedules(Noun):
    """The verbs about schedules: `client.schedules.pause("weekly")`."""

    create = blocking(schedules.create)
    trigger = blocking(schedules.trigger)
    backfill = blocking(schedules.backfill)
    pause = blocking(schedules.pause)
    resume = blocking(schedules.resume)
    delete = blocking(schedules.delete)
    describe = blocking(schedules.describe)
    list = blocking(schedules.listing)


class AsyncSchedules(Noun):
    """The verbs about schedules, awaited."""

    create = awaited(schedules.create)
    trigger = awaited(schedules.trigger)
    backfill = awaited(schedules.backfill)
    pause = awaited(schedules.pause)
    resume = awaited(schedules.resume)
    delete = awaited(schedules.delete)
    describe = awaited(schedules.describe)
    list = awaited(schedules.listing)


class Client(Connection):
    """The blocking verbs, for a process without the app: `with Client(url) as client: client.start(...)`."""

    @overload
    def start(self, workflow: Durable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Handle[R]: ...
    @overload
    def start(self, workflow: str, /, **arguments: Any) -> Handle[Any]: ...
    def start(self, workflow: Any, /, *args: Any, **kwargs: Any) -> Handle[Any]:
        """Start a workflow, given as declared here or by its recorded name: once this returns, it will end.

        By name, arguments are passed by name; they are checked when the workflow runs, and not before.

        Raises:
            KeyConflict, Duplicate: as `operon.start`.
            BadValue: positional arguments for a name.
        """
        return self.host.drive(results.start(self.host, _meant(workflow, args, kwargs), args, kwargs))

    retrieve = cast("Retrieve", blocking(retrieve))
    describe = blocking(asking.describe)
    steps = blocking(asking.steps)
    find = blocking(asking.find)
    count = blocking(asking.count)
    enqueue = blocking(queues.enqueue)
    enqueue_many = blocking(queues.enqueue_many)
    cancel = blocking(asking.cancel)
    delete = blocking(deleting.delete)
    gather = cast("Gather", blocking(results.gather))

    @property
    def schedules(self) -> Schedules:
        """The verbs about schedules."""
        return Schedules(self)

    def close(self) -> None:
        """Disconnect; closing twice is harmless."""
        self._disconnect()

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            StoreUnavailable: the database is out of reach.
            SchemaMismatch: it was not migrated, or by another version.
        """
        self._connect()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Disconnect."""
        self._disconnect()


class AsyncClient(Connection):
    """The awaited verbs, for a process without the app: `async with AsyncClient(url) as client: ...`."""

    @overload
    async def start(self, workflow: Durable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Handle[R]: ...
    @overload
    async def start(self, workflow: str, /, **arguments: Any) -> Handle[Any]: ...
    async def start(self, workflow: Any, /, *args: Any, **kwargs: Any) -> Handle[Any]:
        """Start a workflow; see `Client.start`."""
        return await self.host.adrive(results.start(self.host, _meant(workflow, args, kwargs), args, kwargs))

    retrieve = cast("AsyncRetrieve", awaited(retrieve))
    describe = awaited(asking.describe)
    steps = awaited(asking.steps)
    find = awaited(asking.find)
    count = awaited(asking.count)
    enqueue = awaited(queues.enqueue)
    enqueue_many = awaited(queues.enqueue_many)
    cancel = awaited(asking.cancel)
    delete = awaited(deleting.delete)
    gather = cast("AsyncGather", awaited(results.gather))

    @property
    def schedules(self) -> AsyncSchedules:
        """The verbs about schedules."""
        return AsyncSchedules(self)

    async def close(self) -> None:
        """Disconnect; closing twice is harmless."""
        import asyncio

        running()
        await asyncio.to_thread(self._disconnect)

    async def __aenter__(self) -> Self:
        """Connect; raises what `Client` raises, and WrongColour where no event loop of asyncio runs.

        If this is cancelled, it is disconnected.
        """
        running()
        await entered(self._connect, lambda: None, self._disconnect)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Disconnect."""
        import asyncio

        await asyncio.to_thread(self._disconnect)


def _meant(workflow: Durable[..., Any] | str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Durable[..., Any]:
    if not isinstance(workflow, str):
        return workflow
    if args:
        raise BadValue(f"Pass the arguments of {workflow!r} by name: its parameters are not known in this process.")
    return named(workflow, kwargs)
