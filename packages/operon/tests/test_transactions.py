"""The user's rows and our record are one commit, whatever type the transaction takes; nothing else ends it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import cycle
from typing import Any

import psycopg
import pytest
import sqlalchemy

from children import PATIENCE, eventually
from operon.core import context
from operon.core.commands import Op
from operon.errors import StoreError, StoreReadOnly, TransactionEnded
from transacting import BOTH, CASES, DEBIT, IDS, WAYS, Bench, Fenced, Sql, Way, bench, debit, running_loop


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with running_loop() as loop:
        yield loop


@pytest.fixture(params=CASES, ids=IDS)
def way(request: pytest.FixtureRequest) -> Way:
    return request.param[0]  # type: ignore[no-any-return]  # a Way


def only(wanted: Callable[[Way], bool], dialects: tuple[str, ...] = BOTH) -> pytest.MarkDecorator:
    """Leave out the ways in which the case cannot arise."""
    chosen = [(case, name) for case, name in zip(CASES, IDS, strict=True) if wanted(case[0]) and case[1] in dialects]
    return pytest.mark.parametrize("way", [case for case, _ in chosen], ids=[name for _, name in chosen], indirect=True)


on_postgres = only(lambda _: True, ("postgres",))
"""SQLite has one writer at a time, one isolation level, no roles, and a failed statement there undoes only itself."""


@pytest.fixture
def place(way: Way, request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop) -> Iterator[Bench]:
    dialect = request.node.callspec.params["way"][1]
    if dialect == "sqlite":
        url = f"sqlite:///{request.getfixturevalue('sqlite_path')}"
    else:
        url = request.getfixturevalue("ready_postgres_url")
    through = url.replace("postgresql:", f"postgresql+{way.driver}:") if way.driver else None
    with bench(dialect, url, loop, through) as place:
        yield place


def test_rows_and_record_are_one_commit(place: Bench, way: Way) -> None:
    done = place.run(way, debit)
    assert (done.value, done.output, done.recorded) == (7, "7", True)
    assert place.money() == 90
    assert place.recorded() == [("1", "7")]
    assert not place.pauses


def test_an_error_of_the_user_undoes_both_and_is_raised_as_it_is(place: Bench, way: Way) -> None:
    mine = ValueError("no")

    def script(sql: Sql) -> Op[None]:
        yield from sql(DEBIT)
        raise mine

    with pytest.raises(ValueError, match="no") as caught:
        place.run(way, script)
    assert caught.value is mine
    assert place.money() == 100
    assert place.recorded() == []
    assert place.run(way, debit, place.begin("next")).recorded  # the connection is as good as new


def test_who_lost_the_claim_commits_nothing(place: Bench, way: Way) -> None:
    book = place.begin()
    book.claim = 0
    with pytest.raises(Fenced):
        place.run(way, debit, book)
    assert place.money() == 100
    assert place.recorded() == []


def test_a_second_run_of_the_same_step_adopts_the_record_of_the_first(place: Bench, way: Way) -> None:
    book = place.begin()
    place.run(way, debit, book)

    def script(sql: Sql) -> Op[int]:
        yield from sql(DEBIT)
        return 8

    done = place.run(way, script, book)
    assert (done.value, done.recorded, book.adoptions) == (7, True, 1)
    assert place.money() == 90


@on_postgres
def test_a_transaction_that_began_before_the_record_was_there_adopts_it(place: Bench, way: Way) -> None:
    book = place.begin()
    rival: list[bool] = []

    def script(sql: Sql) -> Op[int]:
        yield from sql("update accounts set cents = cents - 10 where id = 2")
        if not rival:
            rival.append(True)
            with ThreadPoolExecutor(1) as other:  # another owner's process
                other.submit(place.run, WAYS[1], debit, book).result(PATIENCE)
        return 8

    done = place.run(way, script, book)
    assert (done.value, done.recorded) == (7, True)
    assert place.sql("select cents from accounts order by id") == [(90,), (100,)]


def test_a_failed_statement_whose_error_is_swallowed_commits_nothing(place: Bench, way: Way) -> None:
    def script(sql: Sql) -> Op[None]:
        yield from sql(DEBIT)
        with suppress(Exception):
            yield from sql("insert into accounts values (1, 1)")

    if place.store.dialect == "sqlite":  # where a failed statement undoes only itself
        assert place.run(way, script).recorded
        assert place.money() == 90
        return
    with pytest.raises(StoreError, match="swallowed"):
        place.run(way, script)
    assert place.money() == 100
    assert place.recorded() == []


@on_postgres
def test_a_swallowed_error_is_found_where_there_is_no_record_to_write(place: Bench, way: Way) -> None:

    def script(sql: Sql) -> Op[None]:
        with suppress(Exception):
            yield from sql("select 1 / 0")

    with pytest.raises(StoreError, match="swallowed"):
        place.run(way, script, read_only=True)


@pytest.mark.parametrize("method", ["commit", "rollback", "close"])
def test_ending_the_transaction_by_its_method_is_refused(place: Bench, way: Way, method: str) -> None:
    if way.name == "asyncpg":  # which has no other
        method = "close"

    def script(sql: Sql) -> Op[None]:
        yield from sql(DEBIT)
        yield from sql(lambda tx: getattr(tx, method)())

    with pytest.raises(TransactionEnded, match="return to commit"):
        place.run(way, script)
    assert place.money() == 100
    assert place.recorded() == []
    assert place.run(way, debit, place.begin("next")).recorded


@pytest.mark.parametrize("rest", [(), ("begin",), ("begin", DEBIT)], ids=["", "begin", "begin-write"])
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_ending_the_transaction_in_sql_is_found_out(place: Bench, way: Way, end: str, rest: tuple[str, ...]) -> None:
    def script(sql: Sql) -> Op[None]:
        for statement in (end, *rest):
            yield from sql(statement)

    with pytest.raises(TransactionEnded, match="return to commit"):
        place.run(way, script)
    assert place.recorded() == []
    assert place.money() == 100
    assert place.run(way, debit, place.begin("next")).recorded


def test_savepoints_are_the_users(place: Bench, way: Way) -> None:
    def script(sql: Sql) -> Op[int]:
        yield from sql(DEBIT)
        yield from sql("savepoint mine")
        yield from sql(DEBIT)
        yield from sql("rollback to mine")
        yield from sql("release mine")
        return 1

    assert place.run(way, script).recorded
    assert place.money() == 90


def nested(way: Way) -> Callable[[Any], Any]:
    """Give what enters a savepoint in the library's own words, writes in it, and fails."""

    def blocking(tx: Any) -> None:
        with suppress(ZeroDivisionError), tx.transaction() if way.name == "psycopg" else tx.begin_nested():
            target = tx.connection() if way.name == "sqlmodel" else tx
            target.execute(DEBIT if way.name == "psycopg" else sqlalchemy.text(DEBIT))
            _ = 1 // 0

    async def awaited(tx: Any) -> None:
        plain = way.name in {"psycopg-async", "asyncpg"}
        with suppress(ZeroDivisionError):
            async with tx.transaction() if plain else tx.begin_nested():
                target = await tx.connection() if way.name == "sqlmodel-async" else tx
                await target.execute(DEBIT if plain else sqlalchemy.text(DEBIT))
                _ = 1 // 0

    return awaited if way.asynchronous else blocking


