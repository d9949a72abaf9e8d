"""The one database of a world: the memory store, with what it lacks of the real ones, under the eyes of the laws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from operon.core.commands import Claim, Command, TakeOver
from operon.core.states import Status
from operon.stores.memory import Clock, MemoryStore
from operon.testing.simulate.laws import Laws
from operon.testing.simulate.process import Process
from operon.testing.simulate.schedule import Agenda
from operon.testing.simulate.verdicts import LawBroken
from operon.testing.simulate.weather import Weather

T = TypeVar("T")
EPOCH = 1_700_000_000.0
SKIPPING: Mapping[type[Command[Any]], frozenset[Status]] = {
    Claim: frozenset({Status.QUEUED, Status.WAITING}),
    TakeOver: frozenset({Status.RUNNING}),
}
"""What skips rows that somebody else has locked, and which rows it wants."""


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
        self.laws = Laws(self.store)
        self.weather = Weather()
        self.ears: dict[Process, Callable[[str], None]] = {}
        """Who hears what is shouted."""
        self._observer = observer
        self.moments = 0
        """How many commands have come here, and answers left."""
        self._moment = moment

    def carry_out(self, process: Process, command: Command[T]) -> T:
        """Commit a command, and hold what it did against the laws."""
        answer = self._apply(command)
        self._observer.saw(process, command, answer)
        try:
            self.laws.committed(process, command, answer)
        except LawBroken as error:
            self._observer.broke(error)
        return answer

    def is_the_moment(self) -> bool:
        """Whether it is now, as a command comes or its answer leaves, that something is to happen to its sender."""
        self.moments += 1
        return self.moments == self._moment

    def _apply(self, command: Command[T]) -> T:
        wanted = SKIPPING.get(type(command))
        if wanted is None or not self.weather.locked:
            return self.store.apply(command)
        workflows, queues = self.store.workflows, self.store.queues
        self.store.workflows = {
            key: it for key, it in workflows.items() if it.row.status not in wanted or not self._is_locked()
        }
        self.store.queues = {key: it for key, it in queues.items() if not self._is_locked()}
        try:
            return self.store.apply(command)
        finally:
            self.store.workflows, self.store.queues = workflows, queues

    def _is_locked(self) -> bool:
        return self.agenda.random.random() < self.weather.locked

    def shout(self, process: Process, word: str) -> None:
        """Tell the other processes, if they hear it, sooner or later."""
        chance, weather = self.agenda.random, self.weather
        for other, heard in self.ears.items():
            if other is not process and chance.random() >= weather.deaf:
                late = chance.expovariate(1.0 / (weather.delay * weather.late))
                self.agenda.after(late, lambda heard=heard: heard(word), other)  # type: ignore[misc] # it is bound now
