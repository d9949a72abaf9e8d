"""The workflows that are simulated: each has a habit that an engine could get wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from operon import aio
from operon.app.app import Operon
from operon.core import context
from operon.core.journal import Run
from operon.errors import Cancelled


class Stage(Protocol):
    """What happens around a body, and who watches it."""

    def chance(self, run: Run) -> float:
        """Seconds that something takes."""
        ...

    def begins(self, run: Run, position: str) -> str:
        """See a step begin; gives what it is to return."""
        ...

    def sees(self, run: Run, value: str) -> str:
        """See a value arrive in the body."""
        ...

    def woke(self, run: Run) -> None:
        """See a sleep end."""
        ...

    def rested(self, run: Run) -> None:
        """See a body that did nothing durable for a second."""
        ...


class Flaky(Exception):
    """A step failed, as it was told to."""


class Set:
    """One app's declarations, and the stage on which they are played now."""

    def __init__(self) -> None:
        self.app = Operon("simulated", database="memory:", version="1")
        self.stage: Stage | None = None
        self.flows: Mapping[str, Any] = declare(self)

    def run(self) -> Run:
        """The run that this code is in."""
        here = context.branch.get()
        assert here is not None
        return here.run

    @property
    def on(self) -> Stage:
        """The stage."""
        assert self.stage is not None
        return self.stage


def declare(cast: Set) -> Mapping[str, Any]:
    """Declare the steps and workflows on an app; answers the workflows by name."""
    app = cast.app

    async def effect() -> str:
        doing = context.step.get()
        assert doing is not None
        value = cast.on.begins(cast.run(), doing.position)
        await asyncio.sleep(cast.on.chance(cast.run()))
        return value

    @app.step(name="work")
    async def work(n: int) -> str:
        del n
        return await effect()

    @app.step(name="flaky", retries=3, backoff=0.5)
    async def flaky(failures: int) -> str:
        value = await effect()
        doing = context.step.get()
        if doing is not None and doing.attempt <= failures:
            raise Flaky(value)
        return value

    async def worked(n: int) -> str:
        return cast.on.sees(cast.run(), await work(n))

    async def slept(seconds: float) -> None:
        await aio.sleep(seconds)
        cast.on.woke(cast.run())

    @app.workflow(name="plain")
    async def plain(n: int) -> list[str]:
        return [await worked(it) for it in range(n)]

    @app.workflow(name="retrying")
    async def retrying(n: int) -> list[str]:
        first = await worked(0)
        second = cast.on.sees(cast.run(), await flaky(n % 4))
        return [first, second, await worked(1)]

    @app.workflow(name="parent")
    async def parent(n: int) -> list[Any]:
        handles = [await aio.start(plain, 2) for _ in range(n)]
        handles.append(await aio.start(sleeper, n))
        await worked(0)
        found: list[Any] = [*await aio.gather(*handles)]
        return [*found, await plain(1), await worked(1)]

    @app.workflow(name="sleeper")
    async def sleeper(n: int) -> list[str]:
        first = await worked(0)
        await slept(2.0 + n)
        second = await worked(1)
        await slept(0.3)
        return [first, second]

    @app.workflow(name="branches")
    async def branches(n: int) -> list[str]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        room = asyncio.Semaphore(2)
        order: list[str] = []

        async def taker() -> None:
            while not queue.empty():
                item = queue.get_nowait()
                async with room:
                    order.append(await worked(item))
                if item % 2:
                    await aio.sleep(0.1 * item)
                order.append(await worked(item))

        for item in range(n + 2):
            queue.put_nowait(item)
        await asyncio.gather(taker(), taker(), taker())
        return [*order, await worked(99)]

    @app.workflow(name="thinker")
    async def thinker(n: int) -> list[str]:
        first = await worked(n)
        await asyncio.sleep(1.0)
        cast.on.rested(cast.run())
        return [first, await worked(n)]

    @app.workflow(name="endless")
    async def endless(n: int) -> None:
        for _ in range(n + 1):
            await aio.start(sleeper, 30)
        try:
            await aio.sleep(10_000)
        except Cancelled:
            return

    @app.workflow(name="stubborn")
    async def stubborn(n: int) -> list[str]:
        first = await worked(n)
        with suppress(BaseException):
            await slept(2.5)
        return [first, await worked(n), await worked(n)]

    @app.workflow(name="late", timeout=4.0)
    async def late(n: int) -> list[str]:
        first = await worked(n)
        await aio.sleep(10_000)
        return [first]

    return {
        it.function.name: it for it in (plain, retrying, parent, sleeper, branches, thinker, endless, stubborn, late)
    }
