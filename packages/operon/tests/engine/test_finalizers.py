"""What Python's garbage collector calls in the middle of a body is not that body's code."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any

import pytest

import operon
from children import PATIENCE, eventually
from engine.conftest import MakeApp
from operon import Operon, aio
from operon.core.commands import Load
from operon.core.rows import Kind
from operon.errors import NotInWorkflow


class Cycle:
    """Garbage that only the collector finds."""

    def __init__(self, held: object = None, dies: Callable[[], object] = lambda: None) -> None:
        self.held = held
        self.dies = dies
        self.itself = self

    def __del__(self) -> None:
        self.dies()


@pytest.fixture(autouse=True)
def collected_when_it_is_said() -> Iterator[None]:
    """Collect when the test does."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def outputs(app: Operon, workflow_id: str) -> list[str | None]:
    engine: Any = app._engine
    return [entry.output for entry in engine.store.ask(Load(workflow_id)) if entry.kind is Kind.STEP]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["blocking", "async"])
@pytest.mark.parametrize("verb", ["step", "sleep", "start"])
def test_a_finalizer_is_refused_its_verbs_and_the_body_goes_on(make: MakeApp, verb: str, *, asynchronous: bool) -> None:
    """It would be recorded as the body's, which does not do it again in a replay; or wait for its own commit."""
    app, refused = make(lease=60), list[str]()

    @app.step
    def note(what: str) -> str:
        return what

    @app.step
    async def anote(what: str) -> str:
        return what

    def finalize() -> None:
        try:
            if verb == "step":
                note("of a finalizer")
            elif verb == "sleep":
                operon.sleep(0.01)
            else:
                operon.start(flow)
        except NotInWorkflow as error:
            refused.append(str(error))

    def blocking() -> str:
        note("a")
        Cycle(dies=finalize)
        gc.collect()
        return note("b")

    async def awaited() -> str:
        await anote("a")
        Cycle(dies=finalize)
        gc.collect()
        return await anote("b")

    flow: Any = app.workflow(name="flow")(awaited if asynchronous else blocking)
    with app:
        assert operon.start(flow.using(key="w")).result(PATIENCE) == "b"
        assert outputs(app, "w") == ['"a"', '"b"']
        assert operon.count() == 1
    assert len(refused) == 1
    assert "garbage collector has called this" in refused[0]


def test_an_async_generator_that_is_collected_is_closed_in_nobodys_name(make: MakeApp) -> None:
    """The loop makes a task for that: in the body it would be a branch, and all later ones had other numbers."""
    app, closed = make(lease=60), list[str]()

    @app.step
    async def note(what: str) -> str:
        return what

    async def items() -> AsyncGenerator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    @app.workflow
    async def flow() -> list[str]:
        await note("a")
        gc.collect()
        await asyncio.sleep(0.01)  # so that its task is made before the others
        b, c = await asyncio.gather(note("b"), note("c"))
        return [b, c]

    async def main() -> None:
        async with app:
            generator = items()
            await anext(generator)
            Cycle(generator)
            del generator
            handle = await aio.start(flow.using(key="w"))
            assert await asyncio.wait_for(handle, PATIENCE) == ["b", "c"]
            assert closed
            engine: Any = app._engine
            entries = engine.store.ask(Load("w"))
            assert [entry.position for entry in entries if entry.kind is Kind.STEP] == ["1", "1/1", "2/1"]

    asyncio.run(main())


@pytest.mark.parametrize("asynchronous", [False, True], ids=["blocking", "async"])
@pytest.mark.parametrize("ends", ["parked", "failed", "step failed", "succeeded"])
def test_a_body_that_has_left_is_no_garbage(
    make: MakeApp, ends: str, caplog: pytest.LogCaptureFixture, *, asynchronous: bool
) -> None:
    """What it holds ends with it, on its own thread, and not where the collector finds it."""
    caplog.set_level(logging.CRITICAL, logger="operon")  # a record of its error would hold it
    app, held = make(lease=60), list[weakref.ref[Any]]()

    def generator() -> Generator[int]:
        yield 1

    def hold() -> object:
        left = generator()
        next(left)
        held.append(weakref.ref(left))
        return left

    @app.step
    def fails() -> None:
        raise LookupError

    @app.step
    async def afails() -> None:
        raise LookupError

    def blocking() -> None:
        left = hold()
        if ends == "step failed":
            fails()
        if ends == "failed":
            raise LookupError
        operon.sleep(3600 if ends == "parked" else 0.01)
        del left

    async def awaited() -> None:
        left = hold()
        if ends == "step failed":
            await afails()
        if ends == "failed":
            raise LookupError
        await aio.sleep(3600 if ends == "parked" else 0.01)
        del left

    flow: Any = app.workflow(name="flow")(awaited if asynchronous else blocking)
    with app:
        engine: Any = app._engine
        operon.start(flow.using(key="w"))
        eventually(lambda: held and not engine.runs)
        eventually(lambda: all(each() is None for each in held), "its generator is garbage")


@pytest.mark.parametrize("asynchronous", [False, True], ids=["blocking", "async"])
def test_a_body_that_calls_itself_too_often_fails_and_nothing_else_does(make: MakeApp, *, asynchronous: bool) -> None:
    """A verb that begins has the stack that it needs: none is left in the middle of a commit."""
    app = make(lease=60)

    @app.step
    def note(n: int) -> int:
        return n

    @app.step
    async def anote(n: int) -> int:
        return n

    def blocking(n: int) -> int:
        note(n)
        return blocking(n + 1)

    async def awaited(n: int) -> int:
        await anote(n)
        return await awaited(n + 1)

    def deep(n: int, every: int, offset: int) -> int:
        if n % every == offset:
            note(n)
        return deep(n + 1, every, offset)

    flow: Any = app.workflow(name="flow")(awaited if asynchronous else blocking)
    deeper: Any = app.workflow(name="deeper")(deep)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(600)
    try:
        with app:
            with pytest.raises(RecursionError, match="maximum recursion depth"):
                operon.start(flow, 0).result(PATIENCE)
            for offset in range(0, 0 if asynchronous else 40, 5):
                with pytest.raises(RecursionError):
                    operon.start(deeper, 0, 40, offset).result(PATIENCE)
            assert note(1) == 1
            assert operon.start(app.workflow(name="after")(lambda: note(2))).result(PATIENCE) == 2
    finally:
        sys.setrecursionlimit(limit)
