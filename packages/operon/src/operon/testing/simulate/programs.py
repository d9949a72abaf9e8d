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
from operon.testing.simulate.batch_laws import SIZE
from operon.testing.simulate.datasource import Simulated
from operon.testing.simulate.deciding import deciding
from operon.testing.simulate.paying import paying


class Observer(Protocol):
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


class Program:
    """One app's declarations, and the world that watches them now."""

    def __init__(self) -> None:
        self.app = Simulated("simulated", database="memory:", version="1")
        self.watched_by: Observer | None = None
        self.queues = {it.name: it for it in queues(self.app)}
        self.flows: Mapping[str, Any] = declare(self)

    def run(self) -> Run:
        """The run that this code is in."""
        here = context.branch()
        assert here is not None
        return here.run

    @property
    def observer(self) -> Observer:
        """The world that watches."""
        assert self.watched_by is not None
        return self.watched_by


def queues(app: Operon) -> Sequence[Queue]:
    """Declare queues, each with limits that a few workflows reach."""
    return (
        app.queue("narrow", concurrency=2, worker_concurrency=1),
        app.queue("paced", rate=(2, 1.5)),
        app.queue("shared", concurrency=3, partition_concurrency=1, partition_rate=(2, 2.0)),
    )


def declare(program: Program) -> Mapping[str, Any]:
    """Declare the steps and workflows on an app; answers the workflows by name."""
    actions = Actions(program)
    app = program.app
    flows = [*sequences(app, actions), *waiting(app, actions), stubborn(app, actions), branches(app, actions)]
    named = {it.function.name: it for it in flows}
    families = trees(program, actions, named["plain"], named["sleeper"])
    others = (*families, *deciding(app, actions, named["plain"]), *paying(app, actions))
    return named | {it.function.name: it for it in others}


class Actions:
    """What bodies are made of."""

    def __init__(self, program: Program) -> None:
        self._program = program

        @program.app.step(name="work")
        async def work(n: int) -> str:
            del n
            return await self._effect()

        @program.app.step(name="flaky", retries=3, backoff=0.5)
        async def flaky(failures: int) -> str:
            value = await self._effect()
            doing = context.step()
            if doing is not None and doing.attempt <= failures:
                raise Flaky(value)
            return value

        @program.app.step(name="note")
        async def note(what: str) -> str:
            del what
            return await self._effect()

        self._work, self._flaky, self._note = work, flaky, note

    async def _effect(self) -> str:
        doing = context.step()
        assert doing is not None
        value = self._program.observer.begins(self._program.run(), doing.position)
        await asyncio.sleep(self._program.observer.chance(self._program.run()))
        return value

    async def worked(self, n: int) -> str:
        """Do a step."""
        return self.seen(await self._work(n))

    async def tried(self, failures: int) -> str:
        """Do a step that fails so many times."""
        return self.seen(await self._flaky(failures))

    def seen(self, value: str) -> str:
        """See a value arrive in the body."""
        return self._program.observer.sees(self._program.run(), value)

    def transacts(self, key: str) -> str:
        """See a transaction's code run; gives what it is to return."""
        here = context.branch()
        return self._program.observer.transacts(None if here is None else here.run, key)

    async def noted(self, what: str) -> str:
        """Do a step that is given what the body was told."""
        return self.seen(await self._note(what))

    async def slept(self, seconds: float) -> None:
        """Sleep."""
        await aio.sleep(seconds)
        self._program.observer.woke(self._program.run())

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
                self._program.observer.hears(self._program.run(), error.workflow_id)
                raise
            finally:
                if isinstance(sys.exception(), Exception | Cancelled | None):
                    self._program.observer.ended(self._program.run())

        return whole

    async def thought(self) -> None:
        """Compute for a second."""
        await asyncio.sleep(1.0)
        self._program.observer.rested(self._program.run())


def sequences(app: Operon, actions: Actions) -> Sequence[Any]:
    """Declare what does one step after the other."""

    @app.workflow(name="plain")
    @actions.whole
    async def plain(n: int) -> list[str]:
        return [await actions.worked(it) for it in range(n)]

    @app.workflow(name="retrying")
    @actions.whole
    async def retrying(n: int) -> list[str]:
        return [await actions.worked(0), await actions.tried(n % 4), await actions.worked(1)]

    @app.workflow(name="thinker")
    @actions.whole
    async def thinker(n: int) -> list[str]:
        first = await actions.worked(n)
        await actions.thought()
        return [first, await actions.worked(n)]

    @app.workflow(name="packed", batch=SIZE, batch_wait=1.0)
    async def packed(its: list[int]) -> list[str]:
        first = await actions.worked(len(its))
        second = await actions.worked(0)
        return [f"{first} {second} {it}" for it in its]

    return plain, retrying, thinker, packed


def waiting(app: Operon, actions: Actions) -> Sequence[Any]:
    """Declare what sleeps, for a while or until its deadline."""

    @app.workflow(name="sleeper")
    @actions.whole
    async def sleeper(n: int) -> list[str]:
        first = await actions.worked(0)
        await actions.slept(2.0 + n)
        second = await actions.worked(1)
        await actions.slept(0.3)
        return [first, second]

    @app.workflow(name="late", timeout=4.0)
    @actions.whole
    async def late(n: int) -> list[str]:
        first = await actions.worked(n)
        await aio.sleep(10_000)
        return [first]

    return sleeper, late


def stubborn(app: Operon, actions: Actions) -> Any:
    """Declare what does not take a cancellation for an answer."""

    @app.workflow(name="stubborn")
    @actions.whole
    async def stubborn(n: int) -> list[str]:
        first = await actions.worked(n)
        with suppress(BaseException):
            await actions.slept(2.5)
        return [first, await actions.worked(n), await actions.worked(n)]

    return stubborn


def branches(app: Operon, actions: Actions) -> Any:
    """Declare what takes turns at a queue and a semaphore of its own."""

    @app.workflow(name="branches")
    @actions.whole
    async def branches(n: int) -> list[str]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        room = asyncio.Semaphore(2)
        order: list[str] = []

        async def taker() -> None:
            while not queue.empty():
                item = queue.get_nowait()
                async with room:
                    order.append(await actions.worked(item))
                if item % 2:
                    await aio.sleep(0.1 * item)
                order.append(await actions.worked(item))

        for item in range(n + 2):
            queue.put_nowait(item)
        await asyncio.gather(taker(), taker(), taker())
        return [*order, await actions.worked(99)]

    return branches


def trees(program: Program, actions: Actions, plain: Any, sleeper: Any) -> Sequence[Any]:
    """Declare what starts others, and waits for them or leaves them alone."""
    app = program.app

    @app.workflow(name="parent")
    @actions.whole
    async def parent(n: int) -> list[Any]:
        handles = [await aio.start(plain, 2) for _ in range(n)]
        handles.append(await aio.start(sleeper, n))
        await actions.worked(0)
        found: list[Any] = [*await aio.gather(*handles)]
        return [*found, await plain(1), await actions.worked(1)]

    @app.workflow(name="endless")
    @actions.whole
    async def endless(n: int) -> list[Any]:
        for _ in range(n + 1):
            await aio.start(sleeper, 30)
        await aio.sleep(10_000)
        return []

    @app.workflow(name="crowd")
    @actions.whole
    async def crowd(n: int) -> list[Any]:
        line = program.queues["narrow"]
        handles = [await aio.enqueue(line, plain, 1) for _ in range(n + 1)]
        first = await actions.worked(0)
        return [first, *await aio.gather(*handles), await actions.worked(1)]

    return parent, endless, crowd