@only(lambda way: way.name != "sqlite3")
def test_nested_transactions_of_the_library_are_savepoints(place: Bench, way: Way) -> None:
    def script(sql: Sql) -> Op[int]:
        yield from sql(DEBIT)
        yield from sql(nested(way))
        yield from sql(DEBIT)
        return 1

    assert place.run(way, script).recorded
    assert place.money() == 80


def test_a_read_only_transaction_writes_nothing_and_may_not(place: Bench, way: Way) -> None:
    def read(sql: Sql) -> Op[int]:
        rows = yield from sql("select cents from accounts where id = 1")
        return int(rows[0][0])

    done = place.run(way, read, read_only=True)
    assert (done.value, done.recorded) == (100, False)
    with pytest.raises(StoreReadOnly, match="read_only=True"):
        place.run(way, debit, read_only=True)
    assert place.money() == 100
    assert place.recorded() == []
    assert place.run(way, debit).recorded  # the connection may write again
    assert not place.pauses


@pytest.mark.parametrize(
    "text",
    ["select id from accounts", "update accounts set cents = 60 returning id", None],
    ids=["select", "returning", "read-only"],
)
@only(lambda way: not way.asynchronous, ("sqlite",))
def test_a_cursor_that_outlives_its_transaction_keeps_nobody_out(place: Bench, way: Way, text: str | None) -> None:
    """Left half-read, it would keep its own commit out, or hold the snapshot that the next one begins with."""
    kept: list[object] = []
    select = text or "select id from accounts"

    def leave(sql: Sql) -> Op[int]:
        yield from sql(lambda tx: kept.append(execute(tx)))
        return 1

    def execute(tx: Any) -> Any:
        tx = tx.connection() if way.name == "sqlmodel" else tx
        return tx.execute(select if way.name == "sqlite3" else sqlalchemy.text(select))

    def read(sql: Sql) -> Op[int]:
        rows = yield from sql("select cents from accounts where id = 1")
        return int(rows[0][0])

    place.run(way, leave, place.begin("leaving"), read_only=text is None)
    place.sql("update accounts set cents = 50 where id = 1")
    assert place.run(way, read, read_only=True).value == 50
    assert place.run(way, debit, place.begin("after")).recorded
    assert (place.money(), place.pauses, len(kept)) == (40, [], 1)


