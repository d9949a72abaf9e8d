"""Where Operon is awaited under something else than asyncio, as trio: it is refused before anything is done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

import operon
from children import PATIENCE, eventually
from engine.conftest import MakeApp
from operon import AsyncClient, Operon, aio
from operon.errors import WrongColour


def driven(work: Coroutine[Any, Any, Any]) -> Any:
    """Drive what asks for nothing, as another framework's loop would."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    finally:
        work.close()
    raise AssertionError("it waits for something")


class Uses:
    """A way to await Operon."""

    def __init__(self, app: Operon, url: Any, done: list[int]) -> None:
        self.app, self.url = app, url

        @app.step(name="step")
        def step(n: int) -> int:
            done.append(n)
            return n

        @app.workflow(name="blocking")
        def blocking(n: int) -> int:
            return step(n)

        @app.workflow(name="flow")
        async def flow(n: int) -> int:
            return await aio.call(step, n)

        self.blocking, self.flow = blocking, flow

    async def launching(self) -> None:
        await self.app.__aenter__()

    async def starting(self) -> None:
        await aio.start(self.blocking, 1)

    async def calling(self) -> None:
        await aio.call(self.blocking, 1)

    async def calling_a_function(self) -> None:
        await aio.call(print, "nothing")

    async def awaiting_a_workflow(self) -> None:
        await self.flow(1)

    async def finding(self) -> None:
        await aio.find()

    async def connecting(self) -> None:
        async with AsyncClient(self.url):
            pass


USES: list[Callable[[Uses], Awaitable[None]]] = [it for name, it in vars(Uses).items() if not name.startswith("_")]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_what_is_awaited_without_a_loop_of_asyncio_is_refused_before_anything_is_done(
    make: MakeApp, database: Any, use: Any
) -> None:
    """The error names asyncio, and what to do instead."""
    app, done = make(), list[int]()
    uses = Uses(app, database, done)
    with app:
        with pytest.raises(WrongColour, match=r"asyncio.*with app.*thread"):
            driven(use(uses))
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("operon-call")]
        assert operon.count() == 0
    assert done == []


@pytest.mark.parametrize("database", ["memory:"])
def test_a_handle_that_is_awaited_without_asyncio_is_refused(make: MakeApp) -> None:
    app = make()

    @app.workflow
    def flow() -> int:
        return 1

    async def ended(handle: Any) -> object:
        return await handle

    with app:
        handle = operon.start(flow)
        with pytest.raises(WrongColour, match="asyncio"):
            driven(ended(handle))
        assert handle.result(PATIENCE) == 1


@pytest.mark.parametrize("fails", [False, True])
def test_a_call_whose_caller_has_gone_ends_quietly(monkeypatch: pytest.MonkeyPatch, *, fails: bool) -> None:
    """Nobody awaits what its thread gives any more; nothing is printed of that."""
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(PATIENCE)
        if fails:
            raise ValueError

    async def main() -> None:
        task = asyncio.create_task(aio.call(work))
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        task.cancel()
        await asyncio.wait((task,), timeout=PATIENCE)
        assert task.cancelled()

    asyncio.run(main())
    calls = [thread for thread in threading.enumerate() if thread.name == "operon-call-work"]
    go_on.set()
    eventually(lambda: not any(thread.is_alive() for thread in calls), "the thread never ended")
    assert raised == []
