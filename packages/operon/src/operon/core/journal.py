"""One run of a workflow: its journal, how far the code has read it, and what it may still write.

A position says where in the code an operation stands; an ordinal says when, among all operations of the workflow,
its result was given to the code. Replay hands results out in the order of their ordinals, so concurrent branches
meet in the order in which they met the first time. Must not know threads, loops, or which store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from operon.core.lines import Alone, Lines, Monitor
from operon.core.rows import Entry, Guard, Kind, WorkflowRow
from operon.errors import Cancelled

if TYPE_CHECKING:
    from typing import TypeAlias

    from operon.core.host import RunHost

    Executing: TypeAlias = "RunHost[Run, Branch]"

WAKE = "~"
"""Marks the second record of a wait: when it ended, and whether by its end or by a cancellation."""


class Run:
    """One claim's execution of a workflow."""

    __slots__ = (
        "__weakref__", "_first", "_latecomers", "_moment", "_news", "_recorded", "beyond", "busy", "calls", "cancelled",
        "children", "cleaning_until", "dead", "failure", "failures", "forked", "guard", "host", "id", "instants",
        "journal", "late", "lines", "monitor", "ordinal", "outstanding", "parking", "pending", "reach", "riding",
        "root", "row", "settling", "stirred", "stops", "tasks", "timed", "timers", "turns", "waits", "writing",
    )  # fmt: skip

    def __init__(
        self, host: Executing, row: WorkflowRow, entries: Iterable[Entry] = (), monitor: Monitor | None = None
    ) -> None:
        self.host = host
        self.monitor: Monitor = monitor or Alone()
        self.row = row
        self.id = row.id
        self.guard = Guard(row.id, row.claim)
        self.journal: dict[str, Entry] = {}
        self.failures: dict[str, list[Entry]] = {}
        self.reach: dict[str, int] = {}
        self.outstanding: dict[int, None] = {}
        self.turns: dict[int, Callable[[], None]] = {}
        self.tasks: dict[Any, Branch] = {}
        """The branch of each, in the order in which they began, so that a run can be repeated in all that it does."""
        self.waits: dict[Any, None] = {}
        self.timers: dict[Any, None] = {}
        """Likewise, as the waits: those of the loop that the body has set, and that are neither fired nor cancelled."""
        self.timed = False
        """It has set one."""
        self.calls: dict[Any, None] | None = None
        """What its body has given to the loop to be called and has not been called; None until it gives something."""
        self.lines = Lines(self.monitor)
        self.pending: list[Entry] = []
        self.writing = False
        """A commit of what was pending is under way; set before `pending` is emptied."""
        self.riding: dict[str, Entry] = {}
        """Written with whatever is written next, and lost without harm."""
        self.instants: dict[str, float] = {}
        self.children: dict[str, None] = {}
        """What it has started, as far as the code has come: their records are kept as long as its own."""
        self.dead: BaseException | None = None
        self.failure: BaseException | None = None
        """What the body raised, if that is its outcome: for whoever logs it."""
        self.beyond: Callable[[], object] | None = None
        """Called when the code asks for what is not recorded: it is to hear of its end, and to begin nothing."""
        self.late = False
        """Its deadline had passed before it was begun here."""
        self.stops: dict[Callable[[], None], None] = {}
        """Called when it is dead: they stop what its threads have a database execute, and wait for nothing."""
        self.cleaning_until = 0.0
        self.busy = 0
        self.parking = False
        self.settling = False
        self.stirred = 0.0
        """When it last did anything but wait."""
        self.root = Branch(self, "")
        self.forked = False
        self.ordinal = 0
        self.cancelled: tuple[Entry, ...] = ()
        self._first = 1
        """No smaller ordinal is outstanding."""
        for entry in entries:
            self._remember(entry)
        self._recorded = self.ordinal
        self._moment = 0.0
        self._news = True
        self._latecomers: tuple[Callable[[], object], ...] = ()

    def _remember(self, entry: Entry) -> None:
        self.ordinal = max(self.ordinal, entry.ordinal)
        if entry.kind is Kind.ATTEMPT:
            self.failures.setdefault(entry.position.partition("#")[0], []).append(entry)
            return
        self.journal[entry.position] = entry
        if entry.kind is Kind.TIMER:
            return
        self.outstanding[entry.ordinal] = None
        if entry.kind is Kind.CANCELLED:
            self.cancelled = (*self.cancelled, entry)
        if entry.position.endswith(WAKE):
            return
        path, _, number = entry.position.rpartition("/")
        if number.isdecimal():  # another one is no place that code comes to
            self.reach[path] = max(self.reach.get(path, 0), int(number))

    def check(self) -> None:
        """Raise again what ended this run, if anything did: a dead run does nothing more."""
        if self.dead is not None:
            raise self.dead

    def die(self, cause: BaseException) -> BaseException:
        """End this run for the first cause given; answers that cause."""
        with self.monitor:
            if self.dead is None:
                self.dead = cause
            self.monitor.notify_all()
            return self.dead

    def forget(self) -> None:
        """Let go of the body's frames: what they hold ends here, and not when and where the collector finds it."""
        if self.dead is not None:
            self.dead.__traceback__ = self.dead.__context__ = self.dead.__cause__ = None

    def number(self) -> int:
        """Take the next ordinal; it is outstanding until its result is given to the code."""
        with self.monitor:
            self.ordinal += 1
            self.outstanding[self.ordinal] = None
            return self.ordinal

    @property
    def concurrent(self) -> bool:
        """Whether more than one thing can come next: another branch, or a timer."""
        return self.forked or bool(self.timers)

    @property
    def alone(self) -> bool:
        """Whether its code is one line that has been given all that is recorded: then nothing can come in between."""
        single = not (self.forked or self.timers or self.lines.threaded or self.turns)
        return single and self.calls is None and self._first > self._recorded and self.beyond is None

    def behind(self) -> bool:
        """Whether something is recorded that the code has not been given yet."""
        return self.first() <= self._recorded

    def caught_up(self, call: Callable[[], object]) -> None:
        """Call this when all that is recorded has been given."""
        with self.monitor:
            if self.behind():
                self._latecomers = (*self._latecomers, call)
                return
        call()

    def its_turn(self, ordinal: int) -> bool:
        """Whether every smaller ordinal has been given to the code."""
        return self.first() >= ordinal

    def first(self) -> int:
        """The smallest ordinal that is outstanding, or the next one: found by going up from where it was last."""
        with self.monitor:
            first = self._first
            while first <= self.ordinal and first not in self.outstanding:
                first += 1
            self._first = first
            return first

    def given(self, ordinal: int) -> None:
        """Note that the code has the result with this ordinal, or never will; call whoever waits for its turn now."""
        calls: list[Callable[[], object]] = []
        with self.monitor:
            self.outstanding.pop(ordinal, None)
            self._news = True
            if self.turns and (turn := self.turns.pop(self.first(), None)) is not None:
                calls.append(turn)
            if self._latecomers and not self.behind():
                calls += self._latecomers
                self._latecomers = ()
            self.monitor.notify_all()
        for call in calls:
            call()

    def given_alone(self, ordinal: int) -> None:
        """Note it where nobody waits for a turn, and nobody can come to: while the run is `alone`."""
        self.outstanding.pop(ordinal, None)
        self._news = True

    def aside(self, entry: Entry) -> None:
        """Have something written with whatever is written next, of which nobody waits to be told."""
        with self.monitor:
            self.ordinal += 1
            self.riding[entry.position] = replace(entry, ordinal=self.ordinal)

    def told_at(self, instant: float) -> None:
        """Note when the code was told what it hears now."""
        self._news, self._moment = False, max(self._moment, instant)

    def moment(self, now: float) -> float:
        """Say when the code was told last what it knows, by the store's clock, which shows `now`."""
        if self._news:
            self.told_at(now)
        return self._moment

    def skip(self, path: str) -> None:
        """Note that nothing of this branch will be asked for any more."""
        for entry in self.journal.values():
            if entry.position.startswith(path) and entry.ordinal in self.outstanding:
                self.given(entry.ordinal)


