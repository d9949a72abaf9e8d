# ruff: noqa: S608 - statements of a test's own
"""Whatever breaks, and whenever, the user's rows are written once; and nothing of ours makes a transaction fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal
from urllib.parse import urlsplit

import psycopg
import pytest

from children import PATIENCE, eventually
from operon.core.commands import Op
from operon.core.context import Step, doing
from operon.core.ledger import Work
from operon.datasources import Datasource
from operon.datasources.adapters.psycopg import PsycopgAdapter
from operon.datasources.opened import Transaction
from operon.errors import StoreError, StoreUnavailable
from transacting import DEBIT, ON_POSTGRES, WAYS, Bench, Sql, Way, bench, debit, running_loop

PSYCOPG = next(way for way in WAYS if way.name == "psycopg")


@pytest.fixture(scope="module")
def loop() -> Generator[asyncio.AbstractEventLoop]:
    with running_loop() as loop:
        yield loop


class Wire:
    """A relay to Postgres that can be cut as a client's COMMIT passes."""

    def __init__(self, host: str, port: int) -> None:
        self.server = (host, port)
        self.cut: Literal["before", "after"] | None = None
        """"before": the server never sees the commit; "after": the client never sees the answer to it."""
        self.cuts = 0

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._relay, "127.0.0.1", 0)

    async def _relay(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        server, forth = await asyncio.open_connection(*self.server)
        cut = asyncio.Event()
        pumps = [
            asyncio.create_task(self._forth(client, forth, cut)),
            asyncio.create_task(self._back(server, back, cut)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.wait(pumps)
        for end in (forth, back):
            end.close()

    async def _forth(self, client: asyncio.StreamReader, forth: asyncio.StreamWriter, cut: asyncio.Event) -> None:
        while data := await client.read(65536):
            if self.cut is not None and b"commit" in data.lower():
                self.cuts += 1
                when, self.cut = self.cut, None
                if when == "before":
                    return
                cut.set()
            forth.write(data)

    async def _back(self, server: asyncio.StreamReader, back: asyncio.StreamWriter, cut: asyncio.Event) -> None:
        while data := await server.read(65536):
            if cut.is_set():
                return
            back.write(data)


@contextmanager
def wired(way: Way, url: str, loop: asyncio.AbstractEventLoop) -> Generator[tuple[Bench, Wire]]:
    address = urlsplit(url)
    wire = Wire(address.hostname or "", address.port or 5432)
    with running_loop() as relaying:
        server = asyncio.run_coroutine_threadsafe(wire.listen(), relaying).result(PATIENCE)
        port = server.sockets[0].getsockname()[1]
        through = address._replace(netloc=address.netloc.replace(f":{address.port}", f":{port}"))
        if way.driver:
            through = through._replace(scheme=f"postgresql+{way.driver}")
        with bench("postgres", url, loop, through.geturl()) as place:
            yield place, wire
        relaying.call_soon_threadsafe(server.close)
        ended = lambda: not asyncio.run_coroutine_threadsafe(others(), relaying).result(PATIENCE)  # noqa: E731
        eventually(ended, "nothing is relayed any more")


async def others() -> int:
    """Count the other tasks of this loop."""
    await asyncio.sleep(0)
    return len(asyncio.all_tasks()) - 1


def named(ways: list[Way]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("way", ways, ids=[way.name for way in ways])


@named(ON_POSTGRES)
@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_connection_lost_while_committing_commits_once(
    way: Way, cut: Literal["before", "after"], ready_postgres_url: str, loop: asyncio.AbstractEventLoop
) -> None:
    with wired(way, ready_postgres_url, loop) as (place, wire):
        book = place.begin()
        wire.cut = cut
        done = place.run(way, debit, book)
        assert wire.cuts == 1
        assert (done.value, done.recorded) == (7, True)
        assert place.money() == 90
        assert place.recorded() == [("1", "7")]
        assert book.adoptions >= 1


@named(ON_POSTGRES)
def test_a_connection_lost_before_the_commit_runs_again(
    way: Way, ready_postgres_url: str, loop: asyncio.AbstractEventLoop
) -> None:
    with wired(way, ready_postgres_url, loop) as (place, _):
        calls: list[int] = []

        def script(sql: Sql) -> Op[int]:
            calls.append(1)
            yield from sql(DEBIT)
            if len(calls) == 1:
                pid = (yield from sql("select pg_backend_pid()"))[0][0]
                place.sql(f"select pg_terminate_backend({pid}, 5000)")
            yield from sql("update accounts set cents = cents - 10 where id = 2")
            return 1

        assert place.run(way, script).recorded
        assert len(calls) == 2
        assert place.sql("select cents from accounts order by id") == [(90,), (90,)]


@named(ON_POSTGRES)
def test_a_connection_lost_at_the_record_runs_again(
    way: Way, ready_postgres_url: str, loop: asyncio.AbstractEventLoop
) -> None:
    """The user's code ends well, and the first to notice is our own statement."""
    with wired(way, ready_postgres_url, loop) as (place, _):
        calls: list[int] = []

        def script(sql: Sql) -> Op[int]:
            calls.append(1)
            yield from sql(DEBIT)
            if len(calls) == 1:
                pid = (yield from sql("select pg_backend_pid()"))[0][0]
                place.sql(f"select pg_terminate_backend({pid}, 5000)")
            return 1

        assert place.run(way, script).recorded
        assert len(calls) == 2
        assert place.money() == 90


@named([PSYCOPG])
def test_a_connection_lost_while_the_table_of_records_is_made_fails_nobody(
    way: Way, ready_postgres_url: str, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a database that is not the journal's: that there was no table yet is not why the transaction fails."""
    lost: list[str] = []

    def begin(self: PsycopgAdapter, work: Work) -> Op[Transaction]:
        if not lost:
            lost.append(work.name)
            raise psycopg.OperationalError("connection refused")
        return right(self, work)

    right = PsycopgAdapter.begin
    monkeypatch.setattr(PsycopgAdapter, "begin", begin)
    with bench("postgres", ready_postgres_url, loop) as place:
        place.source.close()
        place.source = Datasource(ready_postgres_url, journal="here")
        assert place.run(way, debit).value == 7
        assert lost == ["create the table of records"]
        assert place.money() == 90


@named(ON_POSTGRES)
def test_idle_connections_that_the_server_closed_are_replaced(
    way: Way, ready_postgres_url: str, loop: asyncio.AbstractEventLoop
) -> None:
    with wired(way, ready_postgres_url, loop) as (place, _):
        place.run(way, debit, place.begin("first"))
        place.sql(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid() and query ilike 'commit%'"
        )
        assert place.run(way, debit, place.begin("second")).recorded
        assert place.money() == 80


def test_a_database_out_of_reach_is_unavailable_after_a_minute_of_patience(
    ready_postgres_url: str, loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """Meanwhile the log says who waits, ever less often."""
    with bench("postgres", ready_postgres_url, loop, "postgresql://127.0.0.1:1/nowhere") as place:
        place.source.waiting = 0.01
        with pytest.raises(StoreUnavailable, match="out of reach"), doing(Step("pay", "1", 1, "order-7:1")):
            place.run(PSYCOPG, debit)
        assert 40 < sum(place.pauses) < 120
    told = [record.message for record in caplog.records if record.name == "operon"]
    assert len(told) == 5
    assert all("(order-7:1) waits for its database" in it for it in told)


@named([PSYCOPG, *(way for way in WAYS if way.name in {"psycopg-async", "asyncpg", "session-asyncpg"})])
def test_a_transaction_that_idles_is_ended_by_the_server_and_says_so_at_last(
    way: Way, ready_postgres_url: str, loop: asyncio.AbstractEventLoop
) -> None:
    with wired(way, ready_postgres_url, loop) as (place, _):
        place.source.idle = 0.05
        calls: list[int] = []

        def script(sql: Sql) -> Op[None]:
            calls.append(1)
            pid = (yield from sql("select pg_backend_pid()"))[0][0]
            yield from sql(DEBIT)
            yield from sql(partial(idle, pid))

        def idle(pid: int, _: object) -> Any:
            """Do nothing with the connection until it is gone; on a loop, as on a thread, others go on meanwhile."""
            statement = f"select 1 from pg_stat_activity where pid = {pid}"
            eventually(lambda: not place.sql(statement), "it is gone")
            return asyncio.sleep(0.01) if way.asynchronous else None

        with pytest.raises(StoreError, match="without using it until the server ended it, 4 times") as caught:
            place.run(way, script)
        assert not isinstance(caught.value, StoreUnavailable)
        assert calls
        assert len(place.pauses) >= 3  # a connection that is ended before the code has it is lost, and tried again, too
        assert place.money() == 100


def test_nothing_of_ours_makes_a_serializable_transaction_fail(
    ready_postgres_url: str, loop: asyncio.AbstractEventLoop
) -> None:
    """8 threads, rows of their own, ids that sort by time, and a journal of thousands of rows: no failure at all."""
    threads, each, journal = 8, 60, 4000
    with bench("postgres", ready_postgres_url, loop) as place:
        place.sql(f"insert into accounts select n, 100 from generate_series(3, {threads * 5000}) n")
        place.sql(
            "insert into operon.steps (workflow_id, position, ordinal, attempt, claim, started_at, ended_at, kind, "
            "name, digest, version, output) select lpad(n::text, 20, '0'), '1', 1, 1, 1, now(), now(), 'step', 's', "
            f"'', '', '1' from generate_series(1, {journal}) n"
        )
        place.sql("analyze")

        def worker(thread: int) -> int:
            for number in range(each):
                book = place.begin(f"{time.time_ns():020}-{thread}")
                account = 3 + thread * 5000 + number  # so far apart that no two threads meet on a page of the user's

                def script(sql: Sql, account: int = account) -> Op[int]:
                    yield from sql(f"update accounts set cents = cents - 1 where id = {account}")
                    return account

                assert place.run(PSYCOPG, script, book).recorded
            return each

        with ThreadPoolExecutor(threads) as pool:
            assert sum(pool.map(worker, range(threads))) == threads * each
        assert place.pauses == []
        assert len(place.recorded()) == journal + threads * each
