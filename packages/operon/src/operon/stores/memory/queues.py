"""What the commands about queues mean, in plain Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from operon.core.queues import AGEING, in_turn
from operon.core.rows import Limits, QueueRow, WorkflowRow
from operon.core.states import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operon.core import commands as c
    from operon.stores.memory.store import MemoryStore, Workflow


@dataclass(slots=True)
class Line:
    """A queue: its limits, who was admitted when, and which partition was served last."""

    name: str
    app: str
    limits: Limits
    seed: Limits
    paused: bool = False
    served: str = ""
    admitted: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])


def admit(store: MemoryStore, command: c.Claim, room: int, now: float) -> list[Workflow]:
    """Pick what the queues let go, at most so many; the store makes them run."""
    picked: list[Workflow] = []
    for name, free in sorted(command.queues):
        line = store.queues.get(name)
        if line is None or line.paused:
            continue
        mine = [w for w in store.workflows.values() if w.row.queue == name]
        _promote(mine, now)
        _prune(line, now)
        at_most = min(free, room - len(picked), _room(line, mine, command.executor, now))
        waiting = [w for w in mine if in_line(w.row) and is_for(w.row, command)]
        chosen = in_turn(_lines(line, waiting, mine, now), at_most) if at_most > 0 else []
        if chosen:
            line.served = chosen[-1].row.partition
            line.admitted += [(w.row.partition, now) for w in chosen]
        picked += chosen
    return picked


def _promote(mine: Sequence[Workflow], now: float) -> None:
    """Put in line what is due."""
    for workflow in mine:
        row = workflow.row
        if row.status in (Status.QUEUED, Status.WAITING) and row.ready_at is not None and row.ready_at <= now:
            workflow.awaits = ()
            workflow.row = replace(row, status=Status.QUEUED, ready_at=None)


def _prune(line: Line, now: float) -> None:
    longest = max(line.limits.period or 0.0, line.limits.partition_period or 0.0)
    line.admitted = [(partition, at) for partition, at in line.admitted if at > now - longest]


def lined(store: MemoryStore, executor: int) -> bool:
    """Whether a queue has a line, and its concurrency lets this executor run more of it."""
    for line in store.queues.values():
        mine = [w for w in store.workflows.values() if w.row.queue == line.name]
        if not line.paused and any(in_line(w.row) for w in mine) and _free(line, mine, executor) > 0:
            return True
    return False


def _room(line: Line, mine: Sequence[Workflow], executor: int, now: float) -> int:
    """How many more the queue as a whole lets run, and begin."""
    since = now - (line.limits.period or 0.0)
    lately = sum(1 for _, at in line.admitted if at > since)
    return min(_free(line, mine, executor), _less(line.limits.rate, lately))


def _free(line: Line, mine: Sequence[Workflow], executor: int) -> int:
    """How many more its concurrency lets run."""
    running = [w for w in mine if w.row.status is Status.RUNNING]
    here = sum(1 for w in running if w.row.executor == executor)
    return min(_less(line.limits.concurrency, len(running)), _less(line.limits.worker_concurrency, here))


def _less(limit: int | None, taken: int) -> int:
    return 2**31 if limit is None else limit - taken


def _lines(line: Line, waiting: Sequence[Workflow], mine: Sequence[Workflow], now: float) -> list[list[Workflow]]:
    """Each partition's line as far as it may be served, those behind the one that was served last first."""
    names = sorted({w.row.partition for w in waiting}, key=lambda name: (name <= line.served, name))
    served: list[list[Workflow]] = []
    for name in names:
        here = sorted((w for w in waiting if w.row.partition == name), key=lambda w: (rank(w.row), w.row.id))
        served.append(here[: max(0, _partition_room(line, name, mine, now))])
    return served


def _partition_room(line: Line, name: str, mine: Sequence[Workflow], now: float) -> int:
    limits = line.limits
    running = sum(1 for w in mine if w.row.status is Status.RUNNING and w.row.partition == name)
    since = now - (limits.partition_period or 0.0)
    admitted = sum(1 for partition, at in line.admitted if partition == name and at > since)
    return min(_less(limits.partition_concurrency, running), _less(limits.partition_rate, admitted))


def rank(row: WorkflowRow) -> float:
    """Who is lower goes first: waiting overtakes priority."""
    return row.created_at - AGEING * row.priority


def in_line(row: WorkflowRow) -> bool:
    """Whether it may be picked at any moment."""
    return row.queue is not None and row.status is Status.QUEUED and row.ready_at is None


def is_for(row: WorkflowRow, claim: c.Claim) -> bool:
    """Whether the claimer can run it."""
    return (
        row.name in claim.names
        and (row.instance is None or row.instance in claim.instances)
        and (row.pin is None or row.pin == claim.version)
    )


def seed(store: MemoryStore, command: c.Seed, living: set[str]) -> str | None:
    """See `Seed`."""
    line = store.queues.get(command.name)
    if line is None:
        store.queues[command.name] = Line(command.name, command.app, command.limits, command.limits)
        return None
    if line.app != command.app and line.seed != command.limits and line.app in living:
        return line.app
    if line.limits == line.seed:
        line.limits = command.limits
    line.app, line.seed = command.app, command.limits
    return None


def change(store: MemoryStore, command: c.SetQueue) -> bool:
    """See `SetQueue`."""
    line = store.queues.get(command.name)
    if line is None:
        return False
    if command.reset:
        line.limits = line.seed
    line.limits = command.limits or line.limits
    line.paused = line.paused if command.paused is None else command.paused
    return True


def listing(store: MemoryStore, _: c.Queues) -> tuple[QueueRow, ...]:
    """By name."""
    return tuple(
        QueueRow(
            line.name,
            line.app,
            line.limits,
            line.seed,
            line.paused,
            queued=_count(store, line.name, Status.QUEUED),
            running=_count(store, line.name, Status.RUNNING),
        )
        for line in sorted(store.queues.values(), key=lambda line: line.name)
    )


def _count(store: MemoryStore, name: str, status: Status) -> int:
    return sum(1 for w in store.workflows.values() if w.row.queue == name and w.row.status is status)


def opening(store: MemoryStore, command: c.Opening, now: float) -> float | None:
    """When the admission that fills a window leaves it."""
    found: list[float] = []
    for name in command.queues:
        line = store.queues.get(name)
        if (
            line is None
            or line.paused
            or not any(in_line(w.row) for w in store.workflows.values() if w.row.queue == name)
        ):
            continue
        limits, instants = line.limits, sorted(at for _, at in line.admitted)
        if limits.rate and limits.period and len(instants) >= limits.rate:
            found.append(instants[-limits.rate] + limits.period)
        for partition in {partition for partition, _ in line.admitted} if limits.partition_rate else ():
            own = sorted(at for each, at in line.admitted if each == partition)
            if limits.partition_period and limits.partition_rate and len(own) >= limits.partition_rate:
                found.append(own[-limits.partition_rate] + limits.partition_period)
    later = [at - now for at in found if at > now]
    return min(later, default=None)
