"""A loop that its owner closes while the app is launched: what was to end on it ends elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import operon
from children import PATIENCE
from engine.conftest import MakeApp
from operon import Operon, aio

Starting = Callable[[asyncio.AbstractEventLoop, Any, asyncio.Event], None]


def begun(loop: asyncio.AbstractEventLoop, flow: Any, began: asyncio.Event) -> None:
    """Its body waits for something when the loop is closed."""

    async def main() -> None:
        await aio.start(flow.using(key="w"))
        await asyncio.wait_for(began.wait(), PATIENCE)

    loop.run_until_complete(main())


def awaited(loop: asyncio.AbstractEventLoop, flow: Any, _: asyncio.Event) -> None:
    """It is started by the last thing that the loop does."""
    loop.run_until_complete(aio.start(flow.using(key="w")))


def blocking(loop: asyncio.AbstractEventLoop, flow: Any, _: asyncio.Event) -> None:
    """It is started on a thread, while the loop does nothing any more, and is not closed yet."""
    assert not loop.is_closed()
    operon.start(flow.using(key="w"))


def too_late(loop: asyncio.AbstractEventLoop, flow: Any, _: asyncio.Event) -> None:
    """The loop is closed between the place that is taken and the run."""
    engine = flow.host
    spawn = engine.spawn

    def closing(*args: Any, **kwargs: Any) -> Any:
        loop.close()
        return spawn(*args, **kwargs)

    engine.spawn = closing
    operon.start(flow.using(key="w"))


@pytest.mark.parametrize("starting", [begun, awaited, blocking, too_late], ids=lambda starting: starting.__name__)
def test_what_a_closed_loop_was_to_run_is_run_elsewhere(make: MakeApp, starting: Starting) -> None:
    """No row is left running in a process that does not run it, though that lives and renews its lease."""
    began = asyncio.Event()

    def declared(app: Operon, *, hangs: bool) -> Any:
        @app.workflow
        async def flow() -> str:
            if hangs:
                began.set()
                await asyncio.Event().wait()
            return "elsewhere"

        return flow

    here, elsewhere = make(), make()
    flow, other = declared(here, hangs=True), declared(elsewhere, hangs=False)
    loop = asyncio.SelectorEventLoop()
    loop.run_until_complete(here.__aenter__())
    starting(loop, flow, began)
    loop.close()
    engine: Any = here._engine
    with elsewhere:
        assert operon.retrieve("w", other).result(PATIENCE) == "elsewhere"
    assert not engine.runs.claims()
    assert not engine.runs
