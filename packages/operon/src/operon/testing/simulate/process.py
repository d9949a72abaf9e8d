"""A simulated process: a machine for one engine, with a clock of its own, that may pause and die at any instant."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from operon.app.app import Operon
from operon.core import apps
from operon.core.commands import Op
from operon.core.rows import Peer
from operon.core.store import Store
from operon.engine import drivers
from operon.engine.clock import Clock
from operon.engine.engine import Engine
from operon.engine.ids import Ids
from operon.engine.machine import Machine, Service
from operon.engine.runtime import DrivingRuntime
from operon.engine.settings import Settings
from operon.engine.timerthread import Timer
from operon.testing.simulate.loops import SimulatedLoop
from operon.testing.simulate.schedule import Agenda

LEASE = 5.0
DRIFT = 1e-4
"""How much too fast or too slow a clock may be."""
SLACK = 1e-6
"""Seconds by which a timer may be early."""
POISON = 1000
"""Nothing is held for having been taken over: the simulation kills more often than that allows."""


class SimulatedClock:
    """The world's time, as this process's clock shows it: ahead by hours, a little fast or slow."""

    def __init__(self, agenda: Agenda, ahead: float, rate: float) -> None:
        self._agenda = agenda
        self._ahead = ahead
        self._rate = rate

    def monotonic(self) -> float:
        """Seconds since nobody knows when."""
        return self._ahead + self._agenda.now * self._rate

    def suspend(self, seconds: float) -> None:
        """Stand still for so long, as the clock of a machine does that sleeps; to be called when it has woken."""
        self._ahead -= seconds * self._rate

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Refuse: there is no thread that could wait."""
        del condition, seconds
        raise AssertionError("The simulator has one thread, and it must not block.")


class SimulatedTimers:
    """The timers, wound by the world."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.clock: Clock = process.clock

    def start(self) -> None:
        """Do nothing: the world calls."""

    def after(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call this in so many seconds."""
        timer = Timer(self.clock.monotonic() + max(0.0, seconds), call)

        def ring() -> None:
            ringing, timer.call = timer.call, None
            if ringing is not None:
                ringing()

        self._process.after(seconds, ring)
        return timer

    def stop(self) -> None:
        """Do nothing: a process ends by dying."""


class Background:
    """A service on a loop of its own: nobody waits for it here."""

    def join(self, timeout: float) -> None:
        """Do nothing."""


class Process(Machine):
    """One incarnation of a process on a simulated host."""

    def __init__(self, agenda: Agenda, host: int, number: int, seed: int) -> None:
        chance = Random(seed)
        super().__init__()
        ahead, rate = chance.uniform(1.0, 7200.0), chance.choice((1.0, 1.0 - DRIFT, 1.0 + DRIFT))
        self.clock = self._clock = SimulatedClock(agenda, ahead, rate)
        self.random = chance
        self.agenda = agenda
        self.host = host
        self.number = number
        self.alive = True
        self.paused = False
        self.body = SimulatedLoop(self, self.clock.monotonic)  # type: ignore[abstract] # all that tasks ask for is there
        self.service = SimulatedLoop(self, self.clock.monotonic)  # type: ignore[abstract] # likewise
        self.executors: set[int] = set()
        """The ids under which it is, and was, known to the store."""
        self.engine: Engine | None = None

    def __repr__(self) -> str:
        return f"host{self.host}.{self.number}"

    def launch(self, app: Operon, store: Store, settings: Settings) -> None:
        """Begin to run an app; where it is to run nothing, be a client of it."""
        self.engine = Engine(app, store, settings, self)
        app.host = self.engine
        if settings.run:
            self.engine.launch(self.body)
            apps.launched.remove(self.engine)
        else:
            self.engine.connect()

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        """Do this in so many seconds by this process's clock."""
        self._at(self.clock.monotonic() + max(0.0, seconds), call)

    def _at(self, when: float, call: Callable[[], object]) -> None:
        def ring() -> None:
            if self.clock.monotonic() < when - SLACK:
                self._at(when, call)  # the clock has stood still meanwhile
            else:
                call()

        self.soon(when - self.clock.monotonic(), ring)

    def soon(self, seconds: float, call: Callable[[], object]) -> None:
        """Let something happen to this process in so many of the world's seconds."""
        self.agenda.after(seconds, call, self)

    def spawn(self, body: Coroutine[Any, Any, object]) -> None:
        """Run a client's code here, outside of any workflow."""
        self.body.create_task(body, context=contextvars.Context())

    def resume(self, asleep: float) -> None:
        """Go on after a pause; for so many seconds of it the machine slept, and its clock with it."""
        self._clock.suspend(asleep)
        self.paused = False

    def die(self) -> None:
        """End at this instant: nothing is handed back, nobody says goodbye."""
        self.alive = False

    def end(self) -> None:
        """Take everything down."""
        self.alive = False
        for loop in (self.service, self.body):
            loop.end()

    # ── What the engine asks of a machine ────────────────────────────────────────────────────────────────────────────

    def ids(self) -> Ids:
        """Ids by this process's own chance."""
        return Ids(self.random.randbytes)

    def timers(self) -> SimulatedTimers:
        """Timers of the world."""
        return SimulatedTimers(self)

    def serve(self, engine: DrivingRuntime, name: str, op: Op[None]) -> Service:
        """Do a service of the engine's beside its bodies."""
        del name
        self.service.create_task(drivers.adrive(engine, op), context=contextvars.Context())
        return Background()

    def identity(self) -> tuple[str, int, str]:
        """Host, pid, birth."""
        return f"host{self.host}", self.number, str(self.number)

    def gone(self, peer: Peer) -> bool:
        """Whether it was a process of this host: there is one at a time."""
        return peer.host == f"host{self.host}" and peer.pid != self.number
