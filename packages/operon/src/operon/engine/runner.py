"""Runs a claimed workflow in this process, from its journal to its outcome: on a thread, on the loop, or inline."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from operon.core.commands import Op
from operon.core.execution import execute
from operon.core.function import Function
from operon.core.journal import Run
from operon.core.rows import Claimed, Guard, Outcome, WorkflowRow, first_row
from operon.core.starting import Execute
from operon.core.states import Status
from operon.engine import drivers, interrupting
from operon.engine.bridge import bridged
from operon.engine.cleaning import Cleaning, CleaningRuntime, heard
from operon.engine.endings import tell
from operon.engine.executor import Executor
from operon.engine.exits import interrupts
from operon.engine.monitor import Monitor
from operon.engine.timerthread import Timer
from operon.engine.weights import Weights
from operon.errors import Cancelled, StoreUnavailable, Suspended
from operon.promises import Promise

log = logging.getLogger("operon")
NESTED = 16
"""Workflows that run inline in one another on one thread's stack."""


class RunnerRuntime(CleaningRuntime, Protocol):
    """An engine as its runner sees it."""

    cleaning: Cleaning
    weights: Weights
    service: Executor


class Runner:
    """Runs what was started or claimed here; a place for it is reserved before, and given back at its end."""

    def __init__(self, engine: RunnerRuntime) -> None:
        self._engine = engine
        self._deadlines: dict[Run, Timer] = {}
        self._nested = threading.local()

    def execute(self, command: Execute) -> Outcome | None:
        """Run what was just started, for a blocking caller."""
        it, function = Claimed(first_row(command.row, self._engine.now())), command.function
        if not command.inline:
            self.spawn(it, function)
            return None
        if function.asynchronous:
            return self.spawn(it, function, inline=True).result()
        return self._nest(it, function)

    async def aexecute(self, command: Execute) -> Outcome | None:
        """Run what was just started, for an awaiting caller; if that one is cancelled, the workflow goes on."""
        it = Claimed(first_row(command.row, self._engine.now()))
        future = self.spawn(it, command.function, inline=command.inline)
        return await bridged(future) if command.inline else None

    def spawn(self, it: Claimed, function: Function, *, inline: bool = False) -> Future[Outcome | None]:
        """Run a claimed workflow in a place that is reserved for it; inline, its caller is told how it ends."""
        engine = self._engine
        done: Promise[Outcome | None] = Promise()
        engine.runs.expect(it.row)
        engine.weights.add(it)
        if function.asynchronous:
            life = self._life(it, function, inline=inline)
            engine.loop.spawn(lambda: drivers.adrive(engine, life), partial(self._lost, it, function, life, done), done)
        else:
            engine.threads.submit(partial(self._threaded, it, function, done))
        return done

    def _nest(self, it: Claimed, function: Function) -> Outcome | None:
        """Run in the caller's thread; where calls nest deeply, on a fresh stack."""
        self._engine.runs.expect(it.row)
        depth = getattr(self._nested, "depth", 0)
        if depth >= NESTED:
            done: Promise[Outcome | None] = Promise()
            work = partial(self._threaded, it, function, done, inline=True)
            threading.Thread(target=work, name="operon-nested", daemon=True).start()
            return done.result()
        self._nested.depth = depth + 1
        try:
            return contextvars.Context().run(self._blocking, it, function, inline=True)
        finally:
            self._nested.depth = depth

    def _threaded(self, it: Claimed, function: Function, done: Future[Outcome | None], *, inline: bool = False) -> None:
        try:
            done.set_result(contextvars.Context().run(self._blocking, it, function, inline=inline))
        except BaseException as error:
            done.set_exception(error)

    def _blocking(self, it: Claimed, function: Function, *, inline: bool) -> Outcome | None:
        life = self._life(it, function, inline=inline)
        try:
            return self._engine.program.around(lambda: drivers.drive(self._engine, life))
        except BaseException as error:
            if inspect.getgeneratorstate(life) != inspect.GEN_CREATED:
                raise
            life.close()
            self._leave(it.row, None, function, None)
            if interrupts(error):
                raise
            log.exception("What is put around %s failed; it is taken up again.", it.row.id)
            return None

    def _life(self, it: Claimed, function: Function, *, inline: bool) -> Op[Outcome | None]:
        """Run one claim of a workflow from its journal to its outcome."""
        row, task = it.row, asyncio.current_task() if function.asynchronous else None
        run: Run | None = None
        outcome: Outcome | None = None
        try:
            run = self._enter(it)
            if run is not None:
                if task is not None:
                    run.tasks[task] = run.root
                    run.root.task = task
                outcome = yield from execute(self._engine, run, function)
                if isinstance(run.dead, Cancelled):
                    self._engine.cleaning.report(run)
                elif run.failure is not None and not inline:
                    log.warning("%s (%s) failed.", row.id, row.name, exc_info=run.failure)
            if heard(row, run):
                yield from self._engine.cleaning.done(row.id, row.claim)
        except Suspended:
            pass
        except StoreUnavailable as error:
            log.warning("The run of %s was left (%s); it is taken up again.", row.id, error)
        except Exception:
            log.exception("The run of %s was left; it is taken up again.", row.id)
        finally:
            if run is not None:
                run.tasks.pop(task, None)  # it ends by itself
                run.root.task = run.failure = None
            self._leave(row, run, function, outcome)
            if run is None:
                self._engine.service.doubt()  # it may have something to clean up from before
        return outcome

    def _lost(self, it: Claimed, function: Function, life: Op[Any], done: Promise[Outcome | None]) -> Guard:
        """Leave a claim whose body was to run on a loop that is closed, or did; answers what is to be handed back."""
        guard, unbegun = Guard(it.row.id, it.row.claim), inspect.getgeneratorstate(life) == inspect.GEN_CREATED
        run = self._engine.runs.get(guard.workflow_id)
        if run is not None and run.guard == guard:
            self._engine.kill(run, Suspended(f"{run.id} was left: its event loop was closed."))
        if unbegun:  # else it leaves as it is closed
            self._leave(it.row, None, function, None)
        done.set_result(None)
        return guard

    def _enter(self, it: Claimed) -> Run | None:
        """Begin a run, unless it has been cancelled meanwhile."""
        engine, row = self._engine, it.row
        run = Run(engine, row, it.journal, Monitor())
        before = engine.runs.enter(run)
        if before is None:
            return None
        engine.recorders.open(run)
        run.late = row.deadline is not None and row.deadline <= engine.now()
        if row.deadline is not None and not run.late:
            self._deadlines[run] = engine.timers.after(
                row.deadline - engine.now(), lambda: interrupting.expire(engine, run)
            )
        for each in before:
            engine.kill(each, Suspended(f"{row.id} was taken up again."))
            engine.recorders.close(each)
        return run

    def _leave(self, row: WorkflowRow, run: Run | None, function: Function, outcome: Outcome | None) -> None:
        engine = self._engine
        engine.runs.leave(row, run)
        engine.weights.remove(row)
        if run is not None:
            if (deadline := self._deadlines.pop(run, None)) is not None:
                deadline.cancel()
            engine.recorders.close(run)
            engine.waits.abandon(run, run.die(Suspended(f"{row.id} has left.")))  # threads may still wait in it
        engine.loop.cancel(run)
        engine.release(function, row.nonce)
        handed_back = outcome.status is Status.QUEUED if outcome else not (run and run.parking)
        if row.queue is not None or handed_back:
            engine.service.nudge(news=row.queue is not None)
        if outcome is not None and outcome.status is not Status.QUEUED:
            tell(engine, row, outcome)
