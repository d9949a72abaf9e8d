"""A wake-up for one service that sleeps, on a thread or on a loop; one that comes while it is awake is not lost."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress

from operon.core.commands import Command
from operon.engine.bridge import bridged
from operon.engine.clock import Clock


class Wakeup:
    """Wakes the service that sleeps, or keeps it from falling asleep."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._is_set = False
        self._waiter: Future[None] | None = None

    def set(self) -> None:
        """Wake the sleeper; from any thread."""
        with self._changed:
            self._is_set = True
            waiter, self._waiter = self._waiter, None
            self._changed.notify()
        if waiter is not None:
            waiter.set_result(None)

    def wait(self, seconds: float | None) -> None:
        """Block this thread until it is set, or for so many seconds; then it is cleared."""
        with self._changed:
            if not self._is_set:
                self._clock.wait(self._changed, None if seconds is None else max(0.0, seconds))
            self._is_set = False

    async def awaited(self, seconds: float | None) -> None:
        """Await that it is set, or that so many seconds pass; then it is cleared."""
        with self._changed:
            if not self._is_set:
                self._waiter = Future()
            waiter = self._waiter
        if waiter is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(None if seconds is None else max(0.0, seconds)):
                    await bridged(waiter)
        with self._changed:
            self._is_set, self._waiter = False, None


class Rest(Command[None], frozen=True):
    """Rest until the wake-up is set, or for so many seconds if they are limited."""

    wakeup: Wakeup
    seconds: float | None
