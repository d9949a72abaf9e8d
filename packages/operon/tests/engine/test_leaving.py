"""Leaving a function early: by a long wait, or by a cancellation; whatever the body makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import operon
from children import PATIENCE, eventually
from engine.conftest import HOUR, MakeApp, Woken
from operon import Operon, aio
from operon.engine import timerthread
from operon.engine.engine import Engine
from operon.errors import Cancelled, Suspended, WorkflowCancelled


def bare_except() -> str:
    try:
        operon.sleep(0.3)
    except:  # noqa: E722 - what is tested
        return "a lie"
    return "slept"


def return_in_finally() -> str:
    slept = "a lie"
    try:
        operon.sleep(0.3)
        slept = "slept"
    finally:
        return slept  # noqa: B012 - what is tested


def suppressing() -> str:
    with contextlib.suppress(BaseException):
        operon.sleep(0.3)
        return "slept"
    return "a lie"


def wrapping() -> str:
    try:
        operon.sleep(0.3)
    except BaseException as error:
        raise RuntimeError("wrapped") from error
    return "slept"


def in_a_generator() -> str:
    def waits() -> Iterator[str]:
        operon.sleep(0.3)
        yield "slept"

    return next(waits())


def beside_an_executor() -> str:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(int, "1")
        operon.sleep(0.3)
        return "slept" if future.result() == 1 else "a lie"


BODIES = [bare_except, return_in_finally, suppressing, wrapping, in_a_generator, beside_an_executor]


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_no_body_can_make_an_outcome_of_leaving(make: MakeApp, body: Callable[[], str]) -> None:
    """The run's dead flag decides: what a body returns or raises while it leaves is nobody's result."""
    app = make()
    flow = app.workflow(body)
    with app:
        assert operon.start(flow).result(20) == "slept"


def test_nothing_durable_happens_while_a_body_leaves(make: MakeApp, woken: Woken) -> None:
    """Steps and verbs in `finally` raise again at once and record nothing; the replay runs them for real."""
    app = make()
    ran: list[str] = []
    refused: list[str] = []

    @app.step
    def tidy() -> None:
        ran.append("tidy")

    @app.workflow
    def flow() -> None:
        try:
            operon.sleep(HOUR)
        finally:
            for verb in (tidy, operon.now, operon.uuid4, lambda: operon.sleep(0)):
                try:
                    verb()
                except Suspended:
                    refused.append("refused")

    with app:
        handle = operon.start(flow.using(key="w"))
        woken(app, "w")
        handle.result(20)
        assert [s.kind for s in operon.steps("w")] == ["sleep", "step", "now", "uuid", "sleep"]
    assert ran == ["tidy"]
    assert len(refused) == 4


def test_a_generator_that_ends_later_finds_a_dead_run(make: MakeApp, woken: Woken) -> None:
    """Its `finally` runs when it is collected, in whatever thread; verbs there must not write for the new run."""
    app = make()
    kept: list[Any] = []
    seen: list[type[BaseException]] = []

    @app.workflow
    def flow() -> str:
        def keeper() -> Iterator[None]:
            try:
                yield
            finally:
                try:
                    operon.uuid4()
                except BaseException as error:
                    seen.append(type(error))

        if not kept:
            generator = keeper()
            next(generator)
            kept.append(generator)
        operon.sleep(HOUR)
        return "done"

    with app:
        handle = operon.start(flow.using(key="w"))
        eventually(lambda: operon.describe("w").status == "waiting")
        kept[0] = None
        gc.collect()
        woken(app, "w")
        assert handle.result(20) == "done"
        assert [s.kind for s in operon.steps("w")] == ["sleep"]
    assert all(issubclass(it, BaseException) for it in seen)


def test_context_managers_are_left_and_entered_again(make: MakeApp, woken: Woken) -> None:
    app = make()
    log: list[str] = []

    @contextlib.contextmanager
    def resource() -> Generator[None]:
        log.append("open")
        try:
            yield
        finally:
            log.append("close")

    @app.workflow
    def flow() -> None:
        with resource():
            operon.sleep(HOUR)

    with app:
        handle = operon.start(flow)
        woken(app, handle.id)
        handle.result(20)
    assert log == ["open", "close"] * 2


def test_cleanup_runs_after_a_cancellation(make: MakeApp) -> None:
    """In `except Cancelled` steps do run, though nothing is recorded any more; other verbs raise again."""
    app = make()
    ran: list[str] = []
    inside, ended = threading.Event(), threading.Event()

    @app.step
    def refund() -> str:
        ran.append("refund")
        return "refunded"

    @app.workflow
    def flow() -> None:
        try:
            inside.set()
            while True:
                operon.sleep(0.02)
        except Cancelled:
            ran.append(refund())
            try:
                operon.sleep(1)
            except Cancelled:
                ran.append("no sleep")
            ended.set()
            raise

    with app:
        handle = operon.start(flow.using(key="w"))
        assert inside.wait(PATIENCE)
        operon.cancel("w")
        assert ended.wait(PATIENCE)
        with pytest.raises(WorkflowCancelled):
            handle.result(PATIENCE)
        assert "step" not in [s.kind for s in operon.steps("w")]
    assert ran == ["refund", "refunded", "no sleep"]


def test_an_async_body_is_cancelled_at_its_await(make: MakeApp) -> None:
    """A body that awaits something of its own is reached too: its tasks are cancelled."""
    app = make()
    inside, ended = threading.Event(), threading.Event()

    @app.step
    async def note() -> None:
        inside.set()

    @app.workflow
    async def flow() -> None:
        try:
            await note()
            await aio.sleep(0.01)
            await asyncio.gather(asyncio.create_task(aio.sleep(30)), asyncio.create_task(asyncio.Event().wait()))
        finally:
            ended.set()

    with app:
        handle = operon.start(flow.using(key="w"))
        assert inside.wait(PATIENCE)
        operon.cancel("w")
        assert ended.wait(PATIENCE)
        with pytest.raises(WorkflowCancelled):
            handle.result(PATIENCE)


def test_sleepers_do_not_accumulate_threads(make: MakeApp) -> None:
    """Two hundred asleep hold no thread: the pool's limit bounds them all."""
    app = make(threads=8)

    @app.workflow
    def flow() -> None:
        operon.sleep(3600)

    with app:
        before = threading.active_count()
        for _ in range(200):
            operon.start(flow)
        eventually(lambda: operon.count(status="waiting") == 200)
        assert threading.active_count() <= before + 8 + 4


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_sleepers_leave_nothing_in_memory(sqlite_path: Path, colour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sleeper is a row: with 600 more asleep, the process has fewer than one object more for each."""
    monkeypatch.setattr(timerthread, "ROOM", 50)  # what was cancelled is thrown out before there is more of it
    app = Operon("app", database=f"sqlite:///{sqlite_path}", grace=0.05)

    @app.workflow
    def flow() -> None:
        operon.sleep(3600)

    @app.workflow
    async def aflow() -> None:
        await aio.sleep(3600)

    def objects() -> int:
        gc.collect()
        return len(gc.get_objects())

    def put_to_sleep(count: int) -> None:
        asleep = operon.count(status="waiting")
        for _ in range(count):
            operon.start(flow if colour == "sync" else aflow)
        eventually(lambda: operon.count(status="waiting") == asleep + count and not _engine(app).runs.claims())

    with app:
        put_to_sleep(100)
        before = objects()
        put_to_sleep(600)
        eventually(lambda: objects() - before < 600)  # the last of them may be on their way out


def test_a_loop_that_is_over_is_forgotten(make: MakeApp) -> None:
    """A program that calls `asyncio.run` again and again keeps none of the loops, nor what ran on them."""
    app = make()
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    @app.workflow
    async def flow() -> None:
        await aio.sleep(0)

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        async with app:
            await flow()

    def forgotten() -> bool:
        gc.collect()
        return all(loop() is None for loop in loops)

    for _ in range(2):
        asyncio.run(main())
    eventually(forgotten, "a loop is kept")  # a thread that gave it something may be about to let go of it
    assert len(loops) == 2


def _engine(app: Operon) -> Engine:
    assert app._engine is not None
    return app._engine


def test_an_async_body_that_awaits_something_foreign_is_cancelled(make: MakeApp) -> None:
    """Where no verb can raise in it, the body's task is cancelled; it is not left until it comes to a verb."""
    app = make()
    inside, ended = threading.Event(), threading.Event()

    @app.workflow
    async def flow() -> None:
        inside.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with app:
        handle = operon.start(flow.using(key="w"))
        assert inside.wait(PATIENCE)
        operon.cancel("w")
        assert ended.wait(PATIENCE)
        with pytest.raises(WorkflowCancelled):
            handle.result(PATIENCE)


def test_a_failure_in_the_background_is_logged_with_its_place(make: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody may be waiting for it: the log says what failed, and where. Who called it himself is told by the error."""
    app = make()

    @app.workflow
    def flow() -> None:
        raise LookupError("nothing there")

    def told() -> list[logging.LogRecord]:
        return [it for it in caplog.records if "failed" in it.getMessage()]

    with app:
        with pytest.raises(LookupError):
            flow()
        assert not told()
        with pytest.raises(LookupError):
            operon.start(flow.using(key="w")).result(PATIENCE)
    (record,) = told()
    assert record.levelname == "WARNING"
    assert "w (" in record.getMessage()
    assert record.exc_info is not None
