"""The pens of the runs: each is the only one that writes its run's journal, one commit at a time.

What is noted while a commit is under way rides in the next one. Must not know what the entries mean.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from operon.core.commands import Advance, Look
from operon.core.journal import Run
from operon.core.rows import Advanced, Outcome, Park
from operon.core.states import Status
from operon.core.store import Store
from operon.engine.clockwork import Timers
from operon.errors import Cancelled, StoreError, Suspended
from operon.promises import Promise

End = Outcome | Park | None
Then = Callable[[Future[Advanced]], object]
LINGER = 0.003
"""Seconds a record may wait for company while its workflow computes on."""
NOTHING = Advanced(written=True)


class Trip(Promise[Advanced]):
    """A commit that somebody waits for, and the end that it carries."""

    end: End = None


class Pens:
    """The pens of all runs of this process; `leave` ends a run that cannot be written."""

    def __init__(self, store: Store, clockwork: Timers, leave: Callable[[Run, BaseException], BaseException]) -> None:
        self._store = store
        self._clockwork = clockwork
        self._leave = leave
        self._lock = threading.Lock()
        self._pens: dict[Run, Pen] = {}
        self._lingering: dict[Run, None] = {}

    def open(self, run: Run) -> None:
        """Let a run write."""
        with self._lock:
            self._pens[run] = Pen(self._store, run, self._leave)

    def close(self, run: Run) -> None:
        """Let a run write no more: it has left."""
        with self._lock:
            self._pens.pop(run, None)

    def of(self, run: Run) -> Pen:
        """The pen of a run; a run that has left has none."""
        pen = self._pens.get(run)
        if pen is None:
            raise run.die(Suspended(f"{run.id} has left."))
        return pen

    def linger(self, run: Run) -> None:
        """See that what is pending is written within a few milliseconds, whatever the body does."""
        if run in self._lingering:  # or was, this moment: then what is pending is seen by now
            return
        with self._lock:
            first = not self._lingering
            self._lingering[run] = None
        if first:
            self._clockwork.after(LINGER, self._lingered)

    def _lingered(self) -> None:
        with self._lock:
            lingering, self._lingering = self._lingering, {}
            pens = [self._pens[run] for run in lingering if run.pending and run.dead is None and run in self._pens]
        for pen in pens:
            pen.submit()


class Pen:
    """Writes what a run has noted, and its end; `leave` is told why a run must be left, and answers the first cause."""

    __slots__ = ("_command", "_flight", "_leave", "_lock", "_run", "_store", "_waiting")

    def __init__(self, store: Store, run: Run, leave: Callable[[Run, BaseException], BaseException] = Run.die) -> None:
        self._store = store
        self._run = run
        self._leave = leave
        self._lock = threading.Lock()
        self._flight: Trip | None = None
        self._command: Advance
        """What is under way."""
        self._waiting: tuple[Trip, ...] = ()

    def flush(self, end: End = None) -> Advanced:
        """Write everything, on this thread if no commit is under way."""
        trip, command = self._begin(end)
        if command is not None:
            try:
                self._land(trip, self._store.ask(command))
            except BaseException as error:
                self._fail(trip, error)
                if not isinstance(error, Exception):
                    raise
        return trip.result()

    def submit(self, end: End = None, then: Then | None = None) -> Future[Advanced]:
        """Write everything soon, and call `then`; never blocks, never raises."""
        trip, command = self._begin(end, then)
        if command is not None:
            self._launch(trip, command)
        return trip

    def __call__(self, answer: Future[Advanced]) -> None:
        """Learn what came of the commit that was under way; the store calls this."""
        trip = self._flight
        if trip is None:
            return
        try:
            self._land(trip, answer.result())
        except BaseException as error:
            self._fail(trip, error)

    def _begin(self, end: End, then: Then | None = None) -> tuple[Trip, Advance | None]:
        with self._lock:
            if self._flight is None:
                trip = Trip(then)
                if end is not None or self._run.pending:
                    trip.end = end
                    return trip, self._take(trip)
                trip.set_result(NOTHING)
                return trip, None
            trip = self._board(self._flight, end)
        if then is not None:
            trip.add_done_callback(then)
        return trip, None

    def _board(self, flight: Trip, end: End) -> Trip:
        """Find the commit that takes what is pending; every end has one of its own, so that the first one decides."""
        last = self._waiting[-1] if self._waiting else None
        if end is None and (last is not None or not self._run.pending):
            return last or flight
        if last is None or last.end is not None:
            last = Trip()
            self._waiting = (*self._waiting, last)
        last.end = end
        return last

    def _take(self, trip: Trip) -> Advance:
        run, end = self._run, trip.end
        self._flight, run.writing = trip, True
        entries = tuple(run.pending)
        del run.pending[: len(entries)]
        if run.riding:
            riding, run.riding = run.riding, {}
            if not (isinstance(end, Outcome) and end.status.ended):  # of what has ended nothing is replayed any more
                entries = (*entries, *riding.values())
        self._command = Advance(run.id, run.guard.claim, entries, end)
        return self._command

    def _launch(self, trip: Trip, command: Advance) -> None:
        try:
            self._store.submit(command, self)
        except StoreError as error:
            self._fail(trip, error)

    def _land(self, trip: Trip, answer: Advanced) -> None:
        if not answer.written:
            self._store.submit(Look((self._run.id,)), lambda it: self._fail(trip, self._why(it)))
            return
        if answer.instants:
            timed = (entry.position for entry in self._command.entries if entry.after is not None)
            self._run.instants.update(zip(timed, answer.instants, strict=True))
        self._go_on()
        trip.set_result(answer)

    def _go_on(self) -> None:
        with self._lock:
            self._flight, self._run.writing = None, False
            if not self._waiting:
                return
            trip, *waiting = self._waiting
            self._waiting = tuple(waiting)
            command = self._take(trip)
        self._launch(trip, command)

    def _why(self, answer: Future[Mapping[str, Outcome]]) -> BaseException:
        """Say why the run may not write any more: what cancelled it may not have come to tell it yet."""
        outcome = None if answer.exception() else answer.result().get(self._run.id)
        if outcome is not None and outcome.status is Status.CANCELLED:
            return Cancelled(f"{self._run.id} was cancelled.")
        return Suspended(f"{self._run.id} is no longer run here.")

    def _fail(self, trip: Trip, error: BaseException) -> None:
        final = isinstance(error, Suspended | Cancelled) or (isinstance(error, StoreError) and not error.transient)
        cause = self._leave(self._run, error if final else Suspended(f"{self._run.id} was left: {error!r}"))
        with self._lock:
            lost = [trip, *self._waiting]
            self._flight, self._run.writing = None, False
            self._waiting = ()
        for each in lost:
            if not each.done():
                each.set_exception(cause)
