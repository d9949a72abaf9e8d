"""The one database of a world: the memory store, with what it lacks of the real ones, under the eyes of the laws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace

from operon.core.commands import (
    Advance,
    Beat,
    Bury,
    Claim,
    Command,
    Form,
    HandBack,
    Retire,
    Rewind,
    Ripen,
    Start,
    TakeOver,
    Wake,
)
from operon.core.rows import Entry, Outcome, first_row
from operon.core.states import Status
from operon.stores.memory import Clock, MemoryStore, Workflow
from operon.testing.simulate.faults import Faults
from operon.testing.simulate.laws import Laws
from operon.testing.simulate.locks import Locks
from operon.testing.simulate.process import Process
from operon.testing.simulate.schedule import Agenda
from operon.testing.simulate.verdicts import LawBroken

T = TypeVar("T")
EPOCH = 1_700_000_000.0
SKIPPING: Mapping[type[Command[Any]], frozenset[Status]] = {
    Claim: frozenset({Status.QUEUED, Status.WAITING}),
    TakeOver: frozenset({Status.RUNNING}),
    Form: frozenset({Status.QUEUED}),
}
"""What skips rows that somebody else has locked, and which rows it wants."""
PASSING: frozenset[type[Command[Any]]] = frozenset({Wake, HandBack, Retire, Beat, Bury, Rewind, Ripen, Advance})
"""What changes many rows, and those that are locked some other time."""


class DatabaseError(Exception):
    """What the database answers: its words, and the standard's code if it could say one."""

    @property
    def sqlstate(self) -> str | None:
        """The code."""
        code: str | None = self.args[1]
        return code


class Observer(Protocol):
    """Who sees what is done."""

    def saw(self, process: Process, command: Command[Any], answer: Any) -> None:
        """See a commit."""
        ...

    def broke(self, error: LawBroken) -> None:
        """See a law broken by it."""
        ...


class Database:
    """Carries out commands one after the other; what somebody else has locked is skipped, as by `skip locked`."""

    def __init__(self, agenda: Agenda, observer: Observer, moment: int | None) -> None:
        self.agenda = agenda
        self.store = MemoryStore(Clock(lambda: EPOCH + agenda.now))
        self.tables = self.store.tables
        """What is in it."""
        self.laws = Laws(self.tables)
        self.locks = Locks(self.tables)
        self.faults = Faults()
        self.listeners: dict[Process, Callable[[str], None]] = {}
        """Who hears what is shouted."""
        self._observer = observer
        self.moments = 0
        """How many commands have come here, and answers left."""
        self._moment = moment
        self.statements = agenda.random.choice((("record", "settle"), ("record", "settle", "lock")))
        """What it can do in a transaction of the user's; not every one has locks for keys."""

    def carry_out(self, process: Process, command: Command[T]) -> T:
        """Commit a command, and hold what it did against the laws."""
        answer = self._apply(command)
        self._observe(process, command, answer)
        return answer

    def _observe(self, process: Process, command: Command[Any], answer: Any) -> None:
        self._observer.saw(process, command, answer)
        try:
            self.laws.committed(process, command, answer)
        except LawBroken as error:
            self._observer.broke(error)

    def settle(self, process: Process, command: Start, entry: Entry, outcome: Outcome) -> bool:
        """Enter a workflow that has ended, and its one step, if its id is free."""
        new, now = command.row, self.tables.clock()
        if new.id in self.tables.workflows:
            return False
        row = replace(
            first_row(new, now),
            status=outcome.status,
            output=outcome.output,
            error=outcome.error,
            claim=new.first_claim,
            attempts=1,
            started_at=now,
            ended_at=now,
            ready_at=None,
        )
        self.tables.workflows[new.id] = Workflow(row, {entry.position: entry}, {entry.position: row.claim})
        self._observe(process, command, outcome)
        return True

    def broke(self, error: LawBroken) -> None:
        """See a law broken by what is committed here."""
        self._observer.broke(error)

    def is_the_moment(self) -> bool:
        """Whether it is now, as a command comes or its answer leaves, that something is to happen to its sender."""
        self.moments += 1
        return self.moments == self._moment

    def _apply(self, command: Command[T]) -> T:
        wanted = SKIPPING.get(type(command))
        if type(command) in PASSING and self.locks.held:
            return self.locks.pass_by(lambda: self.store.apply(command))
        if wanted is None or not (self.faults.locked or self.locks.held):
            return self.store.apply(command)
        workflows, queues = self.tables.workflows, self.tables.queues
        self.tables.workflows = {
            key: it
            for key, it in workflows.items()
            if it.row.status not in wanted or not (key in self.locks.held or self._is_locked())
        }
        self.tables.queues = {key: it for key, it in queues.items() if not self._is_locked()}
        try:
            return self.store.apply(command)
        finally:
            self.tables.workflows, self.tables.queues = workflows | self.tables.workflows, queues

    def _is_locked(self) -> bool:
        return self.happens(self.faults.locked)

    def happens(self, chance: float) -> bool:
        """Draw whether something happens; nothing is drawn for what never does."""
        return chance > 0 and self.agenda.random.random() < chance

    def shout(self, process: Process, word: str) -> None:
        """Tell the other processes, if they hear it, sooner or later."""
        chance, faults = self.agenda.random, self.faults
        for other, heard in self.listeners.items():
            if other is not process and chance.random() >= faults.notices_lost:
                late = chance.expovariate(1.0 / (faults.delay * faults.notices_late))
                self.agenda.after(late, lambda heard=heard: heard(word), other)  # type: ignore[misc] # it is bound now
