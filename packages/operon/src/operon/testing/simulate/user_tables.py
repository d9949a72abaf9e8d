"""A simulated database of the user's: snapshots, constraints, and the record that commits with the rows, or neither."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from operon.core.commands import Advance, Start
from operon.core.rows import Entry, Kind, NewWorkflow, Outcome
from operon.core.states import STATUSES, Status
from operon.datasources.foreign import QUERIES, TABLES
from operon.testing.simulate.database import Database, DatabaseError
from operon.testing.simulate.process import LEASE, Process
from operon.testing.simulate.verdicts import LawBroken

T = TypeVar("T")
PURSES: Sequence[str] = ("red", "green", "blue")
MONEY = 3
"""What is in each purse; whoever comes when it is empty is refused."""
Parameters = Mapping[str, Any]
Rows = list[tuple[Any, ...]]


def conflict() -> DatabaseError:
    """Say that another was faster."""
    return DatabaseError("could not serialize access", "40001")


class UserTables:
    """What is committed: purses, what was spent from them for which operation, and records of transactions."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.purses = dict.fromkeys(PURSES, MONEY)
        self.changes: Counter[str] = Counter()
        self.spent: dict[str, str] = {}
        """By the key of an operation, what its transaction returned when it took money from a purse."""
        self.records: dict[tuple[str, str], str] = {}
        self.recording = False
        """Whether there is a table of records."""
        self.locks: dict[str, Session] = {}

    def commit(self, session: Session) -> None:
        """Apply what a transaction did, all of it or nothing."""
        raced = any(self.changes[purse] != session.changes[purse] for purse in session.read)
        if raced or self.database.happens(self.database.faults.conflicts):
            raise conflict()
        if session.orphaned:
            raise DatabaseError("violates a foreign key", "23503")
        if session.record is not None and not session.record():
            raise conflict()
        self.purses |= session.written
        self.changes.update(session.written.keys())
        for key, value in session.spent.items():
            if key in self.spent:
                self.database.broke(LawBroken(f"{key} is done twice: {self.spent[key]}, and {value}."))
            self.spent[key] = value
        if sum(self.purses.values()) != MONEY * len(PURSES) - len(self.spent):
            self.database.broke(LawBroken(f"{self.purses} are left, and spent is {self.spent}."))


class Session:
    """One transaction at the server: its snapshot, and what it would commit."""

    def __init__(self, tables: UserTables, process: Process) -> None:
        self.tables = tables
        self.process = process
        self.purses = dict(tables.purses)
        self.changes = tables.changes.copy()
        self.read: set[str] = set()
        self.written: dict[str, int] = {}
        self.spent: dict[str, str] = {}
        self.orphaned = False
        self.record: Callable[[], bool] | None = None
        """Writes our record, if it still may be written."""
        self.over = False
        self._used = tables.database.agenda.now

    @property
    def open(self) -> bool:
        """Whether the server still has it; what does nothing for too long, or whose client is gone, it ends."""
        return not self.over and self.process.alive and self.tables.database.agenda.now <= self._used + LEASE

    def perform(self, work: Callable[[], T]) -> T:
        """Execute a statement in it."""
        if not self.open:
            raise DatabaseError("terminating connection due to idle-in-transaction timeout", "25P03")
        self._used = self.tables.database.agenda.now
        return work()

    def balance(self, purse: str) -> int:
        """Look into a purse, as it was when the transaction began."""
        self.read.add(purse)
        return self.written.get(purse, self.purses[purse])

    def spend(self, purse: str, left: int, key: str, value: str) -> None:
        """Take money from a purse for an operation."""
        self._write()
        if self.tables.changes[purse] != self.changes[purse]:
            raise conflict()
        self.written[purse] = left
        self.spent[key] = value

    def orphan(self) -> None:
        """Write a row that refers to one that is not there: a deferred constraint finds it at the commit."""
        self._write()
        self.orphaned = True

    def _write(self) -> None:
        if self.tables.database.faults.standby:
            raise DatabaseError("cannot execute INSERT in a read-only transaction", "25006")

    # ── Our statements ───────────────────────────────────────────────────────────────────────────────────────────────

    def execute(self, statement: str, parameters: Parameters) -> Rows:
        """Execute one of the statements by which the record is kept."""
        if statement in TABLES["postgres"]:
            self._write()
            self.tables.recording = True
            return []
        return STATEMENTS[statement](self, parameters)

    def _lock(self, it: Parameters) -> Rows:
        holder = self.tables.locks.setdefault(it["id"], self)
        if holder is not self and holder.open:
            return [(False,)]
        self.tables.locks[it["id"]] = self
        return [(True,)]

    def _record(self, it: Parameters) -> Rows:
        self._write()
        database = self.tables.database
        if it["workflow_id"] in database.locks.held:
            raise conflict()
        there = database.tables.workflows.get(it["workflow_id"])
        if there is None or (there.row.status, there.row.claim) != (Status.RUNNING, it["claim"]):
            return []
        if it["position"] in there.journal:
            raise DatabaseError("duplicate key", "23505")
        command = Advance(it["workflow_id"], it["claim"], (_entry(it),))
        self.record = lambda: database.carry_out(self.process, command).written
        return [(it["position"],)]

    def _settle(self, it: Parameters) -> Rows:
        self._write()
        database = self.tables.database
        if it["id"] in database.tables.workflows:
            raise DatabaseError("duplicate key", "23505")
        new = NewWorkflow(**{name: it[name] for name in ("id", "name", "input", "digest", "nonce", "version")})
        code: int = it["status"]
        outcome = Outcome(STATUSES[code], it["output"], it["error"])
        self.record = lambda: database.settle(self.process, Start(new), _entry(it), outcome)
        return [(it["position"],)]

    def _keep(self, it: Parameters) -> Rows:
        self._write()
        key, records = (it["workflow_id"], it["position"]), self.tables.records
        self._exists()
        if key in records:
            raise DatabaseError("duplicate key", "23505")
        self.record = lambda: records.setdefault(key, it["output"]) is it["output"]
        return [(it["position"],)]

    def _recorded(self, it: Parameters) -> Rows:
        self._exists()
        output = self.tables.records.get((it["workflow_id"], it["position"]))
        return [] if output is None else [(output, "")]

    def _exists(self) -> None:
        if not self.tables.recording:
            raise DatabaseError("relation does not exist", "42P01")


STATEMENTS: Mapping[str, Callable[[Session, Parameters], Rows]] = {
    "lock": Session._lock,  # noqa: SLF001 - its own table of what it answers
    "record": Session._record,  # noqa: SLF001
    "settle": Session._settle,  # noqa: SLF001
    QUERIES["postgres"]["record"]: Session._keep,  # noqa: SLF001
    QUERIES["postgres"]["recorded"]: Session._recorded,  # noqa: SLF001
}


def _entry(it: Parameters) -> Entry:
    names = ("position", "ordinal", "name", "digest", "output", "error", "version", "isolation")
    return Entry(kind=Kind(it["kind"]), **{name: it[name] for name in names})
