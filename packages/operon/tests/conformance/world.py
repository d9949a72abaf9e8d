"""A store and its time, and short words for what the tests ask of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from children import PATIENCE
from operon.core.commands import Advance, Beat, Bury, Claim, Describe, Enlist, Executors, Load, Start
from operon.core.rows import (
    Advanced,
    Entry,
    Guard,
    Kind,
    NewWorkflow,
    Outcome,
    Park,
    Process,
    Pulse,
    Started,
    WorkflowRow,
)
from operon.core.states import Status

if TYPE_CHECKING:
    from operon.core.commands import Command
    from operon.core.store import Store

T = TypeVar("T")

TTL = 15.0
EXACT = 1e-3
"""Seconds, for what is rounded on the way."""
SUCCESS = Outcome(Status.SUCCEEDED, output="1")
NAMES = ("greet",)
_numbers = count(1)


@dataclass(frozen=True, eq=False)
class Left:  # noqa: PLW1641 - it equals many numbers, so it has no hash
    """Equals what is left of so many seconds: less by no more than has really gone by since this was made.

    A store's own clock goes on between two commands, for as long as the test stands still.
    """

    seconds: float
    begun: float = field(default_factory=time.monotonic)

    def __eq__(self, other: object) -> bool:
        gone = time.monotonic() - self.begun
        return isinstance(other, float) and self.seconds - gone - EXACT <= other <= self.seconds + EXACT

    def after(self, seconds: float) -> Left:
        """Give what is left when so much time was let pass."""
        return Left(self.seconds - seconds, self.begun)


@dataclass(frozen=True)
class World:
    """One store, and the only way in which more than a moment passes there."""

    store: Store
    pass_time: Callable[[float], None]

    def ask(self, command: Command[T]) -> T:
        return self.store.ask(command)

    def start(self, key: str = "w", **options: Any) -> Started:
        return self.ask(start(key, **options))

    def run(self, key: str = "w", **options: Any) -> Guard:
        """Start a workflow that runs at once, on an executor of its own unless one is given."""
        options.setdefault("executor", None)
        executor = options.pop("executor") or self.enlist()
        assert self.start(key, executor=executor, **options).created
        return Guard(key, 1)

    def sleep(self, key: str, *awaits: str, until: float | None = None) -> Guard:
        """Start a workflow that is parked, awaiting others, an instant, or nothing."""
        guard = self.run(key)
        assert self.end(guard, Park(until, awaits)).parked
        return guard

    def enlist(self, ttl: float = TTL, pid: int = 1) -> int:
        return self.ask(Enlist(process(ttl, pid)))

    def claim(self, executor: int, limit: int = 100, **options: Any) -> list[str]:
        return [it.row.id for it in self.ask(claim(executor, limit, **options))]

    def write(self, guard: Guard, *entries: Entry, end: Outcome | Park | None = None) -> Advanced:
        return self.ask(Advance(guard.workflow_id, guard.claim, entries, end))

    def end(self, guard: Guard, end: Outcome | Park = SUCCESS) -> Advanced:
        return self.write(guard, end=end)

    def row(self, key: str = "w") -> WorkflowRow:
        row = self.ask(Describe(key))
        assert row is not None
        return row

    def status(self, key: str = "w") -> str:
        return self.row(key).status

    def positions(self, key: str = "w") -> list[str]:
        return [entry.position for entry in self.ask(Load(key))]

    def pulse(self, executor: int, ttl: float = TTL) -> Pulse:
        return self.ask(Beat(executor, ttl))

    def now(self) -> float:
        """Read the store's clock."""
        return self.pulse(0).now

    def kill(self, executor: int) -> None:
        """Declare an executor dead."""
        beat = self.beats()[executor]
        assert self.ask(Bury(((executor, beat),), proven=True)) == 1

    def beats(self) -> dict[int, int]:
        return {peer.id: peer.beat for peer in self.ask(Executors())}


def start(key: str = "w", **options: Any) -> Start:
    fields: dict[str, Any] = {"id": key, "name": "greet", "input": "[1]", "digest": "d", "nonce": next(_numbers)}
    return Start(NewWorkflow(**fields | options))


def claim(executor: int, limit: int = 100, **options: Any) -> Claim:
    fields: dict[str, Any] = {"names": NAMES, "instances": (), "version": "v1"}
    return Claim(executor, limit=limit, **fields | options)


def step(position: str = "1", ordinal: int | None = None, **fields: Any) -> Entry:
    order = int(position) if ordinal is None else ordinal
    usual: dict[str, Any] = {"kind": Kind.STEP, "name": "fetch", "output": position}
    return Entry(position, order, **usual | fields)


def process(ttl: float = TTL, pid: int = 1) -> Process:
    return Process(app="shop", host="here", pid=pid, born="boot:1", version="v1", ttl=ttl)


def together(actions: Iterable[Callable[[], T]]) -> list[T]:
    """Do several things at the same time, each on a thread, all beginning at one moment."""
    waiting = list(actions)
    gate = threading.Barrier(len(waiting))

    def enter(action: Callable[[], T]) -> T:
        gate.wait(PATIENCE)
        return action()

    with ThreadPoolExecutor(len(waiting)) as threads:
        return list(threads.map(enter, waiting))
