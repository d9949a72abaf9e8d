"""The engine of one launched app: it runs workflows here, and knows which run here. Must not know which store."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from msgspec.structs import replace

from operon.core import context
from operon.core import host as hosts
from operon.core.commands import Op, Seed
from operon.core.execution import execute
from operon.core.function import Function
from operon.core.host import Opened, elsewhere
from operon.core.journal import Branch, Run
from operon.core.rows import Advanced, Claimed, Guard, Outcome, Park, WorkflowRow, first_row
from operon.core.schedules import declare
from operon.core.starting import Execute
from operon.core.states import Status
from operon.core.store import Store
from operon.engine import adoption, drivers, interrupting, orphans, strays
from operon.engine.cleaning import Cleaning, heard
from operon.engine.clockwork import Timer
from operon.engine.endings import tell
from operon.engine.executor import Executor
from operon.engine.exits import interrupts
from operon.engine.landing import arrived
from operon.engine.loops import Loop
from operon.engine.machine import Machine
from operon.engine.monitor import Monitor
from operon.engine.pen import Pens
from operon.engine.places import Places
from operon.engine.program import Program
from operon.engine.repose import at_rest
from operon.engine.settings import Settings
from operon.engine.timers import BodyTimers
from operon.engine.waits import Waits
from operon.engine.weights import Weights
from operon.errors import (
    Cancelled,
    DeclarationError,
    ForkedProcess,
    NotLaunched,
    StoreUnavailable,
    Suspended,
    WrongColour,
)
from operon.promises import Promise
from operon.threads import Threads

T = TypeVar("T")
log = logging.getLogger("operon")
LEAVING = 0.5
"""Seconds that runs are given to leave, once they are told to."""
CLOSING = 1.0
"""Seconds to leave what a launch that failed has entered."""
NESTED = 16
"""Workflows that run inline in one another on one thread's stack."""


