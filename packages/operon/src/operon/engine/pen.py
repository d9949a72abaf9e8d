"""The pen of one run: the only one that writes its journal, one commit at a time.

What is noted while a commit is under way rides in the next one. Must not know what the entries mean.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future

from operon.core.commands import Advance
from operon.core.journal import Run
from operon.core.rows import Advanced, Outcome, Park
from operon.core.store import Store
from operon.errors import StoreError, Suspended

End = Outcome | Park | None
NOTHING = Advanced(written=True)


class Pen:
    """Writes what a run has noted, and its end."""

    def __init__(self, store: Store, run: Run) -> None:
        self._store = store
        self._run = run
        self._lock = threading.Lock()
        self._flight: Future[Advanced] | None = None
        self._next: Future[Advanced] | None = None
        self._end: End = None

    def flush(self, end: End = None) -> Advanced:
        """Write everything, on this thread if no commit is under way."""
        flight, command = self._begin(end)
        if command is not None:
            try:
                self._land(flight, command, self._store.ask(command))
            except BaseException as error:
                self._fail(flight, error)
        return flight.result()

    def submit(self, end: End = None) -> Future[Advanced]:
        """Write everything soon; never blocks."""
        flight, command = self._begin(end)
        if command is not None:
            self._launch(flight, command)
        return flight

    def _begin(self, end: End) -> tuple[Future[Advanced], Advance | None]:
        with self._lock:
            if self._flight is not None:
                if not self._run.pending and end is None:
                    return self._flight, None
                self._next = self._next or Future()
                self._end = end or self._end
                return self._next, None
            if not self._run.pending and end is None:
                done: Future[Advanced] = Future()
                done.set_result(NOTHING)
                return done, None
            self._flight = Future()
            self._run.writing = True
            return self._flight, self._take(end)

    def _take(self, end: End) -> Advance:
        pending = self._run.pending
        entries = tuple(pending)
        del pending[: len(entries)]
        return Advance(self._run.id, self._run.guard.claim, entries, end)

    def _launch(self, flight: Future[Advanced], command: Advance) -> None:
        def landed(answer: Future[Advanced]) -> None:
            try:
                self._land(flight, command, answer.result())
            except BaseException as error:
                self._fail(flight, error)

        self._store.submit(command).add_done_callback(landed)

    def _land(self, flight: Future[Advanced], command: Advance, answer: Advanced) -> None:
        if not answer.written:
            raise Suspended(f"{self._run.id} is no longer run here.")
        timed = (entry.position for entry in command.entries if entry.after is not None)
        self._run.instants.update(zip(timed, answer.instants, strict=True))
        self._go_on()
        flight.set_result(answer)

    def _fail(self, flight: Future[Advanced], error: BaseException) -> None:
        lost = isinstance(error, StoreError) and error.transient
        cause = self._run.die(Suspended(f"{self._run.id} was left: {error}") if lost else error)
        with self._lock:
            self._flight, waiting, self._next = None, self._next, None
            self._run.writing = False
        flight.set_exception(cause)
        if waiting is not None:
            waiting.set_exception(cause)

    def _go_on(self) -> None:
        with self._lock:
            self._flight, self._next, end, self._end = self._next, None, self._end, None
            flight = self._flight
            self._run.writing = flight is not None
            if flight is None:
                return
            command = self._take(end)
        self._launch(flight, command)
