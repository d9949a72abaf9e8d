"""Workflows that decide by what they are told: by timeouts, by looking at others. A replay must be told the same.

What they were told is an argument of their next step: if a replay is told otherwise, its workflow is held, and strands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from operon import aio
from operon.app.app import Operon
from operon.errors import NotFound

SHORT = 0.15
"""Seconds: some steps take longer, others do not."""
NAP = 1.5
"""Seconds: longer than any grace, so that the body is replayed."""


class Actions(Protocol):
    """What bodies are made of."""

    async def worked(self, n: int) -> str:
        """Do a step."""
        ...

    async def noted(self, what: str) -> str:
        """Do a step that is given what the body was told."""
        ...


def deciding(app: Operon, actions: Actions, child: Any) -> Sequence[Any]:
    """Declare them."""

    async def a_step() -> object:
        async with asyncio.timeout(SHORT):
            return await actions.worked(0)

    async def a_sleep() -> object:
        async with asyncio.timeout(NAP):
            await aio.sleep(100.0)
        return None

    async def a_child() -> object:
        return await asyncio.wait_for(child(2), SHORT)

    async def some() -> object:
        tasks = [asyncio.create_task(actions.worked(n)) for n in range(3)]
        done, pending = await asyncio.wait(tasks, timeout=SHORT)
        for task in pending:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(done)

    ways: Sequence[Callable[[], Awaitable[object]]] = (a_step, a_sleep, a_child, some)

    @app.workflow(name="hurried")
    async def hurried(n: int) -> list[str]:
        notes: list[str] = []
        for way in (ways[n % len(ways)], a_step):
            try:
                told = "done" if await way() is not None else "nothing"
            except TimeoutError:
                told = "late"
            notes.append(await actions.noted(told))
            await aio.sleep(NAP)
        return notes

    @app.workflow(name="watcher")
    async def watcher(n: int) -> list[str]:
        notes: list[str] = []
        for _ in range(2):
            ended = await aio.count(status="succeeded")
            try:
                told = f"{ended}, and it {(await aio.describe(f'w{n}')).status}"
            except NotFound:
                told = f"{ended}, and it is not there"
            notes.append(await actions.noted(told))
            await aio.sleep(NAP)
        return notes

    @app.workflow(name="restless")
    async def restless(n: int) -> None:
        while True:
            await actions.worked(n)
            await asyncio.sleep(SHORT)

    return hurried, watcher, restless
