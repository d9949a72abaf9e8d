"""Where gevent or eventlet has put greenlets in the place of threads: async workflows are refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

import operon
from children import PATIENCE
from engine.conftest import MakeApp
from operon import Operon, aio
from operon.errors import WrongColour

pytestmark = pytest.mark.parametrize("database", ["memory:"])
REAL = threading.get_ident


def ident() -> int:
    """Answer by a function of Python, as both do."""
    return REAL()


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "get_ident", ident)


@pytest.mark.usefixtures("patched")
def test_async_workflows_are_refused_beside_greenlets(make: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """Before anything is recorded of them, and none is claimed; the app says so at its launch."""
    app = make()
    queue = app.queue("later")

    @app.workflow
    async def flow() -> int:
        return 1

    @app.workflow
    def blocking() -> int:
        return 2

    @app.workflow
    def parent() -> int:
        return operon.start(flow).result(PATIENCE)

    with app:
        assert [record for record in caplog.records if "gevent" in record.getMessage()]
        with pytest.raises(WrongColour, match="gevent or eventlet"):
            operon.start(flow)
        with pytest.raises(WrongColour, match="gevent or eventlet"):
            parent()
        assert operon.count(name="flow") == 0
        elsewhere = operon.enqueue(queue, flow)
        assert operon.start(blocking).result(PATIENCE) == 2
        assert operon.describe(elsewhere.id).status == "queued"
    caplog.clear()


@pytest.mark.usefixtures("patched")
def test_an_app_that_runs_nothing_starts_async_workflows_beside_greenlets(make: MakeApp) -> None:
    app = make()

    @app.workflow
    async def flow() -> int:
        return 1

    app.launch(run=False)
    assert operon.describe(operon.start(flow).id).status == "queued"


@pytest.mark.usefixtures("patched")
def test_an_async_lifespan_is_refused_beside_greenlets(database: str) -> None:
    @asynccontextmanager
    async def lifespan(_: Operon) -> AsyncGenerator[None]:
        yield

    with pytest.raises(WrongColour, match="gevent or eventlet"):
        Operon("app", database=database, lifespan=lifespan).launch()


@pytest.mark.usefixtures("patched")
def test_blocking_code_that_finds_itself_on_a_loop_is_told_of_greenlets(make: MakeApp) -> None:
    """A thread that is a greenlet is on the loop of all others: to call it on a thread would not help."""
    app = make()

    @app.workflow
    def blocking() -> int:
        return 2

    async def main() -> None:
        with pytest.raises(WrongColour, match="gevent or eventlet"):
            blocking()

    with app:
        asyncio.run(main())


def test_a_process_that_is_not_patched_runs_async_workflows(make: MakeApp) -> None:
    app = make()

    @app.workflow
    async def flow() -> int:
        return await aio.call(int, "1")

    with app:
        assert operon.start(flow).result(PATIENCE) == 1
