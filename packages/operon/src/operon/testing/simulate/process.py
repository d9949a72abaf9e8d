"""A simulated process: a machine for one engine, with a clock of its own, that may pause and die at any instant."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from operon.app.app import Operon
from operon.core import host as hosts
from operon.core.commands import Op
from operon.core.rows import Peer
from operon.core.store import Store
from operon.engine import drivers
from operon.engine.clockwork import Timer
from operon.engine.engine import Engine
from operon.engine.ids import Ids
from operon.engine.machine import Machine, Service
from operon.engine.settings import Settings
from operon.testing.simulate.loops import SimulatedLoop
from operon.testing.simulate.schedule import Agenda

LEASE = 5.0
POISON = 1000
"""Nothing is held for having been taken over: the simulation kills more often than that allows."""


class SimulatedClock:
    """The world's time, as this process's clock shows it."""

    def __init__(self, agenda: Agenda, skew: float) -> None:
        self._agenda = agenda
        self._skew = skew

    def monotonic(self) -> float:
        """Seconds since nobody knows when."""
        return self._agenda.now + self._skew

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Refuse: there is no thread that could wait."""
        del condition, seconds
        raise AssertionError("The simulator has one thread, and it must not block.")


class SimulatedTimers:
    """The clockwork, wound by the world."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.clock = process.clock

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

    def __init__(self, agenda: Agenda, host: str, number: int, seed: int) -> None:
        chance = Random(seed)
        super().__init__()
        self.clock = SimulatedClock(agenda, chance.uniform(1.0, 7200.0))
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
        return f"{self.host}.{self.number}"

    def launch(self, app: Operon, store: Store, grace: float) -> None:
        """Begin to run an app."""
        self.engine = Engine(app, store, Settings(grace=grace, ttl=LEASE, poison=POISON), self)
        app.host = self.engine
        self.engine.launch(self.body)
        hosts.launched.remove(self.engine)

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        """Let something happen to this process later."""
        self.agenda.after(seconds, call, self)

    def spawn(self, body: Coroutine[Any, Any, None]) -> None:
        """Run a client's code here, outside of any workflow."""
        self.body.create_task(body, context=contextvars.Context())

    def die(self) -> None:
        """End at this instant: nothing is handed back, nobody says goodbye."""
        self.alive = False

    def possible(self) -> list[Callable[[], object]]:
        """What this process could do next."""
        if not self.alive or self.paused:
            return []
        return [loop.step for loop in (self.body, self.service) if loop.ready()]

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

    def serve(self, engine: Engine, name: str, op: Op[None]) -> Service:
        """Do a service of the engine's beside its bodies."""
        del name
        self.service.create_task(drivers.adrive(engine, op), context=contextvars.Context())
        return Background()

    def identity(self) -> tuple[str, int, str]:
        """Host, pid, birth."""
        return self.host, self.number, str(self.number)

    def gone(self, peer: Peer) -> bool:
        """Whether it was a process of this host: there is one at a time."""
        return peer.host == self.host and peer.pid != self.number
