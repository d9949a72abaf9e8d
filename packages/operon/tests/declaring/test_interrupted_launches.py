"""A launch that is interrupted, by Ctrl-C or a cancellation, wherever it is: what it had begun is undone."""

from __future__ import annotations

import asyncio
import gc
import linecache
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from types import CodeType, FrameType
from typing import Any

import pytest

import operon
from children import PATIENCE
from engine.conftest import MakeApp
from operon import AsyncClient, Client, Operon
from operon.app.client import Connection
from operon.app.databases import Databases
from operon.core import apps
from operon.engine.engine import Engine
from operon.engine.executor import Executor
from operon.engine.heartbeat import Heartbeat
from operon.engine.loops import Loop
from operon.engine.machine import Machine
from operon.engine.timerthread import TimerThread
from operon.errors import StoreUnavailable

pytestmark = pytest.mark.anyio
LAUNCHING: tuple[Callable[..., Any], ...] = (
    Operon._launch,
    Engine.launch,
    Engine.connect,
    Connection._connect,
    Databases.open,
    Databases.sweep,
    Loop.running,
    TimerThread.start,
    Executor.start,
    Heartbeat.start,
    Machine.serve,
)


class Interruption(BaseException):
    """What a signal's handler raises in the main thread."""


class Line:
    """Raises at one line of what launches, on this thread: one that is so many lines later each time."""

    def __init__(self, step: int = 1) -> None:
        self._step = step
        self._codes: frozenset[CodeType] = frozenset(it.__code__ for it in LAUNCHING)
        self._wanted = self._passed = 0
        self._entered: set[tuple[FrameType, int]] = set()
        self.where: str | None = None

    @contextmanager
    def next(self) -> Generator[None]:
        """Interrupt what is done here at a later line than the last time; `where` is None if there is none."""
        self._wanted, self._passed, self.where = self._wanted + self._step, 0, None
        self._entered.clear()
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            yield
        except Interruption:
            assert self.where is not None
        finally:
            sys.settrace(before)
            self._entered.clear()

    def _call(self, frame: FrameType, event: str, arg: Any) -> Any:
        del event, arg
        return self._line if frame.f_code in self._codes else None

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        del arg
        if event == "line" and self._may_be_interrupted(frame):
            self._passed += 1
            if self._passed == self._wanted:
                self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                raise Interruption
        return self._line

    def _may_be_interrupted(self, frame: FrameType) -> bool:
        """Python lets no signal in at a `try:`, nor between a block's last line and the release of its lock."""
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        place = (frame, frame.f_lineno)
        again = place in self._entered
        self._entered.add(place)
        return text != "try:" and not (again and text.startswith("with "))


def nothing_is_left(app: Operon, threads: set[threading.Thread], where: str | None) -> None:
    assert app.host is None, where
    assert apps.launched == [], where
    assert "operon" not in ThreadPoolExecutor.submit.__module__, where
    assert not any("operon" in getattr(it, "__module__", "") for it in gc.callbacks), where
    for thread in {*threading.enumerate()} - threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), f"{thread.name} goes on after an interruption at {where}"


