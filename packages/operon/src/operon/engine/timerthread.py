"""One thread that calls things later; what it calls must be quick and must not block."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from typing import Protocol

from operon.engine.clock import Clock

log = logging.getLogger("operon")
ROOM = 1000
"""Timers that are kept without a look at how many of them were cancelled."""


class Timer:
    """Something that will be called, unless it is cancelled."""

    __slots__ = ("call", "when")

    def __init__(self, when: float, call: Callable[[], object]) -> None:
        self.when = when
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Do not call it; harmless when it was called already."""
        self.call = None


class Timers(Protocol):
    """Calls things later."""

    clock: Clock

    def start(self) -> None:
        """Begin to call."""
        ...

    def after(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call this in so many seconds."""
        ...

    def stop(self) -> None:
        """Call nothing more."""
        ...


class TimerThread:
    """A heap of timers and the thread that minds it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._heap: list[tuple[float, int, Timer]] = []
        self._full = ROOM
        self._count = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="operon-timers", daemon=True)

    def start(self) -> None:
        """Begin to call."""
        self._thread.start()

    def after(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call this in so many seconds."""
        timer = Timer(self.clock.monotonic() + max(0.0, seconds), call)
        with self._changed:
            if len(self._heap) >= self._full:
                self._sweep()
            first = not self._heap or timer.when < self._heap[0][0]
            heapq.heappush(self._heap, (timer.when, next(self._count), timer))
            if first:
                self._changed.notify()
        return timer

    def _sweep(self) -> None:
        """Throw out what was cancelled, before the heap is twice as large as what is left."""
        self._heap = [item for item in self._heap if item[2].call is not None]
        heapq.heapify(self._heap)
        self._full = ROOM + 2 * len(self._heap)

    def stop(self) -> None:
        """Call nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while (timer := self._next()) is not None:
            call, timer.call = timer.call, None
            if call is not None:
                try:
                    call()
                except BaseException:  # a run that has left says so by `Suspended`
                    log.exception("A timer failed; the others go on.")

    def _next(self) -> Timer | None:
        with self._changed:
            while not self._stopped:
                left = self._heap[0][0] - self.clock.monotonic() if self._heap else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._heap)[2]
                self.clock.wait(self._changed, left)
        return None
