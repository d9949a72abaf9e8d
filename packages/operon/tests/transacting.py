"""What the tests of transactions share: every way to write one, a real journal, and a driver that never sleeps."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import asyncpg
import msgspec
import psycopg
import sqlalchemy
import sqlmodel
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session
from sqlmodel.ext.asyncio.session import AsyncSession as AsyncModelSession

from children import joined
from operon.core.commands import Command, Describe, Invoke, Load, Op, Pause, Start, ask
from operon.core.ledger import Adopted, Done, Ledger, Statement, Work
from operon.core.rows import Entry, Guard, Kind, NewWorkflow, record_parameters
from operon.core.store import Store
from operon.datasources import Datasource
from operon.datasources.call import block, call, wait

T = TypeVar("T")
Request = str | Callable[[Any], Any]
Sql = Callable[[Request], Op[Any]]
Script = Callable[[Sql], Op[Any]]
"""A body without a colour: `yield from sql(...)` executes SQL and gives rows, or calls something with the handle."""


@dataclass(frozen=True)
class Way:
    """One type that a transaction may take."""

    name: str
    handle: type
    dialects: tuple[str, ...]
    asynchronous: bool = False
    driver: str | None = None
    """The SQLAlchemy driver that the URL is to name."""

    def function(self, script: Script) -> Callable[..., Any]:
        """Make a transaction of this type and colour."""

        def blocking(tx: Any) -> Any:
            return block(script(lambda request: self.perform(tx, request)))

        async def awaited(tx: Any) -> Any:
            return await wait(script(lambda request: self.perform(tx, request)))

        function: Any = awaited if self.asynchronous else blocking
        function.__annotations__ = {"tx": self.handle}
        return function  # type: ignore[no-any-return]  # of whatever colour

    def perform(self, tx: Any, request: Request) -> Op[Any]:
        """Do as a user of this type would."""
        if callable(request):
            return (yield from call(request, tx))
        if self.name == "asyncpg":
            return [tuple(row) for row in (yield from call(tx.fetch, request))]
        if self.name.startswith("sqlmodel"):  # wants its users to say exec
            tx = yield from call(tx.connection)
        plain = self.name.startswith(("sqlite3", "psycopg"))
        answer = yield from call(tx.execute, request if plain else sqlalchemy.text(request))
        if not plain:
            return [tuple(row) for row in answer] if answer.returns_rows else []
        return (yield from call(answer.fetchall)) if answer.description else []


POSTGRES, SQLITE = ("postgres",), ("sqlite",)
BOTH = POSTGRES + SQLITE

WAYS: Final = (
    Way("sqlite3", sqlite3.Connection, SQLITE),
    Way("psycopg", psycopg.Connection, POSTGRES),
    Way("psycopg-async", psycopg.AsyncConnection, POSTGRES, asynchronous=True),
    Way("asyncpg", asyncpg.Connection, POSTGRES, asynchronous=True),
    Way("sqlalchemy", sqlalchemy.Connection, BOTH),
    Way("sqlalchemy-async", AsyncConnection, BOTH, asynchronous=True),
    Way("session", Session, BOTH),
    Way("session-async", AsyncSession, BOTH, asynchronous=True),
    Way("session-asyncpg", AsyncSession, POSTGRES, asynchronous=True, driver="asyncpg"),
    Way("sqlmodel", sqlmodel.Session, BOTH),
    Way("sqlmodel-async", AsyncModelSession, BOTH, asynchronous=True),
)
CASES: Final = [(way, dialect) for way in WAYS for dialect in way.dialects]
IDS: Final = [f"{way.name}-{dialect}" for way, dialect in CASES]
ON_POSTGRES: Final = [way for way in WAYS if "postgres" in way.dialects]


@dataclass
class Book:
    """The ledger of one step of a workflow that runs under claim 1."""

    workflow_id: str
    position: str = "1"
    claim: int = 1
    adoptions: int = 0

    @property
    def key(self) -> tuple[str, str]:
        return self.workflow_id, self.position

    def check(self) -> None: ...

    def opening(self) -> tuple[Statement, ...]:
        return ()

    def closing(self, output: str) -> tuple[Statement, ...]:
        entry = Entry(self.position, 1, Kind.TRANSACTION, "body", output=output, isolation="serializable")
        return (Statement("record", record_parameters(Guard(self.workflow_id, self.claim), entry), Fenced),)

    def adopt(self) -> Op[Adopted | None]:
        self.adoptions += 1
        entries = yield from ask(Load(self.workflow_id))
        mine = next((entry for entry in entries if entry.position == self.position), None)
        if mine is not None and mine.output is not None:
            return Adopted(mine.output)
        row = yield from ask(Describe(self.workflow_id))
        if row is None or row.claim != self.claim:
            raise Fenced
        return None


class Fenced(BaseException):
    """Another owner has the workflow."""


@dataclass
class Bench:
    """A database with a journal, in which transactions run as steps of a workflow."""

    store: Store
    source: Datasource
    url: str
    loop: asyncio.AbstractEventLoop
    pauses: list[float] = field(default_factory=list[float])

    def begin(self, workflow_id: str = "w", *, executor: int = 1) -> Book:
        """Start a workflow under claim 1."""
        row = NewWorkflow(workflow_id, "flow", "[]", "", nonce=1, executor=executor)
        assert self.store.ask(Start(row)).created
        return Book(workflow_id)

    def run(self, way: Way, script: Script, book: Ledger | None = None, **options: Any) -> Done:
        """Run a transaction as a step of a workflow, or with no record at all if it is read-only."""
        return self.play(self.transaction(way, script, book, **options), way)

    def transaction(self, way: Way, script: Script, book: Ledger | None = None, **options: Any) -> Op[Done]:
        """Make the operation that `run` drives."""
        function = way.function(script)
        work = Work("body", function, encode, decode=msgspec.json.decode, **options)
        if book is None and not work.read_only:
            book = self.begin()
        return self.source.transact(function, work, book)

    def play(self, op: Op[T], way: Way) -> T:
        """Drive an operation in the way's colour, on this thread or on the loop's."""
        if way.asynchronous:
            return self.submit(op).result(60)
        return block(op, self.answer)

    def submit(self, op: Op[T]) -> Future[T]:
        """Drive an operation on the loop."""
        return asyncio.run_coroutine_threadsafe(wait(op, self.answer), self.loop)

    def answer(self, command: Command[Any]) -> Any:
        if isinstance(command, Invoke):
            return command.fn(*command.args, **command.kwargs)
        if isinstance(command, Pause):
            self.pauses.append(command.seconds)
            return None
        return self.store.ask(command)

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        """Execute a statement beside everything else, in a commit of its own."""
        if self.store.dialect == "sqlite":
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
                return connection.execute(text).fetchall()
        with psycopg.connect(self.url, autocommit=True) as side:
            cursor = side.execute(text.encode())
            return cursor.fetchall() if cursor.description else []

    @property
    def steps(self) -> str:
        return "operon_steps" if self.store.dialect == "sqlite" else "operon.steps"

    def recorded(self) -> list[tuple[Any, ...]]:
        """Everything in the journal."""
        return self.sql(f"select position, output from {self.steps} order by workflow_id, position")  # noqa: S608 - a test's own

    def money(self) -> int:
        """The balance of account 1; it begins with 100."""
        return int(self.sql("select cents from accounts where id = 1")[0][0])


DEBIT: Final = "update accounts set cents = cents - 10 where id = 1"


def debit(sql: Sql) -> Op[int]:
    """Take ten from account 1, and give 7."""
    yield from sql(DEBIT)
    return 7


def encode(value: object) -> tuple[str, Any]:
    """Stand in for the codec."""
    text = msgspec.json.encode(value).decode()
    return text, msgspec.json.decode(text)


@contextmanager
def bench(dialect: str, url: str, loop: asyncio.AbstractEventLoop, through: str | None = None) -> Generator[Bench]:
    """Open a database with a journal and two accounts of 100; transactions may go `through` another address."""
    from operon.stores.postgres import PostgresStore
    from operon.stores.sqlite import SqliteStore

    store: Any = SqliteStore(url) if dialect == "sqlite" else PostgresStore(url)
    store.open()
    source = Datasource(through or url, store.queries, store.writer)
    place = Bench(store, source, url, loop)
    place.sql("create table accounts (id integer primary key, cents integer not null)")
    place.sql("insert into accounts values (1, 100), (2, 100)")
    try:
        yield place
    finally:
        place.source.close()
        store.close()


@contextmanager
def running_loop() -> Generator[asyncio.AbstractEventLoop]:
    """Run a loop on a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        joined(thread)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
