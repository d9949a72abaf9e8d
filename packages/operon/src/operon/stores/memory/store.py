"""A store in memory: what every command means, in plain Python; it must not know any database.

This is the specification. The conformance suite holds the other stores to it, and the simulator wraps `apply`.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from weakref import WeakMethod

from operon.core import commands as c
from operon.promises import Promise
from operon.stores.memory import (
    advancing,
    batches,
    claiming,
    cleaning,
    executors,
    queues,
    reading,
    retention,
    rewinding,
    schedules,
    starting,
)
from operon.stores.memory.clock import Clock
from operon.stores.memory.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from operon.core.store import Lock

T = TypeVar("T")


class MemoryStore:
    """Answers every command at once, under one lock, and forgets all when it is dropped.

    Its clock is the machine's, so that what waits ends; tests may give another, such as a `Clock` that stands still.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.url = "memory://"
        self.dialect: Literal["postgres", "sqlite", "memory"] = "memory"
        self.queries: Mapping[str, str] = {}
        self.writer: Lock | None = None
        self.clock = clock if isinstance(clock, Clock) else Clock(clock)
        self.tables = Tables(self.clock)
        self._lock = threading.Lock()
        self._listeners: list[WeakMethod[Callable[[str], None]]] = []

    def open(self, *, migrate: bool = True, adopt: bool = False) -> None:
        """Do nothing: there is nothing to connect to."""

    def ask(self, command: c.Command[T]) -> T:
        """Answer a command."""
        with self._lock:
            return self.apply(command)

    def submit(self, command: c.Command[T], then: Callable[[Future[T]], object] | None = None) -> Future[T]:
        """Answer a command; the future is already done."""
        future: Promise[T] = Promise(then)
        try:
            future.set_result(self.ask(command))
        except Exception as error:  # the future carries it
            future.set_exception(error)
        return future

    def listen(self, heard: Callable[[str], None]) -> None:
        """Call this method with every word that is said, as long as its object is there."""
        self._listeners = [listener for listener in self._listeners if listener() is not None]
        self._listeners.append(WeakMethod(heard))

    def shout(self, word: str) -> None:
        """Tell all who listen, here and now."""
        for listener in tuple(self._listeners):
            if (heard := listener()) is not None:
                heard(word)

    def close(self) -> None:
        """Do nothing: every answer has been given."""

    def apply(self, command: c.Command[T]) -> T:
        """Change the state as a command says, and give its answer; the caller holds the lock."""
        answer: T = ANSWERS[type(command)](self.tables, command)
        return answer


ANSWERS: Mapping[type[c.Command[Any]], Callable[[Tables, Any], Any]] = {
    c.Start: starting.start,
    c.StartMany: starting.start_many,
    c.Seed: queues.seed,
    c.SetQueue: queues.change,
    c.Queues: queues.listing,
    c.Opening: queues.opening,
    c.Schedules: schedules.listing,
    c.KeepSchedule: schedules.keep,
    c.ForgetSchedule: schedules.forget,
    c.Due: schedules.due,
    c.Fire: schedules.fire,
    c.Advance: advancing.advance,
    c.Load: reading.load,
    c.Awaited: retention.awaited,
    c.Standing: retention.standing,
    c.Journal: retention.journal,
    c.Look: reading.look,
    c.Find: reading.find,
    c.Count: reading.count,
    c.Describe: reading.describe,
    c.Claim: claiming.claim,
    c.Wake: claiming.wake,
    c.Cancel: starting.cancel,
    c.Enlist: executors.enlist,
    c.Beat: executors.beat,
    c.Executors: executors.listing,
    c.Bury: executors.bury,
    c.TakeOver: executors.take_over,
    c.Running: executors.running,
    c.HandBack: claiming.hand_back,
    c.Retire: executors.retire,
    c.Rewind: rewinding.rewind,
    c.CleanUp: cleaning.clean_up,
    c.Cleaned: cleaning.cleaned,
    c.Ripen: batches.ripen,
    c.Form: batches.form,
    c.Delete: retention.delete,
    c.Sweep: retention.sweep,
    c.Strip: retention.strip,
    c.Prune: retention.prune,
}
