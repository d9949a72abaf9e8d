"""What is raised and is no `Exception`: a failure like any other, told the same in the first run and in each replay."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest

import operon
from engine.conftest import HOUR, MakeApp, Woken
from operon import aio
from operon.errors import Cancelled, StepFailed, Suspended


class Gone(BaseException):
    """As gevent's Timeout is."""

    def __init__(self, first: int, second: str) -> None:
        super().__init__(first)
        self.second = second

    def __str__(self) -> str:
        raise RuntimeError("no words")


async def cancelled() -> None:
    raise asyncio.CancelledError


RAISED: tuple[Callable[[], BaseException], ...] = (
    lambda: Gone(1, "b"),
    asyncio.CancelledError,
    GeneratorExit,
    KeyboardInterrupt,
    lambda: SystemExit(3),
    StopIteration,
    lambda: BaseExceptionGroup("both", [ValueError("a"), Suspended("b")]),
    Suspended,
    Cancelled,
    StopAsyncIteration,
)


def made(n: int) -> BaseException:
    return RAISED[n]()


def raised(n: int) -> None:
    """Raise what has this number; the one behind the last is what another loop lets through."""
    if n == len(RAISED):
        asyncio.run(cancelled())
    raise made(n)


def test_what_blocking_work_raises_is_a_failure_that_replays(make: MakeApp, database: Any, woken: Woken) -> None:
    """Whatever it is: the body is told `StepFailed`, a replay too, and the workflow ends."""
    app, told, ran = make(), list[list[str]](), list[int]()

    @app.step
    def step(n: int) -> None:
        ran.append(n)
        raised(n)

    def refuse(tx: Any, n: int) -> None:
        ran.append(n)
        raised(n)

    postgres = isinstance(database, str) and database.startswith("postgres")
    refuse.__annotations__["tx"] = psycopg.Connection if postgres else sqlite3.Connection
    transaction: Any = app.transaction(refuse)

    @app.workflow
    def flow() -> int:
        told.append(mine := [])
        for n in range(len(RAISED) + 1):
            for work in (step, transaction):
                try:
                    work(n)
                except BaseException as error:
                    mine.append(f"{type(error).__name__} {error}")
        operon.sleep(HOUR)
        return len(mine)

    with app:
        handle = operon.start(flow)
        woken(app, handle.id)
        assert handle.result(30) == 2 * len(RAISED) + 2
    assert len(told) > 1
    assert all(each == told[0] for each in told)
    assert {text.partition(" ")[0] for text in told[0]} == {"StepFailed", "StopAsyncIteration"}
    assert len(ran) == len(told[0])


def test_what_async_work_raises_is_a_failure_that_replays(make: MakeApp, database: Any, woken: Woken) -> None:
    """Likewise; that a step raises `CancelledError` itself is no cancellation of the body."""
    app, told, ran = make(), list[list[str]](), list[int]()

    @app.step
    async def step(n: int) -> None:
        ran.append(n)
        await asyncio.sleep(0)
        raise made(n)

    works: list[Any] = [step]
    if isinstance(database, str) and database.startswith("postgres"):

        @app.transaction
        async def refuse(tx: psycopg.AsyncConnection[Any], n: int) -> None:
            ran.append(n)
            await tx.execute("select 1")
            raise made(n)

        works.append(refuse)

    @app.workflow
    async def flow() -> int:
        told.append(mine := [])
        for n in range(len(RAISED)):
            for work in works:
                try:
                    await work(n)
                except BaseException as error:
                    mine.append(f"{type(error).__name__} {error}")
        await aio.sleep(HOUR)
        return len(mine)

    with app:
        handle = operon.start(flow)
        woken(app, handle.id)
        assert handle.result(30) == len(RAISED) * len(works)
    assert len(told) > 1
    assert all(each == told[0] for each in told)
    names = {text.partition(" ")[0] for text in told[0]}
    assert names == {"StepFailed", "RuntimeError", "StopAsyncIteration"}
    assert len(ran) == len(told[0])


@pytest.mark.parametrize("asked", [False, True])
def test_a_step_that_cancels_its_own_task_does_so_in_a_replay(make: MakeApp, woken: Woken, *, asked: bool) -> None:
    """Nobody else cancels the recorded step again, so the replay does not wait for that."""
    app, told = make(), list[str]()

    @app.step
    async def leave() -> None:
        task = asyncio.current_task()
        assert task is not None
        if asked:  # else it raises as if somebody had, where somebody has, long ago
            task.cancel()
            await asyncio.sleep(0)
        raise asyncio.CancelledError

    @app.workflow
    async def flow() -> str:
        task = asyncio.current_task()
        assert task is not None
        if not asked:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        try:
            await leave()
        except asyncio.CancelledError:
            told.append("cancelled")
        while task.cancelling():
            task.uncancel()
        await aio.sleep(HOUR)
        return "done"

    with app:
        handle = operon.start(flow)
        woken(app, handle.id)
        assert handle.result(30) == "done"
    assert told == ["cancelled"] * len(told)
    assert len(told) > 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_a_body_raises_is_its_failure(make: MakeApp, *, asynchronous: bool) -> None:
    """A body that raises no `Exception` has failed: it is not left running, nor run again."""
    app, ran = make(), list[int]()

    @app.workflow
    def blocking(n: int) -> None:
        ran.append(n)
        raised(n)

    @app.workflow
    async def awaited(n: int) -> None:
        ran.append(n)
        raise made(n)

    flow = awaited if asynchronous else blocking
    with app:
        handles = [operon.start(flow, n) for n in range(len(RAISED))]
        for handle in handles:
            with pytest.raises((StepFailed, RuntimeError, StopAsyncIteration)):
                handle.result(30)
    assert sorted(ran) == list(range(len(RAISED)))


@pytest.mark.parametrize("n", [0, 2, 3])
def test_what_is_put_around_may_raise_anything(make: MakeApp, n: int) -> None:
    """A workflow whose `around=` fails is taken up again, whatever that raised."""
    times: list[int] = []

    @contextmanager
    def around() -> Generator[None]:
        times.append(1)
        if len(times) == 1:
            raise made(n)
        yield

    app = make(around=around, lease=0.5)

    @app.workflow
    def flow() -> str:
        return "done"

    with app:
        assert operon.start(flow).result(30) == "done"


def test_a_predicate_that_fails_ends_its_step(make: MakeApp, woken: Woken) -> None:
    """What `retry_on` raises is recorded as the step's error, so that a replay is told it, too."""
    told: list[str] = []
    app = make()

    def broken(_: BaseException) -> bool:
        raise LookupError("broken")

    @app.step(retries=3, retry_on=broken)
    def work() -> None:
        raise ValueError("work")

    @app.workflow
    def flow() -> str:
        try:
            work()
        except Exception as error:
            told.append(repr(error))
        operon.sleep(HOUR)
        return told[-1]

    with app:
        handle = operon.start(flow)
        woken(app, handle.id)
        assert "broken" in handle.result(30)
    assert len(set(told)) == 1
    assert len(told) > 1
