"""A bell that one listener sleeps by, on a thread or on a loop; a ring that nobody heard yet is not lost."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress

from operon.core.commands import Command
from operon.engine.clock import Clock
from operon.engine.landing import arrived


class Bell:
    """Wakes its listener, or keeps him from falling asleep."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._rung = False
        self._ear: Future[None] | None = None

    def ring(self) -> None:
        """Wake the listener; from any thread."""
        with self._changed:
            self._rung = True
            ear, self._ear = self._ear, None
            self._changed.notify()
        if ear is not None:
            ear.set_result(None)

    def wait(self, seconds: float | None) -> None:
        """Block this thread until it rings, or for so many seconds."""
        with self._changed:
            if not self._rung:
                self._clock.wait(self._changed, None if seconds is None else max(0.0, seconds))
            self._rung = False

    async def heard(self, seconds: float | None) -> None:
        """Await that it rings, or that so many seconds pass."""
        with self._changed:
            if not self._rung:
                self._ear = Future()
            ear = self._ear
        if ear is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(None if seconds is None else max(0.0, seconds)):
                    await arrived(ear)
        with self._changed:
            self._rung, self._ear = False, None


class Rest(Command[None], frozen=True):
    """Rest until the bell rings, or for so many seconds if they are limited."""

    bell: Bell
    seconds: float | None