@only(lambda way: way.name == "sqlite3")
def test_a_blob_that_outlives_its_transaction_keeps_nobody_out(place: Bench, way: Way) -> None:
    kept: list[object] = []

    def leave(sql: Sql) -> Op[int]:
        yield from sql("create table files (data blob)")
        yield from sql("insert into files values (zeroblob(8))")
        yield from sql(lambda tx: kept.append(tx.blobopen("files", "data", 1)))
        return 1

    place.run(way, leave, place.begin("leaving"))
    assert place.run(way, debit, place.begin("after")).recorded
    assert (place.money(), place.pauses, len(kept)) == (90, [], 1)


@pytest.mark.parametrize("isolation", ["serializable", "repeatable read", "read committed"])
@on_postgres
def test_the_isolation_asked_for_is_in_force(place: Bench, way: Way, isolation: Any) -> None:

    settings = ("transaction_isolation", "transaction_read_only", "idle_in_transaction_session_timeout")

    def script(sql: Sql) -> Op[list[str]]:
        found: list[str] = []
        for setting in settings:
            found += (yield from sql(f"select current_setting('{setting}')"))[0]
        return found

    assert place.run(way, script, isolation=isolation).value == [isolation, "off", "15s"]


@on_postgres
def test_a_role_left_behind_does_not_keep_us_from_recording(place: Bench, way: Way) -> None:
    place.sql("drop role if exists clerk; create role clerk; grant all on accounts to clerk")
    calls: list[int] = []

    def script(sql: Sql) -> Op[int]:
        calls.append(1)
        yield from sql("set local role clerk")
        yield from sql("set local search_path to nowhere, public")
        yield from sql(DEBIT)
        return 1

    try:
        assert place.run(way, script).recorded
        assert place.money() == 90
        assert len(calls) == 2
    finally:
        place.sql("drop owned by clerk; drop role clerk")


def test_the_transaction_is_ambient_in_its_body_and_nowhere_else(place: Bench, way: Way) -> None:
    seen: list[Any] = []
    told: list[str] = []

    def script(sql: Sql) -> Op[int]:
        tx = context.transaction()
        tx.after_commit(lambda: told.append("committed"))
        yield from sql(lambda handle: seen.append(handle is tx.handle))
        seen.append(tx)
        assert not told
        return 1

    place.run(way, script)
    assert seen[0]
    assert told == ["committed"]
    assert context.transaction() is None
    with pytest.raises(TransactionEnded):
        seen[1].execute("join", {})


@on_postgres
def test_a_conflict_with_another_transaction_is_retried(place: Bench, way: Way) -> None:
    calls: list[int] = []

    def script(sql: Sql) -> Op[int]:
        calls.append(1)
        balance = (yield from sql("select cents from accounts where id = 1"))[0][0]
        if len(calls) == 1:
            place.sql("update accounts set cents = cents + 1 where id = 1")
        yield from sql(f"update accounts set cents = {balance - 10} where id = 1")  # noqa: S608 - a number
        return 1

    assert place.run(way, script).recorded
    assert len(calls) == 2
    assert place.money() == 91
    assert len(place.pauses) == 1


WAITING = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"


