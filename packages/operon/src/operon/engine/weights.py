"""How much the journals take with which runs have begun here of late; it must not know what a run does."""

from __future__ import annotations

import threading
from collections.abc import Callable

from operon.core.rows import Claimed, Guard, WorkflowRow
from operon.engine.timerthread import Timers

NEWS = 5.0
"""Seconds for which a run is new here, and the memory that it takes keeps others from being claimed."""


class Weights:
    """The journals of new runs. Most have left by then: replayed to where they sleep on.

    Args:
        timers: tell when a run is new no more.
        lighter: called when there is room again.
    """

    def __init__(self, timers: Timers, lighter: Callable[[], None]) -> None:
        self._timers = timers
        self._lighter = lighter
        self._lock = threading.Lock()
        self._each: dict[Guard, int] = {}
        self.total = 0
        """How long their texts are, all together."""

    def add(self, it: Claimed) -> None:
        """Count what begins."""
        if weight := it.weight:
            row = it.row
            with self._lock:
                self._each[Guard(row.id, row.claim)] = weight
                self.total += weight
            self._timers.after(NEWS, lambda: self.remove(row))

    def remove(self, row: WorkflowRow) -> None:
        """Count it no more: it has left, or is no news."""
        if not self._each:
            return
        with self._lock:
            weight = self._each.pop(Guard(row.id, row.claim), 0)
            self.total -= weight
        if weight:
            self._lighter()
