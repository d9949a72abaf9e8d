"""Interrupting runs: those that are dead, cancelled, or past their deadline; and how a body hears of it, once."""

from __future__ import annotations

import logging
from asyncio import CancelledError, current_task, get_running_loop
from collections.abc import Callable, Coroutine, Generator, Iterable
from concurrent.futures import Future
from contextlib import suppress
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any

from operon.core import context
from operon.core.execution import timed_out
from operon.core.journal import Branch, Run
from operon.core.rows import Advanced, Guard
from operon.engine.endings import tell
from operon.errors import Cancelled, Suspended

if TYPE_CHECKING:
    from operon.engine.engine import Engine

log = logging.getLogger("operon")
REMEMBERED = 100_000
"""Claims that were revoked, and may belong to what is about to begin here."""


class CancelledInTask(Cancelled, CancelledError):
    """What is raised: asyncio's own class comes with the engine only, and not with `import operon`."""


CancelledInTask.__qualname__ = CancelledInTask.__name__ = Cancelled.__name__
CancelledInTask.__module__ = Cancelled.__module__


def kill(engine: Engine, run: Run, cause: BaseException) -> BaseException:
    """End a run from outside: what it waits for raises the first cause given, and so does its next verb.

    That it is cancelled, a body on the loop hears at its await, whatever it awaits; and one that is replayed where it
    was before, not at what it did long ago.
    """
    if isinstance(cause, Cancelled) and run.dead is None and run.behind():
        run.beyond = lambda: _kill(engine, run, cause)
        run.caught_up(run.beyond)
        _insist(engine, run, cause)
        return cause
    return _kill(engine, run, cause)


def _insist(engine: Engine, run: Run, cause: Cancelled) -> None:
    """Interrupt a replay wherever it is, once it has come no further for as long as a clean-up may take."""
    came = run.first()

    def look() -> None:
        if run.dead is not None:
            return
        if run.first() > came:
            _insist(engine, run, cause)
        else:
            log.warning("%s hears of its end before it is where it was: its replay does not go on.", run.id)
            _kill(engine, run, cause)

    engine.clockwork.after(engine.settings.cleanup, look)


def _kill(engine: Engine, run: Run, cause: BaseException) -> BaseException:
    fresh = run.dead is None
    if fresh and isinstance(cause, Cancelled):  # a thread may hear of it as soon as the run is dead
        run.cleaning_until = engine.clock() + engine.settings.cleanup
    first = run.die(CancelledInTask(*cause.args) if isinstance(cause, Cancelled) else cause)
    for stop in tuple(run.stops) if fresh else ():
        stop()
    if not isinstance(first, Cancelled):
        engine.waits.abandon(run, first)
        engine.loop.cancel(run)
    elif fresh:
        engine.waits.abandon(run, first, on_loop=not engine.loop.interrupt(run))
        engine.clockwork.after(engine.settings.cleanup, lambda: engine.loop.cancel(run))
    return first


def expire(engine: Engine, run: Run, then: Callable[[], None] = lambda: None) -> None:
    """Stop a workflow that passed its deadline: its outcome is recorded first, then its body is interrupted.

    A parent that has the same deadline comes first, so that it hears of its own, and not of its child's.
    """
    parent = engine.runs.get(run.row.parent or "")
    if parent is not None and parent.dead is None and parent.row.deadline == run.row.deadline:
        expire(engine, parent, lambda: _expire(engine, run, then))
    else:
        _expire(engine, run, then)


def _expire(engine: Engine, run: Run, then: Callable[[], None]) -> None:
    def recorded(answer: Future[Advanced]) -> None:
        if answer.exception() is None:
            kill(engine, run, Cancelled(f"{run.id} passed its deadline."))
            tell(engine, run.row, outcome)
        then()

    outcome = timed_out(engine, run, engine.executor)
    try:
        written = engine.pens.of(run).submit(outcome)
    except Suspended:  # it has left by itself meanwhile
        then()
    else:
        written.add_done_callback(recorded)


def revoke(engine: Engine, guards: Iterable[Guard]) -> None:
    """Interrupt what was cancelled, also what is about to begin: an answer of the store may be on its way."""
    for guard in guards:
        with engine.lock:
            engine.revoked[guard.workflow_id] = guard.claim
            run = engine.runs.get(guard.workflow_id)
        if run is not None and run.guard.fenced_by(guard.claim):  # or was taken over, and does not know yet
            kill(engine, run, Cancelled(f"{run.id} was cancelled."))
    with engine.lock:
        while len(engine.revoked) > REMEMBERED:
            del engine.revoked[next(iter(engine.revoked))]


# ── Hearing of it ────────────────────────────────────────────────────────────────────────────────────────────────────


def told(branch: Branch) -> None:
    """Note that a branch was told that its run is cancelled: what its task was asked for is done."""
    if branch.told or not isinstance(branch.run.dead, Cancelled):
        return
    branch.told = True
    with suppress(RuntimeError):  # this thread has no loop
        task = current_task()
        if task is not None and task.cancelling():
            task.uncancel()


async def told_in_turn(branch: Branch) -> None:
    """Let whoever awaits the task of a branch be told first: a task group would cancel the clean-up of its tasks."""
    if branch.told or branch is branch.run.root:
        return
    task = current_task()
    if isinstance(branch.run.dead, Cancelled) and task is not None and not task.cancelling():
        with suppress(CancelledError):
            await get_running_loop().create_future()


async def hears(branch: Branch) -> None:
    """Let a branch hear, by a verb of its own, that its run is cancelled."""
    await told_in_turn(branch)
    told(branch)


class Hearing:
    """A coroutine of a body; the first cancellation of its task, once the run is cancelled, is raised as `Cancelled`.

    So a body hears the same whatever it awaits: a verb, a future, a task group.
    """

    __slots__ = ("_branch", "_coro", "close", "send")

    def __init__(self, coro: Coroutine[Any, Any, Any], branch: Branch) -> None:
        self._coro = coro
        self._branch = branch
        self.send = coro.send
        self.close = coro.close

    @classmethod
    def of(cls, work: Any, branch: Branch) -> Any:
        """Have a coroutine hear; another awaitable is left as it is."""
        return cls(work, branch) if iscoroutine(work) else work

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coro, name)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    def __iter__(self) -> Hearing:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def throw(self, error: Any, *legacy: Any) -> Any:
        """Raise this where the coroutine waits, or what it means there."""
        if legacy or not isinstance(error, CancelledError):
            return self._coro.throw(error, *legacy)
        return self._coro.throw(self._heard(error))

    def _heard(self, error: CancelledError) -> BaseException:
        dead = self._branch.run.dead
        if self._branch.told or not isinstance(dead, Cancelled):
            return error
        if not context.place.get().driving:  # a verb may have something to finish first
            told(self._branch)
        return dead