class Branch:
    """One line of control in a run: the body itself, or a task that it started. Numbers what happens in it."""

    __slots__ = (
        "_forks", "_moment", "_reads", "_steps", "_timers", "_undone",
        "begins", "path", "run", "stand_in", "task", "told",
    )  # fmt: skip

    def __init__(self, run: Run, path: str) -> None:
        self.run = run
        self.path = path
        self.stand_in: Callable[[Branch], Branch] | None = None
        """Says which branch is meant on the thread that asks: one that works for this has one of its own."""
        self.task: Any = None
        """The task that follows it, if one does."""
        self.begins = False
        """Its task is being made, and may run before anybody has it."""
        self.told = False
        """It has been told that its run is cancelled."""
        self._steps = 0
        self._forks = 0
        self._undone = 0
        self._timers = 0
        self._reads = 0
        self._moment = 0.0

    def coming(self) -> Entry | None:
        """The record of what this branch does next, if there is one."""
        return self.run.journal.get(f"{self.path}{self._steps + 1}")

    def advance(self) -> str:
        """Claim the next position of this branch; in a clean-up one that nothing else has, wherever it hears.

        So a clean-up that is done twice, and hears elsewhere the second time, has the same keys both times.
        """
        if self.told:
            return self._undo()
        self._steps += 1
        return f"{self.path}{self._steps}"

    def _undo(self) -> str:
        self._undone += 1
        return f"{self.path}x{self._undone}"

    def timer(self) -> str:
        """Claim the position of the next timer that this branch sets."""
        self._timers += 1
        return f"{self.path}t{self._timers}"

    def moment(self, now: float) -> float:
        """Tell the time, which goes on only when the code is told something; recorded where it is another than before.

        Args:
            now: what the store's clock shows.
        """
        run = self.run
        self._reads += 1
        position = f"{self.path}c{self._reads}"
        recorded = run.journal.get(position)
        if recorded is not None:
            run.told_at(float(recorded.output or 0))
            self._moment = float(recorded.output or 0)
        elif not (self._moment and run.behind()):
            moment = run.moment(now)
            if moment != self._moment:
                self._moment = moment
                run.aside(Entry(position, 0, Kind.TIMER, "clock", output=repr(moment)))
        return self._moment

    def fork(self) -> Branch:
        """Open the branch of a task that is being created here."""
        self.run.forked = True
        if self.told:
            path = f"{self._undo()}/"
        else:
            self._forks += 1
            path = f"{self.path}{self._forks}/"
        branch = Branch(self.run, path)
        branch.told = self.told
        return branch

    def cleaning(self, now: float) -> bool:
        """Whether it is handling the cancellation of its run: steps run then, and nothing is recorded any more."""
        return self.told and isinstance(self.run.dead, Cancelled) and now < self.run.cleaning_until

    def ended(self, task: object) -> None:
        """Note that this branch asks for nothing more: it may be cancelled before it comes to where it was then."""
        run, self.task = self.run, None
        run.tasks.pop(task, None)
        below = tuple(it.path for it in run.tasks.values() if it.path.startswith(self.path))  # they have still to hear
        for entry in run.cancelled:
            if entry.position.startswith(self.path) and not entry.position.startswith(below):
                run.given(entry.ordinal)
