"""What time it is, and how to wait by it: the machine's clock, or a test's."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """A clock that only goes forward, and how to wait by it."""

    def monotonic(self) -> float:
        """Seconds."""
        ...

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait on a condition that is held, for so many of this clock's seconds at most."""
        ...


class WallClock:
    """The machine's own."""

    monotonic = staticmethod(time.monotonic)
    """Seconds since the machine started, or so."""

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait, at most an hour at a time."""
        condition.wait(None if seconds is None else min(seconds, 3600.0))
