"""Closing ends in time: whatever is locked, away or hung, it is not waited for."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

import operon
from children import PATIENCE, eventually, joined, ran
from crash.proxy import Fault, Proxy, Rule
from operon import Client, Operon, aio
from operon.engine import executor, loops
from operon.errors import StoreError

SAID = "is closed, though"


def test_a_body_that_is_told_to_end_may_end_what_it_tells_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """As drivers do, which cancel a statement when the task that awaits it is cancelled."""
    monkeypatch.setattr(loops, "LEAVING", PATIENCE)  # that it takes less is up to the machine
    app, inside, seen = Operon("app", database="memory:"), threading.Event(), list[str]()

    @app.step
    async def statement() -> None:
        inside.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            seen.append("the server is told")
            raise

    @app.workflow
    async def flow() -> None:
        await statement()

    app.launch()
    operon.start(flow)
    assert inside.wait(PATIENCE)
    app.close(drain=0)
    eventually(lambda: seen == ["the server is told"])


def busy(app: Operon, began: threading.Event) -> Any:
    """Declare a workflow that writes a record all the time."""

    @app.step
    def one(n: int) -> int:
        if n > 3:
            began.set()
        return n

    @app.workflow(name="busy")
    def flow() -> int:
        return sum(one(n) for n in range(1_000_000))

    return flow


@contextmanager
def locked(url: str) -> Generator[None]:
    """Hold what every write needs, as a backup or a forgotten shell does."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=20)) as file:
            file.execute("begin immediate")
            yield
    else:
        with psycopg.connect(url) as connection:
            connection.execute("lock table operon.workflows, operon.executors, operon.steps in exclusive mode")
            yield


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, sqlite_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{sqlite_path}"
    found: str = request.getfixturevalue("ready_postgres_url")
    return found


def closes(close: Callable[[], object]) -> None:
    """Close on a thread that is waited for, but not for as long as a store has patience."""
    thread = threading.Thread(target=close, daemon=True)
    thread.start()
    thread.join(25)
    assert not thread.is_alive(), "it waits for what does not let go"


@pytest.mark.parametrize("drain", [0, 0.2])
def test_a_lock_held_elsewhere_is_not_waited_for(
    url: str, drain: float, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left behind; and once the lock is gone, all is as after a crash: the workflow goes on where it was."""
    caplog.set_level(logging.INFO)
    # What is left behind lasts longer than any stall of the thread that looks.
    monkeypatch.setattr(executor, "PATIENCE", PATIENCE)
    began = threading.Event()
    app = Operon("app", database=url, lease=1.0)
    app.launch()
    operon.start(busy(app, began).using(key="w"))
    assert began.wait(30)
    with locked(url):
        closes(lambda: app.close(drain=drain))
        assert [it.message for it in caplog.records if SAID in it.message]
    again = Operon("app", database=url, lease=1.0)
    began.clear()
    flow = busy(again, began)
    with again:
        assert began.wait(60)
        assert flow.__name__ == "flow"
        operon.cancel("w")


def test_a_client_is_not_kept_by_a_lock(url: str) -> None:
    with Operon("app", database=url):
        pass
    client = Client(url)
    client.__enter__()

    def ask() -> None:
        with suppress(StoreError):
            client.start("nobody")

    with locked(url):
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        closes(client.close)
    joined(asking)


def test_a_server_that_does_not_answer_is_not_waited_for(ready_postgres_url: str) -> None:
    """Its network swallows what is sent, and says nothing."""
    rules = [Rule(b"", Fault.HELD, armed=False) for _ in range(20)]
    with Proxy(ready_postgres_url, *rules) as proxy:
        began = threading.Event()
        app = Operon("app", database=proxy.url, lease=1.0)
        app.launch()
        operon.start(busy(app, began).using(key="w"))
        assert began.wait(30)
        for rule in rules:
            rule.armed = True
        rules[0].await_met()
        closes(lambda: app.close(drain=0.1))


def test_an_async_lifespan_that_does_not_end_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    @asynccontextmanager
    async def lifespan(_: Operon) -> AsyncGenerator[None]:
        yield
        await asyncio.get_running_loop().create_future()

    app = Operon("app", database="memory:", lifespan=lifespan)
    app.launch()
    closes(lambda: app.close(drain=0.1))
    assert "The lifespan does not leave its loop; the app is closed without it." in caplog.messages


def test_an_app_that_was_left_behind_is_launched_again(url: str) -> None:
    """What still waits for the lock has nothing of the app that is launched meanwhile."""
    app = Operon("app", database=url, lease=1.0)

    def one(_: Any) -> int:
        return 1

    one.__annotations__["_"] = sqlite3.Connection if url.startswith("sqlite") else psycopg.Connection
    alone = app.transaction(one)

    @app.workflow
    async def aflow() -> int:
        await aio.sleep(0)
        return 1

    for _ in range(3):
        app.launch()
        operon.start(aflow).result(30)
        assert alone() == 1
        with locked(url):
            closes(lambda: app.close(drain=0))
    with app:
        assert operon.start(aflow).result(60) == 1
        eventually(lambda: operon.count(status="succeeded") == 7)


PROGRAM = """
import sqlite3, sys, threading, operon
path, kind = sys.argv[1:]
app = operon.Operon("app", database=f"sqlite:///{path}")
began = threading.Event()

@app.step
def hang() -> None:
    began.set()
    threading.Event().wait()

@app.transaction
def write(c: sqlite3.Connection) -> None:
    began.set()
    threading.Event().wait()

@app.workflow
def flow() -> None:
    hang() if kind == "step" else write()

app.launch()
operon.start(flow)
began.wait()
app.close(drain=0.1)
print("closed")
"""


@pytest.mark.parametrize("kind", ["step", "transaction"])
def test_a_process_that_closed_ends(tmp_path: Path, kind: str) -> None:
    """No thread of ours keeps an interpreter that has come to its end."""
    done = ran(sys.executable, "-c", PROGRAM, str(tmp_path / "a.db"), kind, check=True)
    assert done.stdout == "closed\n"
