"""Simulated worlds: five hundred of them, each the same wherever it runs; and what some of them once showed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Literal

import pytest

import operon
from children import PATIENCE, ran
from engine.conftest import MakeApp, make
from operon import aio
from operon.core.commands import Cancel
from operon.errors import WorkflowCancelled
from operon.stores.memory import MemoryStore
from operon.testing.simulate import World, simulate

__all__ = ["make"]
CHUNKS, SEEDS = 10, 50
CALM = 6641
"""A world with children, branches, transactions and timeouts, in which nothing goes wrong unless it is made to."""
MOMENTS = 12
"""Every so many moments are tried by one test."""


@pytest.fixture
def database() -> MemoryStore:
    return MemoryStore()


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_law_is_broken(chunk: int) -> None:
    """Whatever dies, pauses or is lost: the laws hold after every event, and everything ends."""
    for seed in range(chunk * SEEDS, (chunk + 1) * SEEDS):
        with noted(f"make simulate SEED={seed}"):
            simulate(seed)


@pytest.mark.parametrize("first", range(1, MOMENTS + 1))
def test_a_process_may_die_at_every_moment(first: int) -> None:
    """Before each commit, and between each commit and its answer."""
    strike(first, MOMENTS, "dies")


@pytest.mark.parametrize("first", range(1, MOMENTS + 1, 3))
def test_a_process_may_stand_still_at_any_moment(first: int) -> None:
    """Likewise, for longer than its lease as a rule: it comes back as a zombie."""
    strike(first, MOMENTS, "pauses")


def strike(first: int, step: int, then: Literal["dies", "pauses"]) -> None:
    calm = simulate(CALM)
    assert calm.calm
    for moment in range(first, calm.database.moments + 1, step):
        with noted(f"World({CALM}, moment={moment}, then={then!r})"):
            World(CALM, moment=moment, then=then).run()


@contextmanager
def noted(how: str) -> Generator[None]:
    """Say with a failure how to see it again."""
    try:
        yield
    except BaseException as error:
        error.add_note(how)
        raise


SEED = """
import hashlib, sys
from operon.testing.simulate import World
for seed in map(int, sys.argv[1:]):
    world = World(seed, trace=True)
    world.run()
    print(seed, len(world.trace), hashlib.sha256("\\n".join(world.trace).encode()).hexdigest())
"""


def test_a_seed_is_a_run() -> None:
    """The same seed is the same run, event for event and word for word, in every process."""
    seeds = [str(seed) for seed in (0, 3, 12, 77)]
    runs = [
        ran(sys.executable, "-c", SEED, *seeds, check=True, env={**os.environ, "PYTHONHASHSEED": hashes}).stdout
        for hashes in ("1", "2")
    ]
    assert len(runs[0].splitlines()) == len(seeds)
    assert runs[0] == runs[1]


def test_a_child_does_not_end_with_its_parents_park(make: MakeApp) -> None:
    """A parent that leaves to wait takes no child's task along: the child's step runs once."""
    app, ran = make(lease=60.0), list[int]()

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
        assert operon.start(parent).result(PATIENCE) == "done"
    assert len(ran) == 1


def test_a_child_cancelled_as_it_ends_tells_no_caller_that_he_is_cancelled(
    make: MakeApp, database: MemoryStore
) -> None:
    """The end of a child that was cancelled meanwhile is refused; its inline caller hears `WorkflowCancelled`."""
    app = make(lease=60.0)

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
        assert operon.start(parent.using(key="w")).result(PATIENCE) == "told"
        assert operon.describe("w").attempts == 1
