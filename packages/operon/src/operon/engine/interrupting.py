"""Interrupting runs: those that are dead, cancelled, or past their deadline."""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from operon.core.execution import timed_out
from operon.core.journal import Run
from operon.core.rows import Advanced, Guard
from operon.engine.endings import tell
from operon.engine.runtime import Runtime
from operon.errors import Cancelled, Suspended

log = logging.getLogger("operon")


class CancelledInTask(Cancelled, CancelledError):
    """What is raised: asyncio's own class comes with the engine only, and not with `import operon`."""


CancelledInTask.__qualname__ = CancelledInTask.__name__ = Cancelled.__name__
CancelledInTask.__module__ = Cancelled.__module__


def kill(engine: Runtime, run: Run, cause: BaseException) -> BaseException:
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


def _insist(engine: Runtime, run: Run, cause: Cancelled) -> None:
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

    engine.timers.after(engine.settings.cleanup, look)


def _kill(engine: Runtime, run: Run, cause: BaseException) -> BaseException:
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
        engine.timers.after(engine.settings.cleanup, lambda: engine.loop.cancel(run))
    return first


def expire(engine: Runtime, run: Run, then: Callable[[], None] = lambda: None) -> None:
    """Stop a workflow that passed its deadline: its outcome is recorded first, then its body is interrupted.

    A parent that has the same deadline comes first, so that it hears of its own, and not of its child's.
    """
    parent = engine.runs.get(run.row.parent or "")
    if parent is not None and parent.dead is None and parent.row.deadline == run.row.deadline:
        expire(engine, parent, lambda: _expire(engine, run, then))
    else:
        _expire(engine, run, then)


def _expire(engine: Runtime, run: Run, then: Callable[[], None]) -> None:
    def recorded(answer: Future[Advanced]) -> None:
        if answer.exception() is None:
            kill(engine, run, Cancelled(f"{run.id} passed its deadline."))
            tell(engine, run.row, outcome)
        then()

    outcome = timed_out(engine, run, engine.executor)
    try:
        written = engine.recorders.of(run).submit(outcome)
    except Suspended:  # it has left by itself meanwhile
        then()
    else:
        written.add_done_callback(recorded)


def revoke(engine: Runtime, guards: Iterable[Guard]) -> None:
    """Interrupt what was cancelled, also what is about to begin: an answer of the store may be on its way."""
    for guard in guards:
        run = engine.runs.revoke(guard)
        if run is not None:  # it may have been taken over, and not know it yet
            kill(engine, run, Cancelled(f"{run.id} was cancelled."))
