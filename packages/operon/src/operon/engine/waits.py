"""Waiting: for an instant, for other workflows to end; and leaving the process when it takes long.

A wait costs a future while it is short. Once a run has done nothing but wait for the grace time, it is parked: its
row waits, and the run leaves its function by `Suspended`, to be replayed when the wait is over.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from operon.core.commands import Look
from operon.core.journal import Run, Wait
from operon.core.rows import Advanced, Outcome, Park
from operon.core.states import Status
from operon.core.store import Store
from operon.engine.clockwork import Clockwork, Timer
from operon.errors import Suspended

Seen = dict[str, Outcome]
REMEMBERED = 1024
SLOWEST_LOOK = 1.0


class Parker(Protocol):
    """Who can submit a run's parking to the store."""

    def park(self, run: Run, park: Park) -> Future[Advanced]:
        """Submit it."""
        ...

    def now(self) -> float:
        """Estimate the store's clock."""
        ...


@dataclass(eq=False, slots=True)
class Waiting:
    """One wait that is under way in this process."""

    wait: Wait
    since: float
    future: Future[Seen] = field(default_factory=Future[Seen])
    timers: list[Timer] = field(default_factory=list[Timer])
    interval: float = 0.02


class Waits:
    """Every wait of this process."""

    def __init__(self, clockwork: Clockwork, store: Store, parker: Parker, grace: float) -> None:
        self._clockwork = clockwork
        self._store = store
        self._parker = parker
        self._grace = grace
        self._lock = threading.RLock()
        self._watchers: dict[str, set[Waiting]] = {}
        self._recent: OrderedDict[str, Outcome] = OrderedDict()

    def begin(self, wait: Wait) -> Waiting:
        """Begin to wait; the future is done when it is over."""
        waiting = Waiting(wait, self._clockwork.clock.monotonic())
        left = None if wait.until is None else wait.until - self._parker.now()
        with self._lock:
            seen = {target: self._recent[target] for target in wait.awaits if target in self._recent}
            if seen or (left is not None and left <= 0):
                waiting.future.set_result(seen)
                return waiting
            for target in wait.awaits:
                self._watchers.setdefault(target, set()).add(waiting)
            if wait.run is not None:
                wait.run.waits.add(waiting)
        if left is not None:
            self._later(waiting, left, lambda: self.end(waiting, {}))
        if wait.awaits:
            self._later(waiting, waiting.interval, lambda: self._look(waiting))
        if wait.run is not None:
            self.settle(wait.run)
        return waiting

    def end(self, waiting: Waiting, seen: Seen | BaseException) -> None:
        """End a wait, unless it has ended."""
        with self._lock:
            for timer in waiting.timers:
                timer.cancel()
            for target in waiting.wait.awaits:
                watchers = self._watchers.get(target, set())
                watchers.discard(waiting)
                if not watchers:
                    self._watchers.pop(target, None)
            if waiting.wait.run is not None:
                waiting.wait.run.waits.discard(waiting)
            if waiting.future.done():
                return
        if isinstance(seen, BaseException):
            waiting.future.set_exception(seen)
        else:
            waiting.future.set_result(seen)

    def ended(self, workflow_id: str, outcome: Outcome) -> None:
        """Tell all who wait here that a workflow has ended."""
        with self._lock:
            self._recent[workflow_id] = outcome
            if len(self._recent) > REMEMBERED:
                self._recent.popitem(last=False)
            watchers = tuple(self._watchers.get(workflow_id, ()))
        for waiting in watchers:
            self.end(waiting, {workflow_id: outcome})

    def abandon(self, run: Run, cause: BaseException) -> None:
        """End every wait of a run that is dead."""
        with self._lock:
            waits = tuple(run.waits)
        run.told = run.told or bool(waits)
        for waiting in waits:
            self.end(waiting, cause)

    def _later(self, waiting: Waiting, seconds: float, call: Callable[[], object]) -> None:
        waiting.timers.append(self._clockwork.after(seconds, call))

    def _look(self, waiting: Waiting) -> None:
        """Ask the store whether what is awaited has ended elsewhere: the safety net, ever more slowly."""

        def looked(answer: Future[Mapping[str, Outcome]]) -> None:
            outcomes: Mapping[str, Outcome] = {} if answer.exception() else answer.result()
            over = {key: it for key, it in outcomes.items() if it.status.ended or it.status is Status.HELD}
            if over:
                self.end(waiting, over)
                return
            waiting.interval = min(waiting.interval * 2, SLOWEST_LOOK)
            self._later(waiting, waiting.interval, lambda: self._look(waiting))

        if not waiting.future.done():
            self._store.submit(Look(waiting.wait.awaits)).add_done_callback(looked)

    # ── Parking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def settle(self, run: Run) -> None:
        """Park a run if it does nothing but wait, and will for long; else look again when that may be so."""
        with self._lock:
            if run.dead is not None or run.busy or run.parking or not run.waits:
                return
            now = self._clockwork.clock.monotonic()
            waits: tuple[Waiting, ...] = tuple(run.waits)
            rested = min(now - waiting.since for waiting in waits)
            instants = [waiting.wait.until for waiting in waits if waiting.wait.until is not None]
            until = min(instants, default=None)
            left = None if until is None else until - self._parker.now()
            if left is not None and left <= self._grace:
                return
            awaits = tuple(sorted({target for waiting in waits for target in waiting.wait.awaits}))
            patience = self._grace if awaits or run.forked or run.tasks else 0.0
            if rested < patience:
                self._later(waits[-1], patience - rested, lambda: self.settle(run))
                return
            run.parking = True
        self._parker.park(run, Park(until, awaits)).add_done_callback(lambda answer: self._parked(run, answer))

    def _parked(self, run: Run, answer: Future[Advanced]) -> None:
        run.parking = False
        error = answer.exception()
        if error is not None:
            self.abandon(run, error)
        elif answer.result().parked:
            self.abandon(run, run.die(Suspended(f"{run.id} waits.")))
        else:
            with self._lock:
                waits = tuple(run.waits)
            for waiting in waits:
                self.end(waiting, {})
