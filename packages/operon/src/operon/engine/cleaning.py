"""The clean-up of workflows that were cancelled, or passed their deadline, while no process ran them.

A body is replayed up to where it was, and hears of its end there, as one that runs does. What it does then is recorded
nowhere; if this process dies at it, another begins anew.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from functools import partial
from typing import TYPE_CHECKING, Protocol

from operon.core.commands import Cleaned, CleanUp, Op, ask
from operon.core.execution import clean_up
from operon.core.journal import Run
from operon.core.states import Status
from operon.engine.drivers import adrive, drive
from operon.engine.exits import interrupts
from operon.engine.monitor import Monitor
from operon.engine.places import Places
from operon.engine.program import Program
from operon.engine.runtime import DrivingRuntime
from operon.errors import Cancelled, StepFailed, StoreError, Suspended
from operon.threads import Threads

if TYPE_CHECKING:
    from operon.core.function import Function
    from operon.core.rows import Claimed, WorkflowRow

log = logging.getLogger("operon")


class CleaningRuntime(DrivingRuntime, Protocol):
    """An engine as what runs bodies sees it."""

    program: Program
    places: Places
    threads: Threads

    @property
    def alive(self) -> bool:
        """False while others may run what is here."""
        ...


class Cleaning:
    """The clean-ups that are under way in this process."""

    def __init__(self, engine: CleaningRuntime) -> None:
        self._engine = engine
        self._runs: dict[Run, None] = {}
        self._over: set[str] | None = None
        """Whose body came to its end here while clean-ups were being taken: it may be taken nevertheless."""
        self._unnoted: dict[str, int | None] = {}
        """Whose body came to its end here, under which claim, and that could not be noted yet."""

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._runs)

    def begin(self) -> Op[None]:
        """Take what is due, as far as there are places for it."""
        self._over = set()
        try:
            yield from self._take(self._over)
        finally:
            self._over = None
        for workflow_id, claim in tuple(self._unnoted.items()):  # taken first, where it was done under another name
            yield from ask(Cleaned(self._engine.executor, workflow_id, claim))
            self._unnoted.pop(workflow_id, None)

    def _take(self, over: set[str]) -> Op[None]:
        engine = self._engine
        for asynchronous in (False, True):
            functions = engine.program.functions.items()
            names = tuple(name for name, it in functions if it.asynchronous is asynchronous and it.kind == "workflow")
            free = engine.places.free(asynchronous=asynchronous)
            if names and free > 0:
                instances = engine.program.instances()
                here = tuple(sorted(self._here()))
                found = yield from ask(CleanUp(engine.executor, names, instances, engine.version, free, here))
                for it in found:
                    if it.row.id not in self._here() | over:  # as it was on its way, the body may have begun
                        self._spawn(it, engine.program.functions[it.row.name])

    def _here(self) -> set[str]:
        """Whose body is at it in this process, or has been."""
        return {key for key, _ in self._engine.runs.claims()} | {run.id for run in tuple(self._runs)} | {*self._unnoted}

    def leave(self) -> None:
        """Leave those that have not come to where they hear of it: whoever is next begins them anew."""
        for run in tuple(self._runs):
            self._engine.kill(run, Suspended("The app is closing."))

    def _spawn(self, it: Claimed, function: Function) -> None:
        engine = self._engine
        if engine.reserve(function, it.row.nonce, inline=True) is None:
            return
        run = Run(engine, it.row, it.journal, Monitor())
        self._runs[run] = None
        life = self._life(run, function)
        if function.asynchronous:
            engine.loop.spawn(lambda: adrive(engine, life), partial(self._lost, run, function, life))
        else:
            around = engine.program.around
            context = contextvars.Context()
            engine.threads.submit(lambda: context.run(around, lambda: drive(engine, life)))

    def _life(self, run: Run, function: Function) -> Op[None]:
        try:
            if (yield from self._hear(run, function)):
                yield from self.done(run.id)
        finally:
            self._leave(run, function)

    def _leave(self, run: Run, function: Function) -> None:
        self._runs.pop(run, None)
        self._engine.release(function, run.row.nonce)

    def _lost(self, run: Run, function: Function, life: Op[None]) -> None:
        """Leave a clean-up whose loop is closed: another begins anew."""
        if inspect.getgeneratorstate(life) == inspect.GEN_CREATED:  # else it leaves as it is closed
            self._leave(run, function)
        self._engine.kill(run, Suspended(f"{run.id} was left: its event loop was closed."))

    def report(self, run: Run) -> None:
        """Say what came of the clean-up of a run that was cancelled here."""
        name = f"{run.id} ({run.row.name})"
        if not run.root.told:
            log.warning("%s was cancelled as its body came to its end: it has not heard of it, nor cleaned up.", name)
        elif run.failure is not None and not _just_heard(run.failure):
            log.warning("The clean-up of %s failed.", name, exc_info=run.failure)

    def done(self, workflow_id: str, claim: int | None = None) -> Op[None]:
        """Note that a body which heard of its end here has come to its own; where that fails, again in a while.

        Args:
            workflow_id: whose body.
            claim: under which it ran; None if this process took its clean-up.
        """
        if self._over is not None:
            self._over.add(workflow_id)
        if not self._engine.alive:
            self._unnoted[workflow_id] = claim
            return
        executor = self._engine.executor
        try:
            yield from ask(Cleaned(executor, workflow_id, claim))
            if self._engine.executor != executor:  # it may be this process's by its new name, and was not asked for so
                self._unnoted[workflow_id] = claim
        except StoreError as error:
            self._unnoted[workflow_id] = claim
            log.warning("That %s has cleaned up could not be noted (%s); trying again.", workflow_id, error)

    def _hear(self, run: Run, function: Function) -> Op[bool]:
        """Let a body hear of its end; answers whether it did."""
        engine = self._engine
        task = asyncio.current_task() if function.asynchronous else None
        if task is not None:
            run.tasks[task] = run.root
            run.root.task = task
        engine.waits.enter(run)  # so that it is never parked
        try:
            what = "was cancelled" if run.row.status is Status.CANCELLED else "passed its deadline"
            engine.kill(run, Cancelled(f"{run.id} {what}."))
            yield from clean_up(run, function)
        except (asyncio.CancelledError, GeneratorExit) as error:
            if isinstance(error, GeneratorExit) or not run.cleaning_until or engine.clock() < run.cleaning_until:
                run.die(Suspended(f"{run.id} was left."))  # its loop goes down
                raise
            log.warning("The clean-up of %s (%s) took more than its time, and was stopped.", run.id, run.row.name)
        except BaseException as error:
            if not _just_heard(error.__cause__ if isinstance(error, StepFailed) else error):
                log.warning("The clean-up of %s (%s) failed.", run.id, run.row.name, exc_info=True)
            if interrupts(error):
                raise
        finally:
            run.tasks.pop(task, None)
            end = run.die(Suspended(f"{run.id} has left."))
            engine.waits.abandon(run, end)
            engine.loop.cancel(run)
        return not isinstance(end, Suspended)


def heard(row: WorkflowRow, run: Run | None) -> bool:
    """Whether a body has heard here that it is cancelled; one that was for the first time about to begin need not."""
    if run is None:
        return row.attempts == 1
    return isinstance(run.dead, Cancelled) and (row.attempts == 1 or not run.late)


def _just_heard(error: BaseException | None) -> bool:
    """Whether this says nothing but that it was told of its end: a task group raises that in a group."""
    return error is not None and BaseExceptionGroup("", [error]).split(Cancelled)[1] is None
