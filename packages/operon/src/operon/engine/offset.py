"""The store's clock, as this process estimates it between two answers, and by how much it was put back."""

from __future__ import annotations

import threading

from operon.engine.clock import Clock

JUMP = 1.0
"""Seconds that clocks differ by without anybody having set one."""


class Offset:
    """How far the store's clock is ahead of the machine's own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._estimate = 0.0
        self._bounds: tuple[float, float] | None = None
        """Between what it was at the last look."""
        self._back = 0.0

    def now(self) -> float:
        """Estimate the store's clock."""
        return self._estimate + self._clock.monotonic()

    def looked(self, now: float, asked: float) -> None:
        """Learn what the store's clock showed, some time after it was asked for."""
        least, most = now - self._clock.monotonic(), now - asked
        with self._lock:
            if self._bounds is not None and self._bounds[0] - most > JUMP:
                self._back += self._bounds[1] - least
            self._bounds = least, most
            self._estimate = least

    def observe(self, now: float) -> None:
        """Learn from an answer what the store's clock shows: only if it was set is that better than the last look."""
        estimate = now - self._clock.monotonic()
        if abs(estimate - self._estimate) > JUMP:
            self._estimate = estimate

    def put_back(self) -> float:
        """Say by how many seconds at most the store's clock was put back since this was last asked for."""
        with self._lock:
            back, self._back = self._back, 0.0
        return back
