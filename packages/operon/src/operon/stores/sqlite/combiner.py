"""Group commit: whoever finds nobody at work does the work, and what arrives meanwhile rides in the next batch.

It must not know what a batch does, nor that there is a database.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from operon.errors import StoreError
from operon.promises import Promise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from operon.core.commands import Command

T = TypeVar("T")

BATCH = 256
ROOM = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A command, and where its answer goes."""

    command: Command[Any]
    future: Promise[Any] = field(default_factory=Promise[Any])


class Combiner:
    """Runs batches, one at a time: on the thread that asks, or behind it on a thread of its own.

    `run` settles the future of each job it is given, and raises nothing but what is meant for the thread itself.
    """

    def __init__(self, run: Callable[[Sequence[Job]], None], name: str) -> None:
        self._run = run
        self._name = name
        self._inbox: deque[Job] = deque()
        self._busy = False
        self._handed = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()

    def ask(self, command: Command[T]) -> T:
        """Answer a command, on this thread if nobody is at work, with no other thread involved."""
        job = Job(command)
        if self._enter(job):
            batch = self._take()
            try:
                self._run(batch)
            except BaseException:
                self._return(batch)
                raise
            self._leave()
        answer: T = job.future.result()
        return answer

    def submit(self, command: Command[T], then: Callable[[Future[T]], object] | None = None) -> Future[T]:
        """Answer a command behind the caller's back, and call this first."""
        job = Job(command, Promise[Any](then))
        if self._enter(job):
            self._hand_over()
        return job.future

    def close(self) -> None:
        """Finish everything that was accepted, and accept no more."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._busy)
            self._changed.notify_all()
        if self._thread:
            self._thread.join()

    def _enter(self, job: Job) -> bool:
        """Put a job into the inbox once there is room; answers whether the caller has now to see to it."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._inbox) < ROOM or self._closed)
            if self._closed:
                raise StoreError("The store is closed: ask before `app.close()`, or launch the app again.")
            self._inbox.append(job)
            idle, self._busy = not self._busy, True
            return idle

    def _take(self) -> list[Job]:
        """Take the next batch; with none left, nobody is at work any more."""
        with self._changed:
            batch = [self._inbox.popleft() for _ in range(min(BATCH, len(self._inbox)))]
            self._busy = bool(batch)
            self._changed.notify_all()
            return batch

    def _return(self, batch: list[Job]) -> None:
        """Put back what an interrupted thread left undone, for another to do."""
        with self._changed:
            self._inbox.extendleft(job for job in reversed(batch) if not job.future.done())
        self._hand_over()

    def _leave(self) -> None:
        """Go, leaving what came meanwhile to the thread."""
        with self._changed:
            self._busy = bool(self._inbox)
            if self._busy:
                self._hand_over()
            else:
                self._changed.notify_all()

    def _hand_over(self) -> None:
        with self._changed:
            self._handed = True
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while self._is_wanted():
            while batch := self._take():
                self._run(batch)

    def _is_wanted(self) -> bool:
        """Wait until work is handed over, or none can come any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._handed or (self._closed and not self._busy))
            wanted, self._handed = self._handed, False
            return wanted
