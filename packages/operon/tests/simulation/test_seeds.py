"""Simulated worlds: five hundred of them, each twice the same, and those that once showed a bug."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import operon
from engine.conftest import MakeApp, make
from operon import aio
from operon.core.commands import Cancel
from operon.errors import WorkflowCancelled
from operon.stores.memory import MemoryStore
from operon.testing.simulate import World, simulate

__all__ = ["make"]
CHUNKS, SEEDS = 10, 50


@pytest.fixture
def database() -> MemoryStore:
    return MemoryStore()


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_law_is_broken(chunk: int) -> None:
    """Whatever dies, pauses or is lost: the laws hold after every event, and everything ends."""
    for seed in range(chunk * SEEDS, (chunk + 1) * SEEDS):
        try:
            simulate(seed)
        except BaseException as error:
            error.add_note(f"make simulate SEED={seed}")
            raise


@pytest.mark.parametrize("seed", [0, 3, 12, 77])
def test_a_seed_is_a_run(seed: int) -> None:
    """The same seed is the same run: event for event, word for word."""
    first, again = World(seed, trace=True), World(seed, trace=True)
    first.run()
    again.run()
    assert first.trace
    assert first.trace == again.trace


def test_a_child_does_not_end_with_its_parents_park(make: MakeApp) -> None:
    """A parent that leaves to wait takes no child's task along: the child's step runs once."""
    app, ran = make(), list[int]()

    @app.step
    async def work() -> None:
        ran.append(1)
        await asyncio.sleep(0.5)

    @app.workflow
    async def child() -> str:
        await work()
        return "done"

    @app.workflow
    async def parent() -> str:
        handle: Any = await aio.start(child)
        return str(await handle)

    with app:
        assert operon.start(parent).result(20) == "done"
    assert len(ran) == 1


def test_a_child_cancelled_as_it_ends_tells_no_caller_that_he_is_cancelled(
    make: MakeApp, database: MemoryStore
) -> None:
    """The end of a child that was cancelled meanwhile is refused; its inline caller hears `WorkflowCancelled`."""
    app = make()

    @app.workflow
    async def child() -> None:
        database.ask(Cancel("w.1"))

    @app.workflow
    async def parent() -> str:
        try:
            await child()
        except WorkflowCancelled:
            return "told"
        return "not told"

    with app:
        assert operon.start(parent.using(key="w")).result(10) == "told"
        assert operon.describe("w").attempts == 1
