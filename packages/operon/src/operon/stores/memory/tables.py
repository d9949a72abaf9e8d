"""What a store in memory remembers, as tables: a workflow with its journal, a queue, executors and schedules.

What the commands do with them is in the modules beside this one; each takes the tables, and none the store.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING
from uuid import uuid4

from msgspec.structs import replace

from operon.core.rows import Entry, Limits, Outcome, Peer, WorkflowRow
from operon.core.states import MOVES, Status
from operon.stores.memory.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from operon.core.rows import Guard
    from operon.core.timetable import ScheduleRow

READY_FROM = MOVES["claim"][0]
HOUR = 3600.0
CLEANUPS = 3
"""How often a clean-up is begun, at most."""


@dataclass
class Cleanup:
    """What a workflow that ended has to do still."""

    until: float
    times: int = 0
    cleaner: int | None = None

    def open(self, now: float) -> bool:
        """Whether it may still begin."""
        return self.until > now and self.times < CLEANUPS


@dataclass(slots=True)
class Workflow:
    """A row, its journal by position, and what it waits for."""

    row: WorkflowRow
    journal: dict[str, Entry] = field(default_factory=dict[str, Entry])
    claims: dict[str, int] = field(default_factory=dict[str, int])
    """The claim that wrote each position."""
    awaits: tuple[str, ...] = ()
    quiet: tuple[str, ...] = ()
    cleanup: Cleanup | None = None

    @property
    def outcome(self) -> Outcome:
        """How it ended, or its state so far."""
        row = self.row
        return Outcome(row.status, row.output, row.error, row.ended_at if row.erased else None)

    @property
    def history(self) -> tuple[Entry, ...]:
        """The journal in completion order."""
        return tuple(sorted(self.journal.values(), key=lambda entry: (entry.ordinal, entry.position)))

    def is_ready(self, now: float) -> bool:
        """Whether it may be claimed."""
        return self.row.status in READY_FROM and self.row.ready_at is not None and self.row.ready_at <= now

    def end(self, outcome: Outcome, now: float) -> None:
        """Take it from its executor: for good, for a person to decide, or back to the queue."""
        self.awaits = ()
        if outcome.cleaner is not None:
            self.cleanup = Cleanup(now + HOUR, cleaner=outcome.cleaner)
        self.row = replace(
            self.row,
            status=outcome.status,
            output=outcome.output,
            error=outcome.error,
            executor=self.row.executor if outcome.status.ended or outcome.status is Status.HELD else None,
            ready_at=now if outcome.status is Status.QUEUED else None,
            ended_at=now if outcome.status.ended else None,
        )


@dataclass(slots=True)
class Queue:
    """A queue: its limits, who was admitted when, and which partition was served last."""

    name: str
    app: str
    limits: Limits
    seed: Limits
    paused: bool = False
    served: str = ""
    admitted: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])


@dataclass(slots=True)
class Tables:
    """Everything that a store in memory remembers, and its clock."""

    clock: Clock = field(default_factory=Clock)
    journal: str = field(default_factory=lambda: f"memory:{uuid4()}")
    """Names this journal among all."""
    workflows: dict[str, Workflow] = field(default_factory=dict[str, Workflow])
    children: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict[str, list[str]](list))
    executors: dict[int, Peer] = field(default_factory=dict[int, Peer])
    queues: dict[str, Queue] = field(default_factory=dict[str, Queue])
    schedules: dict[str, ScheduleRow] = field(default_factory=dict[str, "ScheduleRow"])
    ids: Iterator[int] = field(default_factory=lambda: count(1))
    """Of executors."""

    def holds(self, guard: Guard) -> bool:
        """Whether a claim is held."""
        workflow = self.workflows.get(guard.workflow_id)
        return workflow is not None and (workflow.row.status, workflow.row.claim) == (Status.RUNNING, guard.claim)

    def is_over(self, workflow_id: str) -> bool:
        """Whether nothing is to be waited for in a workflow: it has ended, is held, or is not there."""
        workflow = self.workflows.get(workflow_id)
        return workflow is None or workflow.row.status.ended or workflow.row.status is Status.HELD

    def running(self) -> Iterator[Workflow]:
        """Every workflow that runs."""
        return (w for w in self.workflows.values() if w.row.status is Status.RUNNING)

    def run_by(self, executor: int) -> list[Workflow]:
        """Every workflow that an executor runs."""
        return [w for w in self.running() if w.row.executor == executor]
