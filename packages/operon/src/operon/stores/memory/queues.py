"""What the commands about queues mean, in plain Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from operon.core.queues import AGEING, in_turn
from operon.core.rows import QueueRow, WorkflowRow
from operon.core.states import Status
from operon.stores.memory.tables import Queue, Tables, Workflow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operon.core import commands as c


def admit(tables: Tables, command: c.Claim, room: int, now: float) -> list[Workflow]:
    """Pick what the queues let go, at most so many; the store makes them run."""
    picked: list[Workflow] = []
    for name, free in sorted(command.queues):
        queue = tables.queues.get(name)
        if queue is None or queue.paused:
            continue
        mine = [w for w in tables.workflows.values() if w.row.queue == name]
        _promote(mine, now)
        _prune(queue, now)
        at_most = min(free, room - len(picked), _room(queue, mine, command.executor, now))
        waiting = [w for w in mine if in_line(w.row) and is_for(w.row, command)]
        chosen = in_turn(_lines(queue, waiting, mine, now), at_most) if at_most > 0 else []
        if chosen:
            queue.served = chosen[-1].row.partition
            queue.admitted += [(w.row.partition, now) for w in chosen]
        picked += chosen
    return picked


def _promote(mine: Sequence[Workflow], now: float) -> None:
    """Put in line what is due."""
    for workflow in mine:
        row = workflow.row
        if row.status in (Status.QUEUED, Status.WAITING) and row.ready_at is not None and row.ready_at <= now:
            workflow.awaits = ()
            workflow.row = replace(row, status=Status.QUEUED, ready_at=None)


def _prune(queue: Queue, now: float) -> None:
    longest = max(queue.limits.period or 0.0, queue.limits.partition_period or 0.0)
    queue.admitted = [(partition, at) for partition, at in queue.admitted if at > now - longest]


def lined(tables: Tables, executor: int) -> bool:
    """Whether a queue has a line, and its concurrency lets this executor run more of it."""
    for queue in tables.queues.values():
        mine = [w for w in tables.workflows.values() if w.row.queue == queue.name]
        if not queue.paused and any(in_line(w.row) for w in mine) and _free(queue, mine, executor) > 0:
            return True
    return False


def _room(queue: Queue, mine: Sequence[Workflow], executor: int, now: float) -> int:
    """How many more the queue as a whole lets run, and begin."""
    since = now - (queue.limits.period or 0.0)
    lately = sum(1 for _, at in queue.admitted if at > since)
    return min(_free(queue, mine, executor), _less(queue.limits.rate, lately))


def _free(queue: Queue, mine: Sequence[Workflow], executor: int) -> int:
    """How many more its concurrency lets run."""
    running = [w for w in mine if w.row.status is Status.RUNNING]
    here = sum(1 for w in running if w.row.executor == executor)
    return min(_less(queue.limits.concurrency, len(running)), _less(queue.limits.worker_concurrency, here))


def _less(limit: int | None, taken: int) -> int:
    return 2**31 if limit is None else limit - taken


def _lines(queue: Queue, waiting: Sequence[Workflow], mine: Sequence[Workflow], now: float) -> list[list[Workflow]]:
    """Each partition's line as far as it may be served, those behind the one that was served last first."""
    names = sorted({w.row.partition for w in waiting}, key=lambda name: (name <= queue.served, name))
    served: list[list[Workflow]] = []
    for name in names:
        here = sorted((w for w in waiting if w.row.partition == name), key=lambda w: (rank(w.row), w.row.id))
        served.append(here[: max(0, _partition_room(queue, name, mine, now))])
    return served


def _partition_room(queue: Queue, name: str, mine: Sequence[Workflow], now: float) -> int:
    limits = queue.limits
    running = sum(1 for w in mine if w.row.status is Status.RUNNING and w.row.partition == name)
    since = now - (limits.partition_period or 0.0)
    admitted = sum(1 for partition, at in queue.admitted if partition == name and at > since)
    return min(_less(limits.partition_concurrency, running), _less(limits.partition_rate, admitted))


def rank(row: WorkflowRow) -> float:
    """The lower goes first: waiting overtakes priority."""
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


def seed(tables: Tables, command: c.Seed) -> str | None:
    """See `Seed`."""
    now = tables.clock()
    living = {peer.app for peer in tables.executors.values() if peer.alive and peer.lease_until > now}
    queue = tables.queues.get(command.name)
    if queue is None:
        tables.queues[command.name] = Queue(command.name, command.app, command.limits, command.limits)
        return None
    if queue.app != command.app and queue.seed != command.limits and queue.app in living:
        return queue.app
    if queue.limits == queue.seed:
        queue.limits = command.limits
    queue.app, queue.seed = command.app, command.limits
    return None


def change(tables: Tables, command: c.SetQueue) -> bool:
    """See `SetQueue`."""
    queue = tables.queues.get(command.name)
    if queue is None:
        return False
    if command.reset:
        queue.limits = queue.seed
    queue.limits = command.limits or queue.limits
    queue.paused = queue.paused if command.paused is None else command.paused
    return True


def listing(tables: Tables, _: c.Queues) -> tuple[QueueRow, ...]:
    """By name."""
    return tuple(
        QueueRow(
            queue.name,
            queue.app,
            queue.limits,
            queue.seed,
            queue.paused,
            queued=_count(tables, queue.name, Status.QUEUED),
            running=_count(tables, queue.name, Status.RUNNING),
        )
        for queue in sorted(tables.queues.values(), key=lambda queue: queue.name)
    )


def _count(tables: Tables, name: str, status: Status) -> int:
    return sum(1 for w in tables.workflows.values() if w.row.queue == name and w.row.status is status)


def opening(tables: Tables, command: c.Opening) -> float | None:
    """When the admission that fills a window leaves it, the soonest of all."""
    now = tables.clock()
    found: list[float] = []
    for name in command.queues:
        queue = tables.queues.get(name)
        if (
            queue is None
            or queue.paused
            or not any(in_line(w.row) for w in tables.workflows.values() if w.row.queue == name)
        ):
            continue
        limits, instants = queue.limits, sorted(at for _, at in queue.admitted)
        if limits.rate and limits.period and len(instants) >= limits.rate:
            found.append(instants[-limits.rate] + limits.period)
        for partition in {partition for partition, _ in queue.admitted} if limits.partition_rate else ():
            own = sorted(at for each, at in queue.admitted if each == partition)
            if limits.partition_period and limits.partition_rate and len(own) >= limits.partition_rate:
                found.append(own[-limits.partition_rate] + limits.partition_period)
    later = [at - now for at in found if at > now]
    return min(later, default=None)
