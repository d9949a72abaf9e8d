"""What the engine asks of the machine it runs on: time, chance, a name, and somebody who does its services.

The one seam between the engine and its simulation: everything that runs above it is the same in both.
"""

from __future__ import annotations

import threading
from random import Random, SystemRandom
from typing import Protocol

from operon.core.commands import Op
from operon.core.rows import Peer
from operon.engine import drivers, processes
from operon.engine.clock import Clock, WallClock
from operon.engine.ids import Ids
from operon.engine.runtime import DrivingRuntime
from operon.engine.timerthread import Timers, TimerThread


class Service(Protocol):
    """An operation that is being done in the background."""

    def join(self, timeout: float) -> None:
        """Wait until it has ended, so many seconds at most."""
        ...


class Machine:
    """The machine as it is: its clock, its chance, its threads."""

    def __init__(self) -> None:
        self.clock: Clock = WallClock()
        self.random: Random = SystemRandom()

    def ids(self) -> Ids:
        """Make what makes ids."""
        return Ids()

    def timers(self) -> Timers:
        """Make what calls things later."""
        return TimerThread(self.clock)

    def serve(self, engine: DrivingRuntime, name: str, op: Op[None]) -> Service:
        """Do a service of the engine's in the background, on a thread of its own."""
        thread = threading.Thread(target=drivers.serve, args=(engine, op), name=f"operon-{name}", daemon=True)
        thread.start()
        return thread

    def identity(self) -> tuple[str, int, str]:
        """Name this process: host, pid, and when it was born."""
        return processes.identity()

    def gone(self, peer: Peer) -> bool:
        """Whether a peer's process is provably no more."""
        return processes.gone(peer)
