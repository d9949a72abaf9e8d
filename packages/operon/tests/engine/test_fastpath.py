"""A step that is awaited as it is leaves the same records as one that is an operation, whatever comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import operon
from children import PATIENCE, eventually
from engine.conftest import MakeApp
from operon import Operon, aio
from operon.core import context
from operon.core.commands import Load
from operon.core.journal import Branch
from operon.core.rows import Entry, Kind
from operon.engine.loops import Loop
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


def general(_loop: Loop, _line: Branch) -> bool:
    """Have every step go the general way."""
    return False


def told(entry: Entry) -> tuple[object, ...]:
    """What a record says, but for the times."""
    output = None if entry.kind is Kind.ATTEMPT else entry.output  # when it is tried again
    return entry.position, entry.ordinal, entry.kind, entry.name, entry.digest, output, entry.error, entry.attempt


NAMES = ("plain", "again", "in time", "branches", "wrong", "fails", "unrecordable", "late", "exits")


@pytest.mark.parametrize("name", NAMES)
def test_both_ways_leave_the_same_records(make: MakeApp, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make(lease=60)
    all_bodies = bodies(app)
    assert {*all_bodies} == {*NAMES}

    @app.workflow
    async def flow(name: str) -> str:
        assert context.current() is not None
        return repr(await all_bodies[name]())

    def run(key: str) -> tuple[str, list[tuple[object, ...]]]:
        result = operon.start(flow.using(key=key), name).result(PATIENCE)
        engine: Any = app._engine
        entries = [entry for entry in engine.store.ask(Load(key)) if entry.name != "timer"]  # which says its instant
        return result, [told(entry) for entry in entries if entry.position.rpartition("/")[2][0] != "c"]

    with app:
        fast = run("a")
        monkeypatch.setattr(Loop, "executes", general)
        slow = run("b")
    assert fast == slow
    assert fast[1]


def test_a_run_is_parked_until_its_step_is_tried_again(make: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make(lease=60)

    @app.step(retries=1, backoff=1000)
    async def fails() -> None:
        raise Odd("odd")

    @app.workflow
    async def flow() -> None:
        await fails()

    with app:
        for key in ("a", "b"):
            operon.start(flow.using(key=key))
            eventually(lambda key=key: operon.describe(key).status == "waiting")
            monkeypatch.setattr(Loop, "executes", general)


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
            monkeypatch.setattr(Loop, "executes", general)
            await cancelled("b")

    inside = asyncio.Event()
    asyncio.run(main())
    assert seen == ["Cancelled", "undo"] * 2
