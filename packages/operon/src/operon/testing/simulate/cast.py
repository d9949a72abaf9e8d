"""The workflows that are simulated: each has a habit that an engine could get wrong."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, Protocol, TypeAlias

from operon import aio
from operon.app.app import Operon
from operon.app.queues import Queue
from operon.core import context
from operon.core.journal import Run
from operon.errors import Cancelled, WorkflowCancelled
from operon.testing.simulate.crates import SIZE
from operon.testing.simulate.datasource import Simulated
from operon.testing.simulate.deciding import deciding
from operon.testing.simulate.paying import paying


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

    def transacts(self, run: Run | None, key: str) -> str:
        """See a transaction's code run, in a workflow or alone; gives what it is to return."""
        ...

    def woke(self, run: Run) -> None:
        """See a sleep end."""
        ...

    def rested(self, run: Run) -> None:
        """See a body that did nothing durable for a second."""
        ...

    def ended(self, run: Run) -> None:
        """See a body come to its own end, its clean-up done."""
        ...

    def hears(self, run: Run, child: str) -> None:
        """See a body hear that a child was cancelled."""
        ...


Body: TypeAlias = Callable[[int], Coroutine[Any, Any, list[Any]]]
CLEANING = 0.05
"""Seconds that a clean-up takes."""


class Flaky(Exception):
    """A step failed, as it was told to."""


class Cast:
    """One app's declarations, and the stage on which they are played now."""

    def __init__(self) -> None:
        self.app = Simulated("simulated", database="memory:", version="1")
        self.stage: Stage | None = None
        self.queues = {it.name: it for it in queues(self.app)}
        self.flows: Mapping[str, Any] = declare(self)

    def run(self) -> Run:
        """The run that this code is in."""
        here = context.branch()
        assert here is not None
        return here.run

    @property
    def on(self) -> Stage:
        """The stage."""
        assert self.stage is not None
        return self.stage


def queues(app: Operon) -> Sequence[Queue]:
    """Declare queues, each with limits that a few workflows reach."""
    return (
        app.queue("narrow", concurrency=2, worker_concurrency=1),
        app.queue("paced", rate=(2, 1.5)),
        app.queue("shared", concurrency=3, partition_concurrency=1, partition_rate=(2, 2.0)),
    )


def declare(cast: Cast) -> Mapping[str, Any]:
    """Declare the steps and workflows on an app; answers the workflows by name."""
    play = Play(cast)
    flows = [*lines(cast.app, play), *waiting(cast.app, play), stubborn(cast.app, play), branches(cast.app, play)]
    named = {it.function.name: it for it in flows}
    families = trees(cast, play, named["plain"], named["sleeper"])
    others = (*families, *deciding(cast.app, play, named["plain"]), *paying(cast.app, play))
    return named | {it.function.name: it for it in others}


class Play:
    """What bodies are made of."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast

        @cast.app.step(name="work")
        async def work(n: int) -> str:
            del n
            return await self._effect()

        @cast.app.step(name="flaky", retries=3, backoff=0.5)
        async def flaky(failures: int) -> str:
            value = await self._effect()
            doing = context.step()
            if doing is not None and doing.attempt <= failures:
                raise Flaky(value)
            return value

        @cast.app.step(name="note")
        async def note(what: str) -> str:
            del what
            return await self._effect()

        self._work, self._flaky, self._note = work, flaky, note

    async def _effect(self) -> str:
        doing = context.step()
        assert doing is not None
        value = self.cast.on.begins(self.cast.run(), doing.position)
        await asyncio.sleep(self.cast.on.chance(self.cast.run()))
        return value

    async def worked(self, n: int) -> str:
        """Do a step."""
        return self.seen(await self._work(n))

    async def tried(self, failures: int) -> str:
        """Do a step that fails so many times."""
        return self.seen(await self._flaky(failures))

    def seen(self, value: str) -> str:
        """See a value arrive in the body."""
        return self.cast.on.sees(self.cast.run(), value)

    def transacts(self, key: str) -> str:
        """See a transaction's code run; gives what it is to return."""
        here = context.branch()
        return self.cast.on.transacts(None if here is None else here.run, key)

    async def noted(self, what: str) -> str:
        """Do a step that is given what the body was told."""
        return self.seen(await self._note(what))

    async def slept(self, seconds: float) -> None:
        """Sleep."""
        await aio.sleep(seconds)
        self.cast.on.woke(self.cast.run())

    def whole(self, body: Body) -> Body:
        """Have it seen that a body comes to its end, or has cleaned up, which takes a moment."""

        @wraps(body)
        async def whole(n: int) -> list[Any]:
            try:
                return await body(n)
            except Cancelled:
                await asyncio.sleep(CLEANING)
                raise
            except WorkflowCancelled as error:
                self.cast.on.hears(self.cast.run(), error.workflow_id)
                raise
            finally:
                if isinstance(sys.exception(), Exception | Cancelled | None):
                    self.cast.on.ended(self.cast.run())

        return whole

    async def thought(self) -> None:
        """Compute for a second."""
        await asyncio.sleep(1.0)
        self.cast.on.rested(self.cast.run())


