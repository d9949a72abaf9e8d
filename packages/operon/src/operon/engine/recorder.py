"""The recorders of the runs: each is the only writer of its run's journal, one commit at a time.

What is noted during a commit is part of the next one. Must not know what the entries mean.
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
from operon.engine.timerthread import Timers
from operon.errors import Cancelled, StoreError, Suspended
from operon.promises import Promise

End = Outcome | Park | None
Then = Callable[[Future[Advanced]], object]
LINGER = 0.003
"""Seconds that a record may wait for others while its workflow computes on."""
NOTHING = Advanced(written=True)


class Commit(Promise[Advanced]):
    """A commit that is waited for, and the end that is part of it."""

    end: End = None


class Recorders:
    """The recorders of all runs of this process; `leave` ends a run that cannot be written."""

    def __init__(self, store: Store, timers: Timers, leave: Callable[[Run, BaseException], BaseException]) -> None:
        self._store = store
        self._timers = timers
        self._leave = leave
        self._lock = threading.Lock()
        self._recorders: dict[Run, Recorder] = {}
        self._lingering: dict[Run, None] = {}

    def open(self, run: Run) -> None:
        """Let a run write."""
        with self._lock:
            self._recorders[run] = Recorder(self._store, run, self._leave)

    def close(self, run: Run) -> None:
        """Let a run write no more: it has left."""
        with self._lock:
            self._recorders.pop(run, None)

    def of(self, run: Run) -> Recorder:
        """The recorder of a run; a run that has left has none."""
        recorder = self._recorders.get(run)
        if recorder is None:
            raise run.die(Suspended(f"{run.id} has left."))
        return recorder

    def linger(self, run: Run) -> None:
        """See that what is pending is written within a few milliseconds, whatever the body does."""
        if run in self._lingering:  # or was, this moment: then what is pending is seen by now
            return
        with self._lock:
            first = not self._lingering
            self._lingering[run] = None
        if first:
            self._timers.after(LINGER, self._lingered)

    def _lingered(self) -> None:
        with self._lock:
            lingering, self._lingering = self._lingering, {}
            recorders = [
                self._recorders[run] for run in lingering if run.pending and run.dead is None and run in self._recorders
            ]
        for recorder in recorders:
            recorder.submit()


class Recorder:
    """Writes what a run has noted, and its end; `leave` is told why a run must be left, and answers the first cause."""

    __slots__ = ("_command", "_current", "_leave", "_lock", "_run", "_store", "_waiting")

    def __init__(self, store: Store, run: Run, leave: Callable[[Run, BaseException], BaseException] = Run.die) -> None:
        self._store = store
        self._run = run
        self._leave = leave
        self._lock = threading.Lock()
        self._current: Commit | None = None
        self._command: Advance
        """What is under way."""
        self._waiting: tuple[Commit, ...] = ()

    def flush(self, end: End = None) -> Advanced:
        """Write everything, on this thread if no commit is under way."""
        commit, command = self._begin(end)
        if command is not None:
            try:
                self._settle(commit, self._store.ask(command))
            except BaseException as error:
                self._fail(commit, error)
                if not isinstance(error, Exception):
                    raise
        return commit.result()

    def submit(self, end: End = None, then: Then | None = None) -> Future[Advanced]:
        """Write everything soon, and call `then`; never blocks, never raises."""
        commit, command = self._begin(end, then)
        if command is not None:
            self._send(commit, command)
        return commit

    def __call__(self, answer: Future[Advanced]) -> None:
        """Learn what came of the commit that was under way; the store calls this."""
        commit = self._current
        if commit is None:
            return
        try:
            self._settle(commit, answer.result())
        except BaseException as error:
            self._fail(commit, error)

    def _begin(self, end: End, then: Then | None = None) -> tuple[Commit, Advance | None]:
        with self._lock:
            if self._current is None:
                commit = Commit(then)
                if end is not None or self._run.pending:
                    commit.end = end
                    return commit, self._take(commit)
                commit.set_result(NOTHING)
                return commit, None
            commit = self._join(self._current, end)
        if then is not None:
            commit.add_done_callback(then)
        return commit, None

    def _join(self, current: Commit, end: End) -> Commit:
        """Find the commit that takes what is pending; every end has one of its own, so that the first one decides."""
        last = self._waiting[-1] if self._waiting else None
        if end is None and (last is not None or not self._run.pending):
            return last or current
        if last is None or last.end is not None:
            last = Commit()
            self._waiting = (*self._waiting, last)
        last.end = end
        return last

    def _take(self, commit: Commit) -> Advance:
        run, end = self._run, commit.end
        self._current, run.writing = commit, True
        entries = tuple(run.pending)
        del run.pending[: len(entries)]
        if run.riding:
            riding, run.riding = run.riding, {}
            if not (isinstance(end, Outcome) and end.status.ended):  # of what has ended nothing is replayed any more
                entries = (*entries, *riding.values())
        self._command = Advance(run.id, run.guard.claim, entries, end)
        return self._command

    def _send(self, commit: Commit, command: Advance) -> None:
        try:
            self._store.submit(command, self)
        except StoreError as error:
            self._fail(commit, error)

    def _settle(self, commit: Commit, answer: Advanced) -> None:
        if not answer.written:
            self._store.submit(Look((self._run.id,)), lambda it: self._fail(commit, self._why(it)))
            return
        if answer.instants:
            timed = (entry.position for entry in self._command.entries if entry.after is not None)
            self._run.instants.update(zip(timed, answer.instants, strict=True))
        self._go_on()
        commit.set_result(answer)

    def _go_on(self) -> None:
        with self._lock:
            self._current, self._run.writing = None, False
            if not self._waiting:
                return
            commit, *waiting = self._waiting
            self._waiting = tuple(waiting)
            command = self._take(commit)
        self._send(commit, command)

    def _why(self, answer: Future[Mapping[str, Outcome]]) -> BaseException:
        """Say why the run may not write any more: what cancelled it may not have come to tell it yet."""
        outcome = None if answer.exception() else answer.result().get(self._run.id)
        if outcome is not None and outcome.status is Status.CANCELLED:
            return Cancelled(f"{self._run.id} was cancelled.")
        return Suspended(f"{self._run.id} is no longer run here.")

    def _fail(self, commit: Commit, error: BaseException) -> None:
        final = isinstance(error, Suspended | Cancelled) or (isinstance(error, StoreError) and not error.transient)
        cause = self._leave(self._run, error if final else Suspended(f"{self._run.id} was left: {error!r}"))
        with self._lock:
            lost = [commit, *self._waiting]
            self._current, self._run.writing = None, False
            self._waiting = ()
        for each in lost:
            if not each.done():
                each.set_exception(cause)
