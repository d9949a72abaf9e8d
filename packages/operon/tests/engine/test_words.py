"""Words between processes: what one starts or cancels, another hears of before its next heartbeat."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

import operon
from children import PATIENCE, eventually
from engine.conftest import MakeApp
from operon import Operon
from operon.app.declarations import Workflow
from operon.core import asking
from operon.errors import WorkflowCancelled
from operon.stores.postgres import notices
from operon.stores.postgres.session import Address

LONG = 3600.0
"""A lease so long that no heartbeat can be what helped."""


@pytest.fixture
def sure_to_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a launch end when its listener listens, however long it takes to connect: no heartbeat comes otherwise."""
    monkeypatch.setattr(notices, "RECONNECT", PATIENCE)


def worker(make: MakeApp) -> tuple[Operon, threading.Event, threading.Event]:
    app = make("worker", lease=LONG)
    begun, stopped = threading.Event(), threading.Event()

    @app.workflow(name="double")
    def double(n: int) -> int:
        return 2 * n

    @app.workflow(name="endless")
    def endless() -> None:
        begun.set()
        try:
            while True:
                operon.sleep(0.02)
        finally:
            stopped.set()

    return app, begun, stopped


@pytest.mark.usefixtures("sure_to_listen")
def test_a_start_in_another_process_is_heard(make: MakeApp) -> None:
    """A process that runs nothing starts; one that was idle takes it up at once."""
    app, *_ = worker(make)
    front = make("front", lease=LONG)

    @front.workflow(name="double")
    def double(n: int) -> int:
        raise AssertionError(n)

    with app:
        front.launch(run=False)
        for n in range(5):
            assert operon.start(double, n).result(20) == 2 * n


@pytest.mark.usefixtures("sure_to_listen")
def test_a_delayed_start_in_another_process_is_heard(make: MakeApp) -> None:
    app, *_ = worker(make)
    front = make("front", lease=LONG)

    @front.workflow(name="double")
    def double(n: int) -> int:
        raise AssertionError(n)

    with app:
        front.launch(run=False)
        assert operon.start(double.using(delay=0.2), 4).result(20) == 8


@pytest.mark.usefixtures("sure_to_listen")
def test_a_cancellation_in_another_process_is_heard(make: MakeApp, database: Any) -> None:
    if isinstance(database, str) and database.startswith("sqlite"):
        pytest.skip("on SQLite a cancellation is noticed at the next record or heartbeat: commits carry no words")
    app, begun, stopped = worker(make)
    front = make("front", lease=LONG)
    with app:
        handle = operon.start(app_function(app, "endless"))
        assert begun.wait(PATIENCE), "what never begins has nothing to stop"
        front.launch(run=False)
        assert front.host is not None
        front.host.drive(asking.cancel(front.host, handle.id))
        assert stopped.wait(PATIENCE)
        with pytest.raises(WorkflowCancelled):
            handle.result(PATIENCE)


def app_function(app: Operon, name: str) -> Any:
    found: Workflow[..., Any] = Workflow(app.functions[name])
    return found


def test_a_listener_that_was_cut_off_listens_again(postgres_url: str) -> None:
    """A listening connection that was cut is made again, and what was said meanwhile is asked for."""
    app, front = (Operon(name, database=postgres_url, lease=LONG) for name in ("worker", "front"))

    @app.workflow(name="double")
    def double(n: int) -> int:
        return 2 * n

    there = front.workflow(name="double")(double.fn)
    with app, psycopg.connect(postgres_url, autocommit=True) as connection:
        front.launch(run=False)
        listening = "from pg_stat_activity where application_name = 'operon listen' and query ilike 'listen%'"
        eventually(lambda: connection.execute(f"select count(*) {listening}").fetchone() == (2,), "two that listen")
        assert len(connection.execute(f"select pg_terminate_backend(pid) {listening}").fetchall()) == 2
        assert operon.start(there, 21).result(20) == 42
        front.close()


def test_who_listens_late_looks_for_what_was_said(ready_postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection may take longer than a launch waits for it; what was said meanwhile is one word."""
    connected, words, connect = threading.Event(), list[str](), Address.connect

    def late(address: Address) -> psycopg.Connection[Any]:
        assert connected.wait(PATIENCE)
        return connect(address)

    monkeypatch.setattr(notices, "RECONNECT", 0.01)
    monkeypatch.setattr(Address, "connect", late)
    here = notices.Notices(ready_postgres_url)
    try:
        here.listen(words.append)
        connected.set()
        eventually(lambda: words, "a word for what was said before")
    finally:
        connected.set()
        here.close()
    assert words == ["ready"]