def lines(app: Operon, play: Play) -> Sequence[Any]:
    """Declare what does one step after the other."""

    @app.workflow(name="plain")
    @play.whole
    async def plain(n: int) -> list[str]:
        return [await play.worked(it) for it in range(n)]

    @app.workflow(name="retrying")
    @play.whole
    async def retrying(n: int) -> list[str]:
        return [await play.worked(0), await play.tried(n % 4), await play.worked(1)]

    @app.workflow(name="thinker")
    @play.whole
    async def thinker(n: int) -> list[str]:
        first = await play.worked(n)
        await play.thought()
        return [first, await play.worked(n)]

    @app.workflow(name="packed", batch=SIZE, batch_wait=1.0)
    async def packed(its: list[int]) -> list[str]:
        first = await play.worked(len(its))
        second = await play.worked(0)
        return [f"{first} {second} {it}" for it in its]

    return plain, retrying, thinker, packed


def waiting(app: Operon, play: Play) -> Sequence[Any]:
    """Declare what sleeps, for a while or until its deadline."""

    @app.workflow(name="sleeper")
    @play.whole
    async def sleeper(n: int) -> list[str]:
        first = await play.worked(0)
        await play.slept(2.0 + n)
        second = await play.worked(1)
        await play.slept(0.3)
        return [first, second]

    @app.workflow(name="late", timeout=4.0)
    @play.whole
    async def late(n: int) -> list[str]:
        first = await play.worked(n)
        await aio.sleep(10_000)
        return [first]

    return sleeper, late


def stubborn(app: Operon, play: Play) -> Any:
    """Declare what does not take a cancellation for an answer."""

    @app.workflow(name="stubborn")
    @play.whole
    async def stubborn(n: int) -> list[str]:
        first = await play.worked(n)
        with suppress(BaseException):
            await play.slept(2.5)
        return [first, await play.worked(n), await play.worked(n)]

    return stubborn


def branches(app: Operon, play: Play) -> Any:
    """Declare what takes turns at a queue and a semaphore of its own."""

    @app.workflow(name="branches")
    @play.whole
    async def branches(n: int) -> list[str]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        room = asyncio.Semaphore(2)
        order: list[str] = []

        async def taker() -> None:
            while not queue.empty():
                item = queue.get_nowait()
                async with room:
                    order.append(await play.worked(item))
                if item % 2:
                    await aio.sleep(0.1 * item)
                order.append(await play.worked(item))

        for item in range(n + 2):
            queue.put_nowait(item)
        await asyncio.gather(taker(), taker(), taker())
        return [*order, await play.worked(99)]

    return branches


def trees(cast: Cast, play: Play, plain: Any, sleeper: Any) -> Sequence[Any]:
    """Declare what starts others, and waits for them or leaves them alone."""
    app = cast.app

    @app.workflow(name="parent")
    @play.whole
    async def parent(n: int) -> list[Any]:
        handles = [await aio.start(plain, 2) for _ in range(n)]
        handles.append(await aio.start(sleeper, n))
        await play.worked(0)
        found: list[Any] = [*await aio.gather(*handles)]
        return [*found, await plain(1), await play.worked(1)]

    @app.workflow(name="endless")
    @play.whole
    async def endless(n: int) -> list[Any]:
        for _ in range(n + 1):
            await aio.start(sleeper, 30)
        await aio.sleep(10_000)
        return []

    @app.workflow(name="crowd")
    @play.whole
    async def crowd(n: int) -> list[Any]:
        line = cast.queues["narrow"]
        handles = [await aio.enqueue(line, plain, 1) for _ in range(n + 1)]
        first = await play.worked(0)
        return [first, *await aio.gather(*handles), await play.worked(1)]

    return parent, endless, crowd