@pytest.mark.parametrize("colour", ["none", "sync", "awaited"])
def test_a_launch_that_is_interrupted_is_undone(
    make: MakeApp, database: Any, colour: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At every line (on Postgres, at some): no thread stays, the lifespan is left, and the next launch works."""
    inside = 0

    @contextmanager
    def sync(_: Operon) -> Generator[None]:
        nonlocal inside
        inside += 1
        yield
        inside -= 1

    @asynccontextmanager
    async def awaited(app: Operon) -> AsyncGenerator[None]:
        with sync(app):
            yield

    app = make(lifespan={"none": None, "sync": sync, "awaited": awaited}[colour])

    @app.workflow
    def flow(x: int) -> int:
        return x

    step = 7 if isinstance(database, str) and database.startswith("postgres") else 1
    threads, line, places = {*threading.enumerate()}, Line(step), list[str]()
    while True:
        app.launch(run=False)
        handle = operon.start(flow, len(places))
        app.close()
        with line.next():
            app.launch()
        if line.where is None:
            break
        nothing_is_left(app, threads, line.where)
        assert inside == 0, line.where
        with app:
            assert operon.retrieve(handle.id, flow).result(PATIENCE) == len(places), line.where
        places.append(line.where)
    assert flow(7) == 7
    app.close()
    for each in (Operon._launch, Engine.launch):
        assert any(each.__code__.co_qualname in place for place in places)
    assert [it for it in caplog.messages if "closed" in it or "close well" in it] == []


async def test_on_the_callers_loop_it_is_undone_too() -> None:
    """The loop gets its own functions back, at whichever line it was."""
    loop, app, line = asyncio.get_running_loop(), Operon("app", database="memory:"), Line()
    own, threads = (loop.get_task_factory(), loop.call_at, loop.call_soon), {*threading.enumerate()}

    def launch() -> None:
        with line.next():
            app._launch(loop)

    with ThreadPoolExecutor(1) as pool:
        await asyncio.wrap_future(pool.submit(lambda: threads.add(threading.current_thread())))
        while True:
            await asyncio.wrap_future(pool.submit(launch))
            if line.where is None:
                break
            nothing_is_left(app, threads, line.where)
            assert (loop.get_task_factory(), loop.call_at, loop.call_soon) == own, line.where
        await asyncio.wrap_future(pool.submit(app.close))


def test_a_client_that_is_interrupted_is_disconnected(make: MakeApp, database: Any) -> None:
    with make():
        pass
    client, threads, line = Client(database), {*threading.enumerate()}, Line()
    while True:
        with line.next():
            client.__enter__()
        if line.where is None:
            break
        for thread in {*threading.enumerate()} - threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"{thread.name} goes on after an interruption at {line.where}"
    assert client.count() == 0
    client.close()


@pytest.mark.parametrize("where", ["lifespan", "store"])
async def test_a_launch_that_is_cancelled_is_undone(
    make: MakeApp, monkeypatch: pytest.MonkeyPatch, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """`async with app:` ends as soon as the launch lets it, and nothing is launched then."""
    told: list[str] = []
    held, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @asynccontextmanager
    async def waits(_: Operon) -> AsyncGenerator[None]:
        told.append("enter")
        try:
            if where == "lifespan" and not go.is_set():
                held.set()
                await asyncio.wait_for(asyncio.Event().wait(), PATIENCE)
            yield
        finally:
            told.append("leave")

    def hold(engine: Executor) -> None:
        start(engine)
        loop.call_soon_threadsafe(held.set)
        assert go.wait(PATIENCE)

    app, start = make(lifespan=waits), Executor.start
    flow = app.workflow(name="flow")(lambda: 7)
    if where == "store":
        monkeypatch.setattr(Executor, "start", hold)
    entering = asyncio.ensure_future(app.__aenter__())
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait_for(held.wait(), PATIENCE)
        entering.cancel()
        if where == "store":
            await asyncio.sleep(0)
            entering.cancel()  # as anyio does, again and again
            go.set()
        with pytest.raises(asyncio.CancelledError):
            await entering
    assert (app.host, apps.launched, told) == (None, [], ["enter", "leave"])
    assert not any(it.name in {"operon-heartbeat", "operon-executor"} for it in threading.enumerate())
    assert caplog.messages == []
    go.set()
    async with app:
        assert await asyncio.to_thread(flow) == 7


async def test_a_client_that_is_cancelled_is_disconnected(
    make: MakeApp, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make():
        pass
    held, go, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

    def hold(engine: Engine) -> None:
        connect(engine)
        loop.call_soon_threadsafe(held.set)
        assert go.wait(PATIENCE)

    def disconnect(engine: Engine) -> None:
        told.append("disconnected")
        leave(engine)

    told = list[str]()
    connect, leave, client = Engine.connect, Engine.disconnect, AsyncClient(database)
    monkeypatch.setattr(Engine, "connect", hold)
    monkeypatch.setattr(Engine, "disconnect", disconnect)
    entering = asyncio.ensure_future(client.__aenter__())
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait_for(held.wait(), PATIENCE)
        entering.cancel()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await entering
    assert told == ["disconnected"]
    assert "closed" in repr(client)


def test_a_launch_whose_last_part_fails_is_undone(make: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is begun when workflows may run already is part of the launch."""
    app, threads = make(), {*threading.enumerate()}

    def fail(*_: Any) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(Databases, "sweep", fail)
    with pytest.raises(StoreUnavailable, match="gone"):
        app.launch()
    nothing_is_left(app, threads, "Databases.sweep")
    monkeypatch.undo()
    with app:
        assert app.host is not None


def test_a_drain_that_is_interrupted_closes_at_once(make: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a second Ctrl-C: what still runs is left, and no thread stays."""
    app, threads, begun, go = make(), {*threading.enumerate()}, threading.Event(), threading.Event()

    @app.workflow
    def flow() -> int:
        begun.set()
        assert go.wait(PATIENCE)
        return operon.now().year

    def interrupted(engine: Engine, seconds: float) -> None:
        drains.append(seconds)
        raise Interruption

    drains = list[float]()
    app.launch()
    handle = operon.start(flow)
    assert begun.wait(PATIENCE)
    monkeypatch.setattr(Engine, "_drain", interrupted)
    with pytest.raises(Interruption):
        app.close(drain=PATIENCE)
    assert drains == [PATIENCE]
    go.set()
    nothing_is_left(app, threads, "the drain")
    monkeypatch.undo()
    with app:
        assert operon.retrieve(handle.id, flow).result(PATIENCE) > 2000
