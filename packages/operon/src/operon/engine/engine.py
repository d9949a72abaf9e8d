"""The engine of one launched app: it runs workflows here, and knows which run here. Must not know which store."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

from msgspec.structs import replace

from operon.core import apps, context
from operon.core.commands import Op, Seed
from operon.core.function import Declared, Function
from operon.core.host import Opened
from operon.core.journal import Branch, Run
from operon.core.rows import Advanced, Guard, Park
from operon.core.schedules import declare
from operon.core.store import Store
from operon.engine import adoption, drivers, fastpath, interrupting, strays
from operon.engine.cleaning import Cleaning
from operon.engine.executor import Executor
from operon.engine.loops import Loop
from operon.engine.machine import Machine
from operon.engine.places import Places
from operon.engine.program import Program
from operon.engine.recorder import Recorders
from operon.engine.repose import at_rest
from operon.engine.runner import Runner
from operon.engine.runs import Runs
from operon.engine.settings import Settings
from operon.engine.timers import BodyTimers
from operon.engine.waits import Waits
from operon.engine.weights import Weights
from operon.errors import DeclarationError, ForkedProcess, NotLaunched, Suspended
from operon.threads import GREEN, Threads

T = TypeVar("T")
log = logging.getLogger("operon")
LEAVING = 0.5
"""Seconds that runs are given to leave, once they are told to."""


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
        self.queues: set[str] = set()
        self.cleaning = Cleaning(self)
        self._abandoned: set[Future[Any]] = set()
        self.forked = False
        """This is a child of the process that launched: nothing works here any more."""
        self._patching = object()
        """Holds the patches while this is launched."""
        self.timers = self.machine.timers()
        self.clock = self.machine.clock.monotonic
        self.recorders = Recorders(store, self.timers, self.kill)
        self.linger = self.recorders.linger
        self.waits = Waits(self.timers, store, self, settings.grace)
        self.ids = self.machine.ids()
        self.threads = Threads(settings.threads, f"operon-{program.name}")
        self.requests = Threads(settings.threads, f"operon-request-{program.name}")
        """For blocking work that a client waits for: it never waits behind what runs in the background."""
        self.loop = Loop(BodyTimers(self, self.waits))
        self.on_loop = self.loop.executes
        self.places = Places(settings, self.loop, self.lock)
        self.runs = Runs(self.places, self.lock)
        self.executes = self.runs.executes
        self.service = Executor(self)
        self.weights = Weights(self.timers, self.service.lighter)
        runner = Runner(self)
        self.execute, self.aexecute, self.spawn = runner.execute, runner.aexecute, runner.spawn

    # ── Life ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def launch(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Begin: enlist, and claim what is ready. Async bodies run on `loop`, or on one of our own.

        Wherever it is interrupted, `stop`, `close` and `end` undo what it has begun.
        """
        adoption.patches.install(self._patching)
        self.timers.start()
        if loop is not None:
            self.loop.use(loop)
        self.program.enter(self.loop.running() if self.program.awaits else None)
        self._seed()
        self._warn_of_greenlets()
        drivers.serve(self, declare(self, self.program.timetable))
        self.places.open = True
        self.store.listen(self.heard)
        self.service.start()
        apps.launched.append(self)

    def _warn_of_greenlets(self) -> None:
        """Say that async workflows, which are declared, do not run here."""
        declared = any(it.asynchronous and it.kind != "step" for it in self.program.functions.values())
        if self.settings.run and declared and not self.loop.alive:
            log.warning(GREEN)

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
        self.timers.start()
        self.places.open = True

    def disconnect(self) -> None:
        """End what `connect` began."""
        self.places.open = False
        self.waits.close()
        self.timers.stop()
        self.threads.close()

    def stop(self, drain: float) -> None:
        """Stop claiming, let what runs end for so many seconds, and leave the rest."""
        with self.lock:
            self.places.open = False
        if self in apps.launched:
            apps.launched.remove(self)
        self.service.stop_claiming()
        try:
            self._drain(drain)
        finally:
            for run in self.runs.all():
                self.kill(run, Suspended("The app is closing; the workflow goes on elsewhere, or at the next launch."))
            self.cleaning.leave()
        self._drain(min(LEAVING, drain))

    def close(self) -> None:
        """Hand back what was left, and end the lease; what is left of async bodies ends."""
        self.service.close()
        self.loop.quiet()

    def end(self) -> None:
        """Let go of what `launch` took."""
        adoption.patches.remove(self._patching)
        self.waits.close()
        self.timers.stop()
        self.threads.close()
        self.requests.close()
        self.loop.close()

    def _drain(self, seconds: float) -> None:
        deadline = self.clock() + seconds
        with self.runs.changed:
            while (self.runs or self.cleaning) and self.clock() < deadline:
                self.runs.changed.wait(max(0.0, min(0.5, deadline - self.clock())))

    def forget(self) -> None:
        """Have nothing more to do with this, in the child of a process that launched: all of it is the parent's."""
        if self in apps.launched:
            apps.launched.remove(self)

    # ── What a verb sees ─────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def alive(self) -> bool:
        """False while others may run what is here, this executor having been declared dead."""
        return self.service.alive

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
        return drivers.drive(self, op, self._admitted(context.current()))

    def adrive(self, op: Op[T]) -> Coroutine[Any, Any, T]:
        """Run an operation on this loop."""
        return drivers.adrive(self, op, self.loop.admit(self._admitted(context.current())))

    def step(self, line: Branch, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a step on this thread."""
        self._admitted(line)
        return fastpath.step(self, line, declared, args, kwargs)

    def astep(
        self, line: Branch, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """Run a step on this loop."""
        self._admitted(line)
        return fastpath.astep(self, line, declared, args, kwargs)

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

    def _admitted(self, line: Branch | None) -> Branch | None:
        """Let a verb in, of the branch of the body whose verb it is.

        Raises:
            NotInWorkflow: it is asked where a body sent its code, and nothing of it can be recorded.
            NotLaunched: the app is closed.
            WrongDatabase: it is of a client, or of an app on another database, which the workflow cannot record.
        """
        if self.forked:
            self.unforked()
        strays.admit(line)
        if line is not None:
            if line.run.host is not self:
                raise apps.elsewhere(line.run)
        elif not self.places.open and context.branch() is None:  # what runs while the app drains may go on
            raise NotLaunched(f"{self.name} is closed.")
        return line

    # ── Places ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def reserve(self, function: Function, nonce: int, *, inline: bool = False) -> int | None:
        """Take a place for a body, if this process runs it and has one free; inline, the caller's thread is it."""
        if not (self.settings.run and self.alive) or self.function(function.name) is None:
            return None
        if function.asynchronous:
            self.loop.refuse_standing()
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
        parked = self.recorders.of(run).submit(replace(park, ready_at=ready_at))
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