@on_postgres
def test_a_deadlock_is_retried(place: Bench, way: Way) -> None:
    calls: list[int] = []
    second = "update accounts set cents = cents - 10 where id = 2"

    def rival() -> None:
        with psycopg.connect(place.url) as other:
            other.execute("set deadlock_timeout = '1h'")
            other.execute("update accounts set cents = cents + 1 where id = 2")
            ready.set()
            other.execute("update accounts set cents = cents + 1 where id = 1")

    ready = threading.Event()

    def script(sql: Sql) -> Op[int]:
        calls.append(1)
        yield from sql("set local deadlock_timeout = '10ms'")
        yield from sql(DEBIT)
        if len(calls) == 1:
            running.append(other.submit(rival))
            assert ready.wait(PATIENCE)
            eventually(lambda: place.sql(WAITING), "the rival waits for our lock")
        yield from sql(second)
        return 1

    running: list[Any] = []
    with ThreadPoolExecutor(1) as other:
        assert place.run(way, script).recorded
        running[0].result(PATIENCE)
    assert len(calls) > 1
    assert place.sql("select cents from accounts order by id") == [(91,), (91,)]


@on_postgres
def test_a_kept_error_of_the_database_is_still_recognised(place: Bench, way: Way) -> None:
    """A serialization failure that the user's code wraps in an error of its own is retried all the same."""
    calls: list[int] = []

    def script(sql: Sql) -> Op[int]:
        calls.append(1)
        yield from sql("select cents from accounts where id = 1")
        if len(calls) == 1:
            place.sql("update accounts set cents = cents + 1 where id = 1")
        try:
            yield from sql(DEBIT)
        except Exception as error:
            raise LookupError from error
        return 1

    assert place.run(way, script).recorded
    assert len(calls) == 2


@only(lambda way: way.asynchronous)
def test_a_cancelled_task_rolls_back_and_gives_its_connection_back(place: Bench, way: Way) -> None:
    entered = threading.Event()

    def script(sql: Sql) -> Op[None]:
        yield from sql(DEBIT)
        entered.set()
        yield from sql(lambda _tx: asyncio.sleep(PATIENCE))

    running = place.submit(place.transaction(way, script))
    assert entered.wait(PATIENCE)
    running.cancel()
    assert place.run(way, debit, place.begin("next")).recorded
    assert place.money() == 90
    assert place.recorded() == [("1", "7")]


def stream(tx: psycopg.Connection) -> object:
    rows = tx.cursor().stream("select generate_series(1, 9)")
    return next(rows), rows


def copy(tx: psycopg.Connection) -> object:
    copying = tx.cursor().copy("copy accounts to stdout")
    return copying.__enter__().read(), copying


def pipeline(tx: psycopg.Connection) -> object:
    sending = tx.pipeline()
    sending.__enter__()
    return tx.execute(DEBIT), sending


async def stream_async(tx: psycopg.AsyncConnection) -> object:
    rows = tx.cursor().stream("select generate_series(1, 9)")
    return await anext(rows), rows


LEFT: dict[str, tuple[Callable[[Any], object], ...]] = {
    "psycopg": (stream, copy, pipeline),
    "psycopg-async": (stream_async,),
}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What a function has left half-done, which somebody keeps; its connection is waited for a moment only."""
    monkeypatch.setattr("operon.datasources.adapters.psycopg.LETTING_GO", 0.01)
    return []


@only(lambda way: way.name in LEFT)
def test_what_is_left_half_done_hides_no_error_and_holds_no_connection(
    place: Bench, way: Way, kept: list[object]
) -> None:
    """A stream keeps the connection's lock as long as somebody has it: the traceback of the error does."""

    def script(sql: Sql) -> Op[None]:
        yield from sql(DEBIT)
        kept.append((yield from sql(next(leaving))))
        raise LookupError

    leaving = cycle(LEFT[way.name])
    for number in range(place.source.size + 1):
        with pytest.raises(LookupError):
            place.run(way, script, place.begin(f"w{number}"))
    assert place.run(way, debit, place.begin("next")).recorded
    assert (place.money(), place.pauses) == (90, [])


@only(lambda way: way.name in LEFT)
def test_what_is_left_half_done_as_the_function_returns_is_named(place: Bench, way: Way, kept: list[object]) -> None:
    """It cannot commit, and says why: that nobody may end the transaction is no help."""

    def script(sql: Sql) -> Op[None]:
        yield from sql(DEBIT)
        kept.append((yield from sql(LEFT[way.name][0])))

    with pytest.raises(StoreError, match="a stream or a copy on its connection was under way"):
        place.run(way, script, place.begin("w"))
    assert place.run(way, debit, place.begin("next")).recorded
    assert place.money() == 90
