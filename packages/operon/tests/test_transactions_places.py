"""Where a transaction runs: on engines and pools of the user's, in a second database, in one of the caller's own."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from inspect import isawaitable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import asyncpg
import psycopg
import psycopg_pool
import pytest
import sqlalchemy
import sqlmodel
from sqlalchemy import NullPool, event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from children import PATIENCE
from operon.core.commands import Describe, Op
from operon.core.ledger import Work
from operon.core.rows import NewWorkflow, workflow_parameters
from operon.datasources import Datasource
from operon.datasources.kinds import declared
from operon.errors import DeclarationError, StoreUnavailable, WrongDatabase
from transacting import CASES, IDS, WAYS, Bench, Sql, Way, bench, debit, encode, running_loop

if TYPE_CHECKING:
    from sqlalchemy import Connection as OnlyForTypes

BY_NAME = {way.name: way for way in WAYS}
ways = pytest.mark.parametrize(("way", "dialect"), CASES, ids=IDS)


@pytest.fixture(scope="module")
def loop() -> Generator[asyncio.AbstractEventLoop]:
    with running_loop() as loop:
        yield loop


Open = Callable[[str], Bench]


@pytest.fixture
def url_for(request: pytest.FixtureRequest) -> Callable[[str], str]:
    def url_for(dialect: str) -> str:
        if dialect == "sqlite":
            return f"sqlite:///{request.getfixturevalue('sqlite_path')}"
        url: str = request.getfixturevalue("ready_postgres_url")
        return url

    return url_for


# ── Another database than the journal's ──────────────────────────────────────────────────────────────────────────────


@ways
def test_another_database_keeps_a_record_of_its_own(
    way: Way, dialect: str, url_for: Callable[[str], str], tmp_path: Path, loop: asyncio.AbstractEventLoop
) -> None:
    """A crash between the two commits loses nothing and repeats nothing: the next run adopts what the first left."""
    url = url_for(dialect)
    scheme = url.replace("postgresql:", f"postgresql+{way.driver}:") if way.driver else url
    with bench("sqlite", f"sqlite:///{tmp_path}/journal.db", loop) as journal, bench(dialect, url, loop) as other:
        other.source.close()
        other.source = Datasource(scheme)
        book = journal.begin()
        other.store, store = journal.store, other.store
        try:
            first = other.run(way, debit, book)
            again = other.run(way, debit, book)  # the process died before the journal's entry
        finally:
            other.store = store
        assert (first.value, first.recorded) == (again.value, again.recorded) == (7, False)
        assert other.money() == 90
        assert journal.recorded() == []
        table = "operon_transactions" if dialect == "sqlite" else "operon.transactions"
        assert other.sql(f"select workflow_id, position, output from {table}") == [("w", "1", "7")]  # noqa: S608


def test_two_runs_in_another_database_at_once_commit_once(
    ready_postgres_url: str, tmp_path: Path, loop: asyncio.AbstractEventLoop
) -> None:
    way = BY_NAME["psycopg"]
    with (
        bench("sqlite", f"sqlite:///{tmp_path}/journal.db", loop) as journal,
        bench("postgres", ready_postgres_url, loop) as other,
    ):
        other.source.close()
        other.source = Datasource(ready_postgres_url)
        book = journal.begin()
        both = threading.Barrier(2)
        first = threading.local()

        def script(sql: Sql) -> Op[int]:
            yield from sql("select 1")
            if not hasattr(first, "done"):
                first.done = True
                both.wait(PATIENCE)
            return (yield from debit(sql))

        store, other.store = other.store, journal.store
        with ThreadPoolExecutor(2) as pool:
            done = [run.result(PATIENCE) for run in [pool.submit(other.run, way, script, book) for _ in range(2)]]
        other.store = store
        assert [it.value for it in done] == [7, 7]
        assert other.money() == 90


# ── The caller's own transaction ─────────────────────────────────────────────────────────────────────────────────────


def connect(way: Way, url: str) -> Any:
    """Open one as a user of this type would."""
    spelled = url.replace("postgresql:", f"postgresql+{way.driver or 'psycopg'}:")
    if way.name == "sqlite3":
        return sqlite3.connect(url.removeprefix("sqlite:///"), check_same_thread=False)
    if way.name.startswith("psycopg"):
        return cast("Any", way.handle).connect(url)
    if way.name == "asyncpg":
        return cast("Any", asyncpg).connect(url)
    make: Any = create_async_engine if way.asynchronous else sqlalchemy.create_engine
    if way.asynchronous:
        spelled = spelled.replace("sqlite:", "sqlite+aiosqlite:")
    engine = make(spelled, poolclass=NullPool)
    session: Any = way.handle
    opened: Any = engine.connect() if way.name.startswith("sqlalchemy") else session(engine)
    return opened


async def given(value: Any) -> Any:
    return await value if isawaitable(value) else value


@ways
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_start_joins_the_callers_transaction(
    way: Way, dialect: str, end: str, url_for: Callable[[str], str], loop: asyncio.AbstractEventLoop
) -> None:
    url = url_for(dialect)
    row = workflow_parameters(NewWorkflow("joined", "flow", "[]", "", nonce=1))

    async def scenario(place: Bench) -> None:
        handle = await given(connect(way, url))
        manual = handle.transaction() if way.name == "asyncpg" else None
        if manual is not None:
            await manual.start()
        elif way.name == "sqlite3":
            handle.execute("begin immediate")
        opened = place.source.within(handle)
        assert len(await given(opened.execute("join", row))) == 1
        assert len(await given(opened.execute("join", row))) == 0
        assert [tuple(it) for it in await given(opened.execute("joined", {"id": "joined", "dedupe": None}))] == [
            ("flow", "", 0, "joined", None)
        ]
        assert place.store.ask(Describe("joined")) is None
        await given(getattr(manual or handle, end)())
        await given(handle.close())
        assert (place.store.ask(Describe("joined")) is not None) == (end == "commit")

    with bench(dialect, url, loop) as place:
        asyncio.run_coroutine_threadsafe(scenario(place), loop).result(PATIENCE)


@ways
def test_the_callers_transaction_in_another_database_is_refused(
    way: Way, dialect: str, url_for: Callable[[str], str], tmp_path: Path, loop: asyncio.AbstractEventLoop
) -> None:
    url = url_for(dialect)
    other = f"sqlite:///{tmp_path}/other.db" if dialect == "sqlite" else url.rpartition("/")[0] + "/postgres"

    async def scenario(place: Bench) -> None:
        handle = await given(connect(way, other))
        with pytest.raises(WrongDatabase, match="one commit cannot hold both"):
            await given(place.source.within(handle).execute("joined", {"id": "w", "dedupe": None}))
        await given(handle.close())

    with bench(dialect, url, loop) as place:
        asyncio.run_coroutine_threadsafe(scenario(place), loop).result(PATIENCE)


def test_within_takes_connections_of_this_database_only(sqlite_path: Path) -> None:
    source = Datasource(f"sqlite:///{sqlite_path}", {})
    with pytest.raises(WrongDatabase, match=r"not builtins\.str"):
        source.within("x")
    with pytest.raises(WrongDatabase, match="sqlite database"):
        source.within(object.__new__(psycopg.Connection))


@ways
def test_a_start_inside_a_transaction_of_ours_joins_it(
    way: Way, dialect: str, url_for: Callable[[str], str], loop: asyncio.AbstractEventLoop
) -> None:
    row = workflow_parameters(NewWorkflow("child", "flow", "[]", "", nonce=1))
    from operon.core import context

    def script(sql: Sql) -> Op[int]:
        tx = context.transaction()
        rows = yield from sql(lambda _: place.source.within(tx).execute("join", row))
        assert len(rows) == 1
        assert place.store.ask(Describe("child")) is None
        return (yield from debit(sql))

    with bench(dialect, url_for(dialect), loop) as place:
        assert place.run(way, script).recorded
        assert place.store.ask(Describe("child")) is not None


# ── Engines and pools of the user's ──────────────────────────────────────────────────────────────────────────────────


def test_pools_of_the_users_are_used_and_left_as_they_were(
    ready_postgres_url: str, loop: asyncio.AbstractEventLoop
) -> None:
    from psycopg.rows import dict_row

    with (
        bench("postgres", ready_postgres_url, loop) as place,
        psycopg_pool.ConnectionPool(
            ready_postgres_url, min_size=1, max_size=1, kwargs={"row_factory": dict_row}
        ) as pool,
    ):
        place.source.close()
        place.source = Datasource(pool, place.store.queries)
        assert place.run(BY_NAME["psycopg"], debit).recorded
        with pool.connection() as mine:
            left: tuple[Any, bool] = (mine.row_factory, mine.autocommit)
        assert left == (dict_row, False)


def test_an_engine_of_the_users_may_begin_by_itself(sqlite_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    """SQLAlchemy's own recipe for SQLite has a listener begin; it would begin without the right to write."""
    url = f"sqlite:///{sqlite_path}"
    engine = sqlalchemy.create_engine(url)

    @event.listens_for(engine, "begin")
    def _(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("begin")

    with bench("sqlite", url, loop) as place:
        place.source = Datasource(engine, place.store.queries, place.store.writer)
        assert place.run(BY_NAME["session"], debit).recorded
        assert place.money() == 90
    engine.dispose()


class Base(DeclarativeBase):
    """The root of mapped classes."""


class Account(Base):
    """A row of the bench's."""

    __tablename__ = "accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    cents: Mapped[int]


@pytest.mark.parametrize("name", ["session", "session-async", "session-asyncpg", "sqlmodel", "sqlmodel-async"])
def test_what_a_session_keeps_is_written_before_the_record(
    name: str, ready_postgres_url: str, loop: asyncio.AbstractEventLoop
) -> None:
    way = BY_NAME[name]
    through = ready_postgres_url.replace("postgresql:", f"postgresql+{way.driver}:") if way.driver else None

    def change(tx: Any) -> Any:
        return tx.get(Account, 1)

    def script(sql: Sql) -> Op[int]:
        account = yield from sql(change)
        account.cents -= 10
        yield from sql(lambda tx: tx.add(Account(id=3, cents=5)))
        return 1

    with bench("postgres", ready_postgres_url, loop, through) as place:
        place.sql(
            "create function late() returns trigger language plpgsql as $$ begin "
            "if exists (select from operon.steps) then raise 'the record was first'; end if; return new; end $$; "
            "create trigger late before insert or update on accounts for each row execute function late()"
        )
        assert place.run(way, script).recorded
        assert place.sql("select id, cents from accounts order by id") == [(1, 90), (2, 100), (3, 5)]


# ── One writer ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["session-async", "sqlmodel-async"])
def test_waiting_for_the_writer_does_not_block_the_loop(
    name: str, sqlite_path: Path, loop: asyncio.AbstractEventLoop
) -> None:
    with bench("sqlite", f"sqlite:///{sqlite_path}", loop) as place:
        assert place.store.writer is not None
        book = place.begin()
        with place.store.writer:  # type: ignore[attr-defined]  # threading's
            waiting = place.submit(place.transaction(BY_NAME[name], debit, book))
            cancelled = place.submit(place.transaction(BY_NAME[name], debit, book))
            for _ in range(3):
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(PATIENCE)
            assert not waiting.done()
            cancelled.cancel()
        assert waiting.result(PATIENCE).recorded
        assert place.run(BY_NAME["sqlite3"], debit, place.begin("next")).recorded
        assert place.money() == 80


def test_a_writer_that_never_comes_is_told(sqlite_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from operon.datasources import turn
    from operon.datasources.call import block

    monkeypatch.setattr(turn, "PATIENCE", 0.01)
    held = threading.Lock()
    with held, pytest.raises(StoreUnavailable, match="one writer"):
        block(turn.Turn(held).take(asynchronous=False))


# ── Choosing by type ─────────────────────────────────────────────────────────────────────────────────────────────────


class MySession(Session):
    """A session of the user's own."""


def test_the_type_of_the_first_parameter_is_found_however_it_is_written() -> None:
    def plain(tx: psycopg.Connection[Any]) -> None: ...
    def quoted(tx: "psycopg.Connection[tuple[int, ...]]", other: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037
    def annotated(tx: Annotated[MySession, "main"]) -> None: ...
    def hidden(tx: OnlyForTypes) -> None: ...
    async def model(tx: AsyncSession) -> None: ...

    class Bank:
        def method(self, tx: sqlmodel.Session) -> None: ...

    assert declared(plain) is declared(cast("Any", quoted)) is psycopg.Connection
    assert declared(annotated) is MySession
    assert declared(hidden) is sqlalchemy.Connection
    assert declared(model) is AsyncSession
    assert declared(Bank.method) is sqlmodel.Session


def test_a_type_that_cannot_be_is_refused_with_the_choices() -> None:
    def nothing(): ...  # type: ignore[no-untyped-def]
    def untyped(tx): ...  # type: ignore[no-untyped-def]
    def number(tx: int) -> None: ...
    def unknown(tx: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037
    def blocking(tx: AsyncSession) -> None: ...
    async def awaited(tx: sqlite3.Connection) -> None: ...

    functions: list[Any] = [nothing, untyped, number, unknown, blocking, awaited]  # pyright: ignore[reportUnknownVariableType]  # as they are meant to be
    for function in functions:
        with pytest.raises(DeclarationError, match=r"sqlite3\.Connection, psycopg\.Connection"):
            declared(function)


def test_a_driver_of_another_database_is_refused(sqlite_path: Path) -> None:
    def function(tx: psycopg.Connection) -> None: ...

    with pytest.raises(DeclarationError, match="its database is sqlite"):
        Datasource(f"sqlite:///{sqlite_path}").adapter(function)


def test_what_cannot_be_recorded_is_not_committed(sqlite_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    def function(tx: sqlite3.Connection) -> object:
        tx.execute("update accounts set cents = 0")
        return object()

    with bench("sqlite", f"sqlite:///{sqlite_path}", loop) as place:
        work = Work("body", function, encode, decode=str)
        with pytest.raises(TypeError):
            place.play(place.source.transact(function, work, place.begin()), BY_NAME["sqlite3"])
        assert place.money() == 100
