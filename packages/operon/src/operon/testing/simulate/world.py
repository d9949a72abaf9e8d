"""One simulated world: a database, some hosts, clients, bad weather; made of a seed, and the same each time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any, TypeVar

from operon.core import asking
from operon.core.commands import Command
from operon.core.journal import Run
from operon.errors import NotFound, NotLaunched, StepFailed, StoreError, WorkflowCancelled, WorkflowTimedOut
from operon.stores.memory import Clock, MemoryStore
from operon.testing.simulate.laws import LawBroken, Laws
from operon.testing.simulate.process import Process
from operon.testing.simulate.program import Set
from operon.testing.simulate.schedule import Agenda
from operon.testing.simulate.wire import Weather, Wire

T = TypeVar("T")
HOSTS = 3
STORM = 20.0
"""Seconds until the weather is fine for good."""
PATIENCE = 400.0
"""Seconds after which whatever has not ended is stranded."""
EVENTS = 200_000
LASTING = ("endless",)
"""What ends only when it is cancelled."""


class World:
    """Everything there is; `run` lets it happen."""

    def __init__(self, seed: int, *, harsh: bool = False, trace: bool = False) -> None:
        self.seed = seed
        self.harsh = harsh
        self.random = Random(seed)
        self.agenda = Agenda(Random(self.random.getrandbits(64)))
        self.store = MemoryStore(Clock(lambda: 1_700_000_000.0 + self.agenda.now))
        self.laws = Laws(self.store, self.store.clock)
        self.weather = Weather()
        self.grace = self.random.choice((0.05, 1.0)) if harsh else 1.0
        self.processes: list[Process] = []
        self.wires: dict[Process, Wire] = {}
        self.trace: list[str] | None = [] if trace else None
        self.calm = False
        self.events = 0
        self.effects = 0
        self.clients: list[Process] = []
        """Where a client waits for a result."""
        self.failures: list[BaseException] = []

    # ── Life ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Let everything happen until all has ended.

        Raises:
            LawBroken: what must never be.
        """
        ears = Ears(self)
        with ears:
            try:
                for host in range(HOSTS):
                    self.boot(host)
                self._plan()
                while self._step():
                    if self.failures:
                        raise self.failures[0]
                self.laws.concluded()
            finally:
                for process in self.processes:
                    process.end()

    def boot(self, host: int) -> None:
        """Start a process on a host."""
        process = Process(self.agenda, f"host{host}", len(self.processes) + 1, self.random.getrandbits(64))
        self.processes.append(process)
        wire = self.wires[process] = Wire(self, process)
        stage = sets()[host]
        stage.stage = self
        process.launch(stage.app, wire, self.grace)
        self.note(process, "boots")

    def _step(self) -> bool:
        possible = self.agenda.possible()
        for process in self.processes:
            possible += process.possible()
        if possible:
            self.events += 1
            if self.events > EVENTS:
                raise LawBroken(f"Something spins: {EVENTS} events, and it is {self.agenda.now:.3f}.")
            self.random.choice(possible)()
            return True
        return not self._over() and self.agenda.skip()

    def _over(self) -> bool:
        if self.agenda.now <= STORM:
            return False
        stranded, waiting = self.laws.stranded(), [str(it) for it in self.clients if it.alive]
        if not stranded and not waiting:
            return True
        if self.agenda.now > PATIENCE:
            raise LawBroken(f"After {PATIENCE} s, {stranded} have not ended, and clients in {waiting} wait.")
        return False

    # ── What is to happen ────────────────────────────────────────────────────────────────────────────────────────────

    def _plan(self) -> None:
        chance = self.random
        self.calm = chance.random() < 0.2
        self.weather.delay = chance.choice((0.0005, 0.002, 0.02, *((0.1,) if self.harsh else ())))
        if not self.calm:
            self.weather.lost_before = chance.choice((0.0, 0.02, 0.1))
            self.weather.lost_after = chance.choice((0.0, 0.02, 0.1))
            self.weather.ambush = chance.choice((0.0, 0.003, 0.01)) if self.harsh else 0.0
            self.weather.deaf = chance.choice((0.0, 0.3, 1.0))
            for _ in range(chance.randrange(4)):
                self.agenda.at(chance.uniform(0.1, STORM - 1.0), self._accident)
        self.agenda.at(STORM, self._clear)
        names = list(sets()[0].flows)
        for number in range(chance.randrange(3, 7)):
            self._plan_one(f"w{number}", chance.choice(names), chance.randrange(4))

    def _plan_one(self, key: str, name: str, n: int) -> None:
        chance = self.random
        at = chance.uniform(0.0, 8.0)
        for _ in range(1 if chance.random() < 0.6 else 2):
            self.agenda.at(at + chance.choice((0.0, 0.001, 1.0)), lambda: self._start(key, name, n))
        if name in LASTING or chance.random() < 0.2:
            self.agenda.at(at + chance.uniform(0.5, 10.0), lambda: self._cancel(key))
            self.agenda.at(STORM + 1.0, lambda: self._see_to_it(key))

    def _accident(self) -> None:
        """Pause or kill somebody."""
        process = self.random.choice([it for it in self.processes if it.alive])
        if self.random.random() < 0.5:
            process.die()
            self.note(process, "dies")
            host = int(process.host.removeprefix("host"))
            self.agenda.after(self.random.choice((0.1, 3.0, 12.0)), lambda: self.boot(host))
        else:
            self.pause(process)

    def pause(self, process: Process) -> None:
        """Let a process stand still for a while, perhaps for longer than its lease."""
        if process.alive and not process.paused:
            process.paused = True
            self.note(process, "pauses")
            self.agenda.after(self.random.choice((0.5, 6.0, 9.0)), lambda: self._resume(process))

    def _resume(self, process: Process) -> None:
        process.paused = False
        self.note(process, "goes on")

    def _clear(self) -> None:
        self.weather = Weather(delay=self.weather.delay)
        self.note(None, "the weather clears")

    def _somewhere(self) -> Process | None:
        there = [it for it in self.processes if it.alive and not it.paused]
        return self.random.choice(there) if there else None

    def _start(self, key: str, name: str, n: int) -> None:
        process = self._somewhere()
        if process is None:
            self.agenda.after(1.0, lambda: self._start(key, name, n))
            return
        self.note(process, f"starts {name}({n}) as {key}")
        flow = sets()[int(process.host.removeprefix("host"))].flows[name]
        process.spawn(self._started(process, key, flow, n))

    async def _started(self, process: Process, key: str, flow: Any, n: int) -> None:
        """A client: start, and wait for the result."""
        from operon import aio

        try:
            handle = await aio.start(flow.using(key=key), n)
            self.laws.acknowledged[key] = flow.function.name
            self.clients.append(process)
            try:
                value = await handle
            finally:
                self.clients.remove(process)
            self._compare(key, value)
        except (StoreError, NotLaunched, WorkflowCancelled, WorkflowTimedOut) as error:
            self.note(process, f"hears of {key}: {type(error).__name__}")
        except (GeneratorExit, StepFailed):
            raise
        except BaseException as error:
            self.failures.append(error)

    def _compare(self, key: str, value: Any) -> None:
        import json

        recorded = json.loads(self.store.workflows[key].row.output or "null")
        if recorded != value:
            raise LawBroken(f"The client of {key} got {value!r}, and recorded is {recorded!r}.")

    def _see_to_it(self, key: str) -> None:
        """Cancel again and again, until it has ended."""
        if key in self.laws.stranded():
            self._cancel(key)
            self.agenda.after(5.0, lambda: self._see_to_it(key))

    def _cancel(self, key: str) -> None:
        process = self._somewhere()
        if process is not None:
            self.note(process, f"cancels {key}")
            process.spawn(self._cancelled(process, key))

    async def _cancelled(self, process: Process, key: str) -> None:
        engine = process.engine
        assert engine is not None
        try:
            await engine.adrive(asking.cancel(engine, key))
        except (StoreError, NotFound, NotLaunched) as error:
            self.note(process, f"could not cancel {key}: {type(error).__name__}")

    # ── The database ─────────────────────────────────────────────────────────────────────────────────────────────────

    def carry_out(self, process: Process, command: Command[T]) -> T:
        """Commit a command, and hold what it did against the laws."""
        answer = self.store.apply(command)
        if self.trace is not None:
            self.note(process, f"{command} -> {answer}")
        try:
            self.laws.committed(process, command, answer)
        except LawBroken as error:
            self.failures.append(error)
        return answer

    def say(self, process: Process, word: str) -> None:
        """Tell the others, if they hear it."""
        for other in self.processes:
            heard = self.wires[other].heard
            if other is process or heard is None or self.agenda.random.random() < self.weather.deaf:
                continue
            late = self.agenda.random.expovariate(1.0 / self.weather.delay)
            self.agenda.after(late, lambda heard=heard: heard(word), other)  # type: ignore[misc]

    # ── The stage ────────────────────────────────────────────────────────────────────────────────────────────────────

    def chance(self, run: Run) -> float:
        """How long a step takes."""
        del run
        return self.agenda.random.choice((0.0, 0.0, 0.005, 0.3))

    def begins(self, run: Run, position: str) -> str:
        """See a step begin."""
        self.effects += 1
        self.note(None, f"{run.id}/{run.guard.claim} begins {position}")
        self._judge(lambda: self.laws.begins(run, position))
        return f"{position}:{self.effects}"

    def sees(self, run: Run, value: str) -> str:
        """See a value arrive in a body."""
        self._judge(lambda: self.laws.sees(run, value.partition(":")[0], value))
        return value

    def woke(self, run: Run) -> None:
        """See a sleep end."""
        self._judge(lambda: self.laws.woke(run))

    def rested(self, run: Run) -> None:
        """See a body go on."""
        if self.calm or self.agenda.now > STORM:
            self._judge(lambda: self.laws.rested(run))

    def _judge(self, law: Callable[[], None]) -> None:
        """Keep what is broken: an engine would take it for the body's own failure."""
        try:
            law()
        except LawBroken as error:
            self.failures.append(error)

    def note(self, process: Process | None, what: str) -> None:
        """Write a line of the trace."""
        if self.trace is not None:
            self.trace.append(f"{self.agenda.now:12.6f} {process or 'world'!s:9} {what}")


@cache
def sets() -> tuple[Set, ...]:
    """One app a host, declared once: a process that boots there runs it anew."""
    return tuple(Set() for _ in range(HOSTS))


class Ears(logging.Handler):
    """Hears what the engine complains of: it must not stumble, whatever the weather."""

    NAMES = ("operon", "concurrent.futures", "asyncio")

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world
        self._before: list[bool] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take a complaint for a broken law."""
        error = record.exc_info[1] if record.exc_info else None
        complaint = LawBroken(f"The engine complains: {record.getMessage()} ({error!r})")
        complaint.__cause__ = error
        self._world.failures.append(complaint)

    def __enter__(self) -> None:
        loggers = [logging.getLogger(name) for name in self.NAMES]
        self._before = [it.propagate for it in loggers]
        for logger in loggers:
            logger.addHandler(self)
            logger.propagate = False

    def __exit__(self, *_: object) -> None:
        for name, propagate in zip(self.NAMES, self._before, strict=True):
            logger = logging.getLogger(name)
            logger.removeHandler(self)
            logger.propagate = propagate
