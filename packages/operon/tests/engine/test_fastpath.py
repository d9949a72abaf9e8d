"""A step that is called, or awaited, as it is leaves the same records as one that is an operation, whatever it does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import operon
from children import PATIENCE, eventually
from engine.conftest import MakeApp
from operon import Operon, aio
from operon.core import context
from operon.core.commands import Load
from operon.core.journal import Run
from operon.core.rows import Entry, Kind
from operon.engine import fastpath
from operon.errors import Cancelled


class Odd(Exception):
    """What a step raises."""


Body = Callable[[], Awaitable[Any]]


def bodies(app: Operon) -> dict[str, Body]:
    """Bodies, each of which comes to something else by its steps."""

    @app.step
    async def one(n: int, *, by: int = 1) -> int:
        return n + by

    @app.step
    async def grown(items: list[int]) -> list[int]:
        items.append(1)
        return items

    @app.step(raises=[Odd])
    async def fails() -> None:
        raise Odd("odd")

    @app.step(retries=2, backoff=0.01)
    async def once_more() -> int:
        attempt = operon.context().attempt
        if attempt < 3:
            raise ValueError(attempt)
        return attempt

    @app.step
    async def unrecordable() -> object:
        return object()

    @app.step(timeout=0.01)
    async def late() -> None:
        await asyncio.sleep(PATIENCE)

    @app.step
    async def exits() -> None:
        raise SystemExit(1)

    @app.step
    async def hangs() -> None:
        await asyncio.sleep(PATIENCE)

    async def plain() -> Any:
        items = [0]
        return await one(1), await one(2, by=3), await grown(items), items

    async def in_time() -> Any:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await hangs()
        return await one(1)

    async def branches() -> Any:
        return await asyncio.gather(one(1), one(2)), await one(3)

    async def wrong() -> Any:
        wrongly: Any = one
        with pytest.raises(TypeError):
            await wrongly(1, 2, 3)
        return await one(1)

    def failing(step: Callable[[], Awaitable[Any]]) -> Body:
        async def body() -> Any:
            try:
                await step()
            except Exception as error:
                return [type(error).__name__, str(error), type(error.__cause__).__name__, await one(1)]
            return None

        return body

    async def again() -> Any:
        return await once_more()

    steps = {"fails": fails, "unrecordable": unrecordable, "late": late, "exits": exits}
    ends: dict[str, Body] = {"plain": plain, "again": again, "in time": in_time, "branches": branches, "wrong": wrong}
    return ends | {name: failing(step) for name, step in steps.items()}


def blocking_bodies(app: Operon) -> dict[str, Callable[[], Any]]:
    """Likewise, of blocking code."""

    @app.step
    def one(n: int, *, by: int = 1) -> int:
        return n + by

    @app.step
    def grown(items: list[int]) -> list[int]:
        items.append(1)
        return items

    @app.step(raises=[Odd])
    def fails() -> None:
        raise Odd("odd")

    @app.step(retries=2, backoff=0.01)
    def once_more() -> int:
        attempt = operon.context().attempt
        if attempt < 3:
            raise ValueError(attempt)
        return attempt

    @app.step
    def unrecordable() -> object:
        return object()

    @app.step(timeout=0.01)
    def late() -> None:
        over.wait(PATIENCE)

    @app.step
    def exits() -> None:
        raise SystemExit(1)

    @app.step
    def closes() -> None:
        raise GeneratorExit

    @app.step
    def another_colour() -> Any:
        return asyncio.sleep(0)

    def plain() -> Any:
        items = [0]
        return one(1), one(2, by=3), grown(items), items

    def branches() -> Any:
        with ThreadPoolExecutor(1) as pool:  # so that they have one order
            return [*pool.map(one, (1, 2))], one(3)

    def wrong() -> Any:
        wrongly: Any = one
        with pytest.raises(TypeError):
            wrongly(1, 2, 3)
        return one(1)

    def failing(step: Callable[[], Any]) -> Callable[[], Any]:
        def body() -> Any:
            try:
                step()
            except Exception as error:
                return [type(error).__name__, str(error), type(error.__cause__).__name__, one(1)]
            return None

        return body

    over = threading.Event()
    steps = {"fails": fails, "unrecordable": unrecordable, "late": late, "exits": exits, "closes": closes}
    ends: dict[str, Callable[[], Any]] = {
        "plain": plain,
        "again": once_more,
        "branches": branches,
        "wrong": wrong,
        "colour": failing(another_colour),
    }
    return ends | {name: failing(step) for name, step in steps.items()}


def general(_: Run) -> bool:
    """Have every step go the general way."""
    return False


def told(entry: Entry) -> tuple[object, ...]:
    """What a record says, but for the times."""
    output = None if entry.kind is Kind.ATTEMPT else entry.output  # when it is tried again
    return entry.position, entry.ordinal, entry.kind, entry.name, entry.digest, output, entry.error, entry.attempt


COMMON = ("plain", "again", "branches", "wrong", "fails", "unrecordable", "late", "exits")
ASYNC, BLOCKING = (*COMMON, "in time"), (*COMMON, "closes", "colour")
NAMES = [("async", name) for name in ASYNC] + [("sync", name) for name in BLOCKING]


@pytest.mark.parametrize(("colour", "name"), NAMES)
def test_both_ways_leave_the_same_records(
    make: MakeApp, colour: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make(lease=60)
    all_bodies: dict[str, Any] = bodies(app) if colour == "async" else blocking_bodies(app)
    assert {*all_bodies} == {*(ASYNC if colour == "async" else BLOCKING)}

    async def awaited(name: str) -> str:
        assert context.current() is not None
        return repr(await all_bodies[name]())

    def called(name: str) -> str:
        assert context.current() is not None
        return repr(all_bodies[name]())

    flow: Any = app.workflow(name="flow")(awaited if colour == "async" else called)

    def run(key: str) -> tuple[str, list[tuple[object, ...]]]:
        result = operon.start(flow.using(key=key), name).result(PATIENCE)
        engine: Any = app._engine
        entries = [entry for entry in engine.store.ask(Load(key)) if entry.name != "timer"]  # which says its instant
        return result, [told(entry) for entry in entries if entry.position.rpartition("/")[2][0] != "c"]

    with app:
        fast = run("a")
        monkeypatch.setattr(fastpath, "usual", general)
        slow = run("b")
    assert fast == slow
    assert fast[1]


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_a_run_is_parked_until_its_step_is_tried_again(
    make: MakeApp, colour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make(lease=60)

    def fails() -> None:
        raise Odd("odd")

    async def afails() -> None:
        fails()

    step: Any = app.step(retries=1, backoff=1000)(afails if colour == "async" else fails)

    def blocking() -> None:
        step()

    async def awaited() -> None:
        await step()

    flow: Any = app.workflow(name="flow")(awaited if colour == "async" else blocking)
    with app:
        for key in ("a", "b"):
            operon.start(flow.using(key=key))
            eventually(lambda key=key: operon.describe(key).status == "waiting")
            monkeypatch.setattr(fastpath, "usual", general)


def test_what_is_cancelled_in_a_step_cleans_up_in_steps(make: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hears of it at its step, whichever way that is awaited."""
    app, seen = make(lease=60), list[str]()

    @app.workflow
    async def flow() -> None:
        inside.set()
        try:
            await hangs()
        except Cancelled as error:
            seen.append(type(error).__name__)
            await undo()
            raise

    @app.step
    async def hangs() -> None:
        await asyncio.sleep(PATIENCE)

    @app.step
    async def undo() -> None:
        seen.append("undo")

    async def cancelled(key: str) -> None:
        inside.clear()
        await aio.start(flow.using(key=key))
        await asyncio.wait_for(inside.wait(), PATIENCE)
        await asyncio.sleep(0)
        await aio.cancel(key)
        while app._engine is not None and app._engine.runs.claims():  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)

    async def main() -> None:
        async with app:
            await cancelled("a")
            monkeypatch.setattr(fastpath, "usual", general)
            await cancelled("b")

    inside = asyncio.Event()
    asyncio.run(main())
    assert seen == ["Cancelled", "undo"] * 2


def test_what_is_cancelled_in_a_blocking_step_cleans_up_in_steps(
    make: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, seen, inside, free = make(lease=60), list[str](), threading.Event(), threading.Event()

    @app.workflow
    def flow() -> None:
        try:
            hangs()
        except Cancelled as error:
            seen.append(type(error).__name__)
            undo()
            raise

    @app.step
    def hangs() -> None:
        inside.set()
        free.wait(PATIENCE)

    @app.step
    def undo() -> None:
        seen.append("undo")

    with app:
        engine: Any = app._engine
        for key in ("a", "b"):
            inside.clear()
            free.clear()
            operon.start(flow.using(key=key))
            assert inside.wait(PATIENCE)
            operon.cancel(key)
            free.set()
            eventually(lambda: not engine.runs)
            monkeypatch.setattr(fastpath, "usual", general)
    assert seen == ["Cancelled", "undo"] * 2
