"""A process's connection to the database: late, lost and repeated, as the real stores' connections are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from operon.core.commands import Advance, Command, Enlist
from operon.core.rows import Advanced, Outcome, Park
from operon.core.states import Status
from operon.core.store import Lock
from operon.errors import StoreError, StoreUnavailable
from operon.stores.memory import MemoryStore
from operon.testing.simulate.process import Process

T = TypeVar("T")
PATIENCE = 8
"""Tries before a store gives up."""


@dataclass(slots=True)
class Weather:
    """How often things go wrong."""

    delay: float = 0.001
    """Seconds that a message takes on average."""
    lost_before: float = 0.0
    lost_after: float = 0.0
    ambush: float = 0.0
    """How often a process stands still with a command on its lips."""
    deaf: float = 0.0
    """How often a word is not heard."""


class Database(Protocol):
    """The one database of a world."""

    weather: Weather
    store: MemoryStore

    def carry_out(self, process: Process, command: Command[T]) -> T:
        """Commit a command, and hold what it did against the laws."""
        ...

    def pause(self, process: Process) -> None:
        """Let a process stand still for a while."""
        ...

    def say(self, process: Process, word: str) -> None:
        """Tell the others, if they hear it."""
        ...


class Wire:
    """One process's store."""

    def __init__(self, database: Database, process: Process) -> None:
        self.url = "memory://"
        self.dialect: Literal["postgres", "sqlite", "memory"] = "memory"
        self.queries: Mapping[str, str] = {}
        self.writer: Lock | None = None
        self.heard: Callable[[str], None] | None = None
        self._database = database
        self._process = process

    def open(self, *, migrate: bool = True, adopt: bool = False) -> None:
        """Do nothing: it is there."""

    def close(self) -> None:
        """Do nothing: it stays."""

    def ask(self, command: Command[T]) -> T:
        """Answer at once, as nothing but a launch asks."""
        return self._answered(command, again=False)

    def submit(self, command: Command[T]) -> Future[T]:
        """Answer a command in its time."""
        future: Future[T] = Future()
        self._send(command, future, PATIENCE, again=False)
        return future

    def listen(self, heard: Callable[[str], None]) -> None:
        """Hear what others say."""
        self.heard = heard

    def shout(self, word: str) -> None:
        """Tell the others."""
        if self._process.alive:
            self._database.say(self._process, word)

    # ── A command's way ──────────────────────────────────────────────────────────────────────────────────────────────

    def _send(self, command: Command[T], future: Future[T], tries: int, *, again: bool) -> None:
        process, weather = self._process, self._database.weather
        if not process.alive:
            return
        if tries == 0:
            process.after(
                0.0, lambda: future.set_exception(StoreUnavailable("The simulated database is out of reach."))
            )
        elif process.agenda.random.random() < weather.ambush:
            self._database.pause(process)
            self._again(command, future, tries, again=again)
        elif process.agenda.random.random() < weather.lost_before:
            self._again(command, future, tries, again=again)
        else:
            process.agenda.after(self._late(), lambda: self._arrive(command, future, tries, again=again))

    def _arrive(self, command: Command[T], future: Future[T], tries: int, *, again: bool) -> None:
        """Commit; whether the answer finds its way back is another matter."""
        process = self._process
        try:
            answer = self._answered(command, again=again)
        except StoreError as error:
            told = error
            process.after(self._late(), lambda: future.set_exception(told))
            return
        if process.agenda.random.random() < self._database.weather.lost_after:
            self._again(command, future, tries, again=True)
        else:
            process.after(self._late(), lambda: future.set_result(answer))

    def _again(self, command: Command[T], future: Future[T], tries: int, *, again: bool) -> None:
        pause = self._process.agenda.random.uniform(0.01, 0.2)
        self._process.after(pause, lambda: self._send(command, future, tries - 1, again=again))

    def _late(self) -> float:
        return self._process.agenda.random.expovariate(1.0 / self._database.weather.delay)

    def _answered(self, command: Command[T], *, again: bool) -> T:
        answer = self._database.carry_out(self._process, command)
        if isinstance(command, Enlist):
            self._process.executors.add(int(answer))  # type: ignore[call-overload]
        if again and isinstance(command, Advance) and isinstance(answer, Advanced) and not answer.written:
            verified: Any = verify(self._database.store, command)
            return verified  # type: ignore[no-any-return]
        return answer


def verify(store: MemoryStore, command: Advance) -> Advanced:
    """Decide, as Postgres' store does, whether it was this very advance that took the claim away."""
    workflow = store.workflows.get(command.workflow_id)
    if workflow is None:
        return Advanced(written=False)
    positions = [entry.position for entry in command.entries]
    written = bool(positions) and all(workflow.claims.get(it) == command.claim for it in positions)
    if command.end is not None and not positions:
        row = workflow.row
        wanted = Outcome(Status.WAITING) if isinstance(command.end, Park) else command.end
        written = row.claim == command.claim and Outcome(row.status, row.output, row.error) == wanted
    instants = [workflow.journal[it.position].output for it in command.entries if written and it.after is not None]
    return Advanced(
        written=written,
        parked=written and isinstance(command.end, Park),
        instants=tuple(float(it or 0) for it in instants),
    )