class Engine:
    """A launched app; also what a verb sees of it (`core.host.Host`)."""

    def __init__(self, program: Program, store: Store, settings: Settings, machine: Machine | None = None) -> None:
        self.program = program
        self.name = program.name
        self.codec = program.codec
        self.version = program.version
        self.settings = settings
        self.grace = settings.grace
        self.store = store
        self.locks = "lock" in store.queries
        self.machine = machine or Machine()
        self.random = self.machine.random
        self.lock = threading.RLock()
        self.runs: dict[str, Run] = {}
        self._lives: dict[str, int] = {}
        """The claims that are run here, or will be as soon as a thread or the loop is free."""
        self.revoked: dict[str, int] = {}
        """The claims that were cancelled last, by id: neither they nor those before them begin any more."""
        self.queues: set[str] = set()
        self.cleaning = Cleaning(self)
        self._deadlines: dict[str, Timer] = {}
        self._abandoned: set[Future[Any]] = set()
        self._idle = threading.Condition(self.lock)
        self.forked = False
        """This is a child of the process that launched: nothing works here any more."""
        self._nested = threading.local()
        self.clockwork = self.machine.timers()
        self.clock = self.machine.clock.monotonic
        self.pens = Pens(store, self.clockwork, self.kill)
        self.linger = self.pens.linger
        self.waits = Waits(self.clockwork, store, self, settings.grace)
        self.ids = self.machine.ids()
        self.threads = Threads(settings.threads, f"operon-{program.name}")
        self.requests = Threads(settings.threads, f"operon-request-{program.name}")
        """For blocking work that a client waits for: it never waits behind what runs in the background."""
        self.loop = Loop(BodyTimers(self))
        self.places = Places(settings, self.loop, self.lock)
        self.service = Executor(self)
        self.weights = Weights(self.clockwork, self.service.lighter)

    # ── Life ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def launch(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Begin: enlist, and claim what is ready. Async bodies run on `loop`, or on one of our own."""
        adoption.patches.install()
        self.clockwork.start()
        try:
            if loop is not None:
                self.loop.use(loop)
            self.program.enter(self.loop.running() if self.program.awaits else None)
            self._seed()
            drivers.serve(self, declare(self, self.program.timetable))
            self.places.open = True
            self.store.listen(self.heard)
            self.service.start()
        except BaseException:
            self.places.open = False
            try:
                self.program.leave(CLOSING)
            finally:
                self.end()
            raise
        hosts.launched.append(self)

    def _seed(self) -> None:
        """Declare the program's queues.

        Raises:
            DeclarationError: another app, which is running, declares one of them otherwise.
        """
        for name, limits in self.program.limits.items():
            if rival := self.store.ask(Seed(name, limits, self.name)):
                raise DeclarationError(
                    f"The apps {rival} and {self.name} declare the queue {name!r} with different limits, and {rival} "
                    "is running: declare it alike, or give one of them another name."
                )
            self.queues.add(name)

    def connect(self) -> None:
        """Let verbs work and run nothing: this process is no executor, and no other learns of it."""
        self.service.look()
        self.clockwork.start()
        self.places.open = True

    def disconnect(self) -> None:
        """End what `connect` began."""
        self.places.open = False
        self.waits.close()
        self.clockwork.stop()
        self.threads.close()

    def stop(self, drain: float) -> None:
        """Stop claiming, let what runs end for so many seconds, and leave the rest."""
        with self.lock:
            self.places.open = False
        if self in hosts.launched:
            hosts.launched.remove(self)
        self.service.stop_claiming()
        self._drain(drain)
        with self.lock:
            left = tuple(self.runs.values())
        for run in left:
            self.kill(run, Suspended("The app is closing; the workflow goes on elsewhere, or at the next launch."))
        self.cleaning.leave()
        self._drain(min(LEAVING, drain))

    def close(self) -> None:
        """Hand back what was left, and end the lease; what is left of async bodies ends."""
        self.service.close()
        self.loop.quiet()

    def end(self) -> None:
        """Let go of what `launch` took."""
        adoption.patches.remove()
        self.waits.close()
        self.clockwork.stop()
        self.threads.close()
        self.requests.close()
        self.loop.close()

    def _drain(self, seconds: float) -> None:
        deadline = self.clock() + seconds
        with self._idle:
            while (self._lives or self.cleaning) and self.clock() < deadline:
                self._idle.wait(max(0.0, min(0.5, deadline - self.clock())))

    def forget(self) -> None:
        """Have nothing more to do with this, in the child of a process that launched: all of it is the parent's."""
        if self in hosts.launched:
            hosts.launched.remove(self)

    # ── What a verb sees ─────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def executor(self) -> int:
        """This process, as the store knows it."""
        return self.service.id

    def now(self) -> float:
        """Estimate the store's clock."""
        return self.service.now()

    def observe(self, now: float) -> None:
        """Learn from an answer what the store's clock shows."""
        self.service.observe(now)

    def new_id(self) -> str:
        """Make an id that sorts behind all earlier ones of this process."""
        return self.ids.new(self.now())

    def function(self, name: str) -> Function | None:
        """Find a function by its recorded name."""
        return self.program.functions.get(name)

    def within(self, connection: object) -> Opened:
        """See an open transaction of the caller."""
        return self.program.within(connection)

    def drive(self, op: Op[T]) -> T:
        """Run an operation on this thread."""
        return drivers.drive(self, op, self._admitted())

    def adrive(self, op: Op[T]) -> Coroutine[Any, Any, T]:
        """Run an operation on this loop."""
        line = self._admitted()
        if line is not None and not self.loop.here():
            raise WrongColour(
                "A workflow's body awaits on an event loop of its own, where tasks are not numbered and a replay would "
                "find others: make the workflow async instead of calling asyncio.run() in it, or do it all in one step."
            )
        return drivers.adrive(self, op, line)

    def unforked(self) -> None:
        """Refuse to work in a child of the process that launched.

        Raises:
            ForkedProcess: this is one.
        """
        if self.forked:
            raise ForkedProcess(
                f"{self.name} was launched before this process was forked, and threads do not come along. Launch in "
                "each worker: with gunicorn, call app.launch() in post_fork(server, worker) of gunicorn.conf.py, or "
                "leave it to the ASGI lifespan of uvicorn's workers; with preload_app = True, import the app only."
            )

    def _admitted(self) -> Branch | None:
        """Let a verb in, and give the branch of the body whose verb it is.

        Raises:
            NotInWorkflow: it is asked where a body sent its code, and nothing of it can be recorded.
            NotLaunched: the app is closed.
            WrongDatabase: it is of a client, or of an app on another database, which the workflow cannot record.
        """
        if self.forked:
            self.unforked()
        line = context.current()
        strays.admit(line)
        if line is not None:
            if line.run.host is not self:
                raise elsewhere(line.run)
        elif not self.places.open and context.branch() is None:  # what runs while the app drains may go on
            raise NotLaunched(f"{self.name} is closed.")
        return line

    # ── Places ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def reserve(self, function: Function, nonce: int, *, inline: bool = False) -> int | None:
        """Take a place for a body, if this process runs it and has one free; inline, the caller's thread is it."""
        if not (self.settings.run and self.service.alive) or self.function(function.name) is None:
            return None
        taken = self.places.take(nonce, asynchronous=function.asynchronous, inline=inline)
        return self.executor if taken else None

    def release(self, function: Function, nonce: int) -> None:
        """Give a place back."""
        self.places.give_back(nonce, asynchronous=function.asynchronous)
        if function.asynchronous in self.service.backlog:
            self.service.nudge(colours=frozenset({function.asynchronous}))

    def nudge(self, delay: float = 0.0, *, cancelled: bool = False) -> None:
        """Say that something will be ready in so many seconds, or that something was cancelled."""
        if cancelled:
            self.service.doubt()
            self.store.shout("cancelled")
        elif not self.settings.run:
            self.store.shout("later" if delay > 0 else "ready")
        else:
            self.service.nudge(delay, news=True)

    def replan(self) -> None:
        """Have it looked, here and elsewhere, when the next firing of a schedule is."""
        self.service.beat()
        self.store.shout("later")

    def heard(self, word: str) -> None:
        """Act on what another process said."""
        {"ready": self.service.nudge, "later": self.service.beat, "cancelled": self.service.doubt}[word]()

    # ── Running ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def execute(self, command: Execute) -> Outcome | None:
        """Run what was just started, for a blocking caller."""
        it, function = Claimed(first_row(command.row, self.now())), command.function
        if not command.inline:
            self.spawn(it, function)
            return None
        if function.asynchronous:
            return self.spawn(it, function, inline=True).result()
        return self._nest(it, function)

    def executes(self, workflow_id: str) -> bool:
        """Whether it runs here, and has not ended otherwise meanwhile: then whoever waits for it is told of its end."""
        run = self.runs.get(workflow_id)
        return workflow_id in self._lives and (run is None or (run.dead is None and run.beyond is None))

    def here(self) -> frozenset[tuple[str, int]]:
        """What runs here: ids and claims."""
        with self.lock:
            return frozenset(self._lives.items())

    def _nest(self, it: Claimed, function: Function) -> Outcome | None:
        """Run in the caller's thread; where calls nest deeply, on a fresh stack."""
        self._begin(it.row)
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

    def _begin(self, row: WorkflowRow) -> None:
        with self.lock:
            self._lives[row.id] = row.claim
            self.places.starting.discard(row.nonce)

    async def aexecute(self, command: Execute) -> Outcome | None:
        """Run what was just started, for an awaiting caller; if he is cancelled, the workflow goes on."""
        future = self.spawn(Claimed(first_row(command.row, self.now())), command.function, inline=command.inline)
        return await arrived(future) if command.inline else None

    def spawn(self, it: Claimed, function: Function, *, inline: bool = False) -> Future[Outcome | None]:
        """Run a claimed workflow in a place that is reserved for it; inline, its caller is told how it ends."""
        done: Promise[Outcome | None] = Promise()
        self._begin(it.row)
        self.weights.add(it)
        if function.asynchronous:
            body = partial(self._awaited, it, function, inline=inline)
            self.loop.spawn(body, done, partial(orphans.leave, self, it, function, done))
        else:
            self.threads.submit(partial(self._threaded, it, function, done))
        return done

    def _awaited(self, it: Claimed, function: Function, *, inline: bool) -> Coroutine[Any, Any, Outcome | None]:
        return drivers.adrive(self, self._life(it, function, inline=inline))

    def _threaded(self, it: Claimed, function: Function, done: Future[Outcome | None], *, inline: bool = False) -> None:
        try:
            done.set_result(contextvars.Context().run(self._blocking, it, function, inline=inline))
        except BaseException as error:
            done.set_exception(error)

    def _blocking(self, it: Claimed, function: Function, *, inline: bool) -> Outcome | None:
        life = self._life(it, function, inline=inline)
        try:
            return self.program.around(lambda: drivers.drive(self, life))
        except BaseException as error:
            if inspect.getgeneratorstate(life) != inspect.GEN_CREATED:
                raise
            life.close()
            self.leave(it.row, None, function, None)
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
                outcome = yield from execute(self, run, function)
                if isinstance(run.dead, Cancelled):
                    self.cleaning.report(run)
                elif run.failure is not None and not inline:
                    log.warning("%s (%s) failed.", row.id, row.name, exc_info=run.failure)
            if heard(row, run):
                yield from self.cleaning.done(row.id)
        except Suspended:
            pass
        except StoreUnavailable as error:
            log.warning("The run of %s was left (%s); it is taken up again.", row.id, error)
        except Exception:
            log.exception("The run of %s was left; it is taken up again.", row.id)
        finally:
            if run is not None:
                run.tasks.pop(task, None)  # it ends by itself
                run.root.task = None
            self.leave(row, run, function, outcome)
            if run is None:
                self.service.doubt()  # it may have something to clean up from before
        return outcome

    def _enter(self, it: Claimed) -> Run | None:
        """Begin a run, unless it has been cancelled meanwhile."""
        row, run = it.row, Run(self, it.row, it.journal, Monitor())
        with self.lock:
            if run.guard.fenced_by(self.revoked.get(row.id)):
                return None
            before = self.runs.get(row.id)
            self.runs[row.id] = run
        self.pens.open(run)
        run.late = row.deadline is not None and row.deadline <= self.now()
        if row.deadline is not None and not run.late:
            expire = partial(interrupting.expire, self, run)
            self._deadlines[row.id] = self.clockwork.after(row.deadline - self.now(), expire)
        if before is not None:
            self.kill(before, Suspended(f"{row.id} was taken up again."))
            self.pens.close(before)
        return run

    def leave(self, row: WorkflowRow, run: Run | None, function: Function, outcome: Outcome | None) -> None:
        """Have nothing more to do with a claim."""
        with self.lock:
            if run is not None and self.runs.get(row.id) is run:
                del self.runs[row.id]
                if (deadline := self._deadlines.pop(row.id, None)) is not None:
                    deadline.cancel()
            if self._lives.get(row.id) == row.claim:
                del self._lives[row.id]
            self._idle.notify_all()
        self.weights.remove(row)
        if run is not None:
            self.pens.close(run)
            self.waits.abandon(run, run.die(Suspended(f"{row.id} has left.")))  # threads may still wait in it
        self.loop.cancel(run)
        self.release(function, row.nonce)
        handed_back = outcome.status is Status.QUEUED if outcome else not (run and run.parking)
        if row.queue is not None or handed_back:
            self.service.nudge(news=row.queue is not None)
        if outcome is not None and outcome.status is not Status.QUEUED:
            tell(self, row, outcome)

    # ── Interrupting ─────────────────────────────────────────────────────────────────────────────────────────────────

    def kill(self, run: Run, cause: BaseException) -> BaseException:
        """End a run from outside: what it waits for raises the first cause given, and so does its next verb."""
        return interrupting.kill(self, run, cause)

    def revoke(self, guards: Iterable[Guard]) -> None:
        """Interrupt what was cancelled: once this returns, none of it begins anything here but its clean-up."""
        interrupting.revoke(self, guards)

    def park(self, run: Run, park: Park) -> Future[Advanced]:
        """Submit a run's parking; its deadline wakes it too."""
        instants = [it for it in (park.ready_at, run.row.deadline) if it is not None]
        ready_at = min(instants, default=None)
        parked = self.pens.of(run).submit(replace(park, ready_at=ready_at))
        if ready_at is not None:
            parked.add_done_callback(lambda _: self.service.nudge(ready_at - self.now()))
        return parked

    def quietly(self, run: Run, call: Callable[[], None]) -> None:
        """Call this when no line of the run's body is being executed on a loop, or is about to be."""

        def rested() -> None:
            if run.dead is not None or all(map(at_rest, tuple(run.tasks))):
                call()
            else:
                self.loop.between(rested)

        self.loop.between(rested) if run.tasks else call()

    def abandoned(self, work: Future[Any]) -> None:
        """Count a thread that was left running; say so when there are many."""
        with self.lock:
            self._abandoned = {it for it in self._abandoned if not it.done()} | {work}
            count = len(self._abandoned)
        log.warning("A step was abandoned past its timeout; %d such threads are still running.", count)
