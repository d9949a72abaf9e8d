"""One run of a workflow: its journal, how far the code has read it, and what it may still write.

A position says where in the code an operation stands; an ordinal says when, among all operations of the workflow,
its result was given to the code. Replay hands results out in the order of their ordinals, so concurrent branches
meet in the order in which they met the first time. Must not know threads, loops, or which store.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from operon.core.commands import Command, Op
from operon.core.rows import Advanced, Entry, Guard, Kind, Outcome, Park, WorkflowRow
from operon.errors import Divergence


@dataclass(frozen=True, slots=True)
class Flush(Command[Advanced]):
    """Make durable what the run has written so far, with its end in the same commit if there is one."""

    run: Run
    end: Outcome | Park | None = None


@dataclass(frozen=True, slots=True)
class Turn(Command[None]):
    """Wait until every smaller ordinal has been given to the code."""

    run: Run
    ordinal: int


class Run:
    """One claim's execution of a workflow."""

    def __init__(self, row: WorkflowRow, entries: Iterable[Entry] = ()) -> None:
        self.row = row
        self.id = row.id
        self.guard = Guard(row.id, row.claim)
        self.journal: dict[str, Entry] = {}
        self.failures: dict[str, list[Entry]] = {}
        self.reach: dict[str, int] = {}
        self.outstanding: set[int] = set()
        self.pending: list[Entry] = []
        self.instants: dict[str, float] = {}
        self.dead: BaseException | None = None
        self.busy = 0
        self.root = Branch(self, "")
        self.ordinal = 0
        for entry in entries:
            self._remember(entry)

    def _remember(self, entry: Entry) -> None:
        self.ordinal = max(self.ordinal, entry.ordinal)
        if entry.kind is Kind.ATTEMPT:
            self.failures.setdefault(entry.position.partition("#")[0], []).append(entry)
            return
        self.journal[entry.position] = entry
        self.outstanding.add(entry.ordinal)
        path, _, number = entry.position.rpartition("/")
        self.reach[path] = max(self.reach.get(path, 0), int(number))

    def check(self) -> None:
        """Raise again what ended this run, if anything did: a dead run does nothing more."""
        if self.dead is not None:
            raise self.dead

    def die(self, cause: BaseException) -> BaseException:
        """End this run for the first cause given; answers that cause."""
        if self.dead is None:
            self.dead = cause
        return self.dead

    def number(self) -> int:
        """Take the next ordinal; it is outstanding until its result is given to the code."""
        self.ordinal += 1
        self.outstanding.add(self.ordinal)
        return self.ordinal

    def its_turn(self, ordinal: int) -> bool:
        """Whether every smaller ordinal has been given to the code."""
        return min(self.outstanding, default=ordinal) >= ordinal

    def given(self, ordinal: int) -> None:
        """Note that the code has the result with this ordinal, or never will."""
        self.outstanding.discard(ordinal)

    def leftover(self) -> Entry | None:
        """Find the first record of the main line that the code never asked for."""
        left = (e for e in self.journal.values() if "/" not in e.position and e.ordinal in self.outstanding)
        return min(left, key=lambda entry: entry.ordinal, default=None)


class Branch:
    """One line of control in a run: the body itself, or a task that it started. Numbers what happens in it."""

    __slots__ = ("_forks", "_steps", "path", "run")

    def __init__(self, run: Run, path: str) -> None:
        self.run = run
        self.path = path
        self._steps = 0
        self._forks = 0

    def advance(self) -> str:
        """Claim the next position of this branch."""
        self._steps += 1
        return f"{self.path}{self._steps}"

    def fork(self) -> Branch:
        """Open the branch of a task that is being created here."""
        self._forks += 1
        return Branch(self.run, f"{self.path}{self._forks}/")


def recall(branch: Branch, position: str, kind: Kind, name: str, digest: str = "") -> Op[Entry | None]:
    """Give the record at a position, in its turn; None when the code is ahead of the journal.

    Raises:
        Divergence: the journal has something else here, or something after here; the run is dead.
    """
    run = branch.run
    run.check()
    entry = run.journal.get(position)
    if entry is None:
        if run.reach.get(branch.path.rstrip("/"), 0) > int(position.rpartition("/")[2]):
            raise run.die(Divergence(f"{run.id}: the journal has no record at {position}, but has later ones."))
        return None
    if (entry.name, entry.digest) != (name, digest) or entry.kind not in (kind, Kind.CANCELLED):
        raise run.die(_divergence(run, entry, kind, name))
    if entry.kind is not Kind.CANCELLED:
        yield Turn(run, entry.ordinal)
        run.given(entry.ordinal)
    return entry


def _divergence(run: Run, entry: Entry, kind: Kind, name: str) -> Divergence:
    what = "other arguments" if (entry.kind, entry.name) == (kind, name) else f"{kind} {name!r}"
    return Divergence(
        f"{run.id}: at position {entry.position} the journal has {entry.kind} {entry.name!r}, and the code now asks for "
        f"{what}. The workflow is held: bring the old code back, or fork it from before this position."
    )


def settle(run: Run) -> Op[None]:
    """Make what is recorded so far durable: nothing begins before."""
    run.check()
    if run.pending:
        yield from write(run)


def write(run: Run, *entries: Entry, end: Outcome | Park | None = None) -> Op[Advanced]:
    """Write entries, and the end, durably; a run that may no longer write is dead."""
    run.pending.extend(entries)
    answer: Any = yield Flush(run, end)
    return answer


def note(run: Run, entry: Entry) -> Op[None]:
    """Fix a result: it is durable before the next operation begins, at the latest a few milliseconds from now.

    Its value is handed to the code in the turn of its ordinal.
    """
    run.pending.append(entry)
    yield Turn(run, entry.ordinal)
    run.given(entry.ordinal)
