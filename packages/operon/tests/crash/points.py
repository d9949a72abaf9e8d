"""Named points: before and after each commit, at which a process ends itself, or stops, in an instant."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from operon.core.commands import Advance, Claim, Command
from operon.core.rows import Park, WorkflowRow
from operon.datasources.adapters.psycopg import PsycopgTransaction
from operon.datasources.adapters.sqlite import SqliteTransaction

if TYPE_CHECKING:
    from operon.core.store import Store

KINDS = (
    "Start",
    "Claim",
    "record",
    "end",
    "park",
    "begin",
    "commit",
    "fence",
    "Enlist",
    "Beat",
    "Bury",
    "TakeOver",
    "Wake",
)
"""Commits by what they carry: `record` is journal entries alone, `commit` a user's, `fence` the record in it."""
RARE = ("Enlist", "Bury", "TakeOver", "Wake", "park", "Claim")
"""What a process does once at its start, or seldom."""


@dataclass(frozen=True, slots=True)
class Point:
    """The n-th commit of a kind, before it is sent or after it is answered."""

    kind: str
    after: bool
    nth: int = 1
    signal: int = signal.SIGKILL

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.kind}"


class Trap:
    """Springs at one point of this process, once."""

    def __init__(self, point: Point | None) -> None:
        self._point = point
        self._left = point.nth if point else 0
        self._mutex = threading.Lock()

    def reach(self, kind: str, *, after: bool) -> None:
        """Pass a point; whoever is trapped does not come back, or not before somebody wakes him."""
        point = self._point
        if point is None or (point.kind, point.after) != (kind, after):
            return
        with self._mutex:
            self._left -= 1
            sprung = self._left == 0
        if sprung:  # to this thread: what is sent to the process stops another first, and this one may go on a little
            signal.pthread_kill(threading.get_ident(), point.signal)


class TrappedStore:
    """A store that passes a point before and after each command; answers are those of the real one."""

    def __init__(self, store: Store, trap: Trap, claimed: Callable[[WorkflowRow], None]) -> None:
        self._store = store
        self._trap = trap
        self._claimed = claimed

    def __getattr__(self, name: str) -> Any:
        """Be the real one in everything else."""
        return getattr(self._store, name)

    def ask(self, command: Command[Any]) -> object:
        """Answer a command."""
        self._trap.reach(kind_of(command), after=False)
        answer = cast("object", self._store.ask(command))
        self._answered(command, answer)
        return answer

    def submit(self, command: Command[Any], then: Callable[[Future[Any]], object] | None = None) -> Future[Any]:
        """Answer a command later."""
        self._trap.reach(kind_of(command), after=False)

        def answered(it: Future[Any]) -> None:
            if it.exception() is None:
                self._answered(command, it.result(0))
            if then is not None:
                then(it)

        return self._store.submit(command, answered)

    def _answered(self, command: Command[Any], answer: Any) -> None:
        if not isinstance(command, Claim):
            self._trap.reach(kind_of(command), after=True)
        elif answer:
            self._trap.reach("Claim", after=True)
            for it in answer:
                self._claimed(it.row)


def kind_of(command: Command[Any]) -> str:
    """Name a commit by what it carries."""
    if not isinstance(command, Advance):
        return type(command).__name__
    if command.end is None:
        return "record"
    return "park" if isinstance(command.end, Park) else "end"


def arm(trap: Trap, records: tuple[str, ...]) -> None:
    """Let the user's transactions of this process pass points: around their commit, and around the record in it."""
    for kind in (PsycopgTransaction, SqliteTransaction):
        _around(kind, "begin", trap)
        _around(kind, "commit", trap)
        _around_record(kind, trap, records)


def _around(kind: Any, method: str, trap: Trap) -> None:
    original: Callable[..., Generator[Any, Any, None]] = getattr(kind, method)

    def trapped(self: Any, *args: Any) -> Generator[Any, Any, None]:
        trap.reach(method, after=False)
        yield from original(self, *args)
        trap.reach(method, after=True)

    setattr(kind, method, trapped)


def _around_record(kind: Any, trap: Trap, records: tuple[str, ...]) -> None:
    rows: Callable[..., Generator[Any, Any, object]] = kind.rows

    def trapped(self: Any, statement: str, parameters: Any) -> Generator[Any, Any, object]:
        fence = statement in records
        if fence:
            trap.reach("fence", after=False)
        answer = yield from rows(self, statement, parameters)
        if fence:
            trap.reach("fence", after=True)
        return answer

    kind.rows = trapped
