"""Connections for transactions whose network swallows what is sent are lost in ten seconds, whatever the driver."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import operon
from children import PATIENCE, eventually
from crash.proxy import Fault, Proxy, Rule
from operon import Operon
from operon.core.commands import Op
from operon.datasources import Datasource, stopping
from operon.errors import Cancelled
from transacting import ON_POSTGRES, Sql, Way, bench, running_loop

OPTIONS = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")


@pytest.fixture(scope="module")
def loop() -> Generator[asyncio.AbstractEventLoop]:
    with running_loop() as loop:
        yield loop


def options(handle: Any) -> list[int]:
    """What a driver's connection has set on its socket."""
    for name in ("sync_session", "sync_connection"):
        handle = getattr(handle, name, None) or handle
    if not hasattr(handle, "pgconn") and hasattr(handle, "connection"):  # SQLAlchemy's
        handle = handle.connection() if callable(handle.connection) else handle
        handle = handle.connection.driver_connection
    handle = getattr(handle, "_con", handle)
    if hasattr(handle, "_transport"):
        connected = handle._transport.get_extra_info("socket")
        return [connected.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in OPTIONS]
    with socket.socket(fileno=socket.dup(handle.fileno())) as connected:
        return [connected.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in OPTIONS]


def spelled(way: Way, url: str) -> str:
    """Name the driver that a way is to have."""
    return url.replace("postgresql:", f"postgresql+{way.driver}:") if way.driver else url


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this platform has no such options")
@pytest.mark.parametrize("way", ON_POSTGRES, ids=lambda way: way.name)
@pytest.mark.parametrize("said", ["", "?keepalives_idle=77"])
def test_a_connection_that_we_open_is_watched(
    way: Way, said: str, ready_postgres_url: str, loop: asyncio.AbstractEventLoop
) -> None:
    """But what the address says itself is what is done."""
    if said and (way.driver or way.name == "asyncpg"):
        pytest.skip("asyncpg knows no such parameter")
    seen: list[list[int]] = []

    def script(sql: Sql) -> Op[None]:
        yield from sql(lambda tx: seen.append(options(tx)))

    with bench("postgres", ready_postgres_url, loop) as place:
        place.source.close()
        place.source = Datasource(spelled(way, ready_postgres_url) + said)
        place.run(way, script)
    assert seen == [[77 if said else 5, 2, 3, 10_000]]


BLOCKING = [way for way in ON_POSTGRES if not way.asynchronous]


@pytest.mark.parametrize("way", BLOCKING, ids=lambda way: way.name)
def test_a_server_that_does_not_answer_keeps_no_thread_of_what_is_cancelled(
    way: Way, ready_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes no cancellation either: its connection is broken."""
    monkeypatch.setattr(stopping, "AGAIN", 0.05)
    rule, heard = Rule(b"select 77", Fault.HELD), list[str]()
    with Proxy(ready_postgres_url, rule) as proxy:
        app = Operon("bank", database=ready_postgres_url, datasources={"bank": proxy.url})

        def script(sql: Sql) -> Op[None]:
            yield from sql("select 77")

        slow: Any = app.transaction(datasource="bank")(way.function(script))

        @app.workflow
        def flow() -> None:
            try:
                slow()
            except Cancelled:
                heard.append("heard")
                raise

        with app:
            operon.start(flow.using(key="w"))
            assert rule.met.wait(PATIENCE)
            operon.cancel("w")
            eventually(lambda: heard == ["heard"], "its thread waits for the server")
            rule.released.set()


@pytest.mark.parametrize("way", ON_POSTGRES, ids=lambda way: way.name)
def test_who_waits_for_a_connection_waits_in_line_and_is_not_told_that_the_database_is_away(
    way: Way, ready_postgres_url: str, loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """However long it lasts: who waited for the pool itself would be told so by that."""
    first, free = threading.Event(), threading.Event()

    def wait(_: object) -> Any:
        return asyncio.to_thread(free.wait, PATIENCE) if way.asynchronous else free.wait(PATIENCE)

    def script(sql: Sql) -> Op[None]:
        yield from sql("select 1")
        if not first.is_set():
            first.set()
            yield from sql(wait)

    with bench("postgres", ready_postgres_url, loop) as place, ThreadPoolExecutor(3) as threads:
        place.source.close()
        place.source = Datasource(spelled(way, ready_postgres_url), size=1, idle=PATIENCE)
        runs = [threads.submit(place.run, way, script)]
        assert first.wait(PATIENCE)
        runs += [threads.submit(place.run, way, script) for _ in range(2)]
        (line,) = place.source._lines.values()
        waiting = line._places if way.asynchronous else line._places._cond
        eventually(lambda: len(waiting._waiters or ()) == 2)
        free.set()
        for run in runs:
            run.result(PATIENCE)
    assert not [record for record in caplog.records if record.name.startswith("operon")]
