"""What claiming and waking mean, in plain Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from operon.core import commands as c
from operon.core.rows import Claimed, Guard, Outcome
from operon.core.states import Status
from operon.stores.memory import queues
from operon.stores.portions import excess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from operon.stores.memory.tables import Tables, Workflow


def claim(tables: Tables, command: c.Claim) -> tuple[Claimed, ...]:
    """Oldest ready first; every claim has a number of its own, which fences all before it."""
    now = tables.clock()
    unqueued = (w for w in tables.workflows.values() if w.row.queue is None and w.is_ready(now))
    fitting = (w for w in unqueued if queues.is_for(w.row, command))
    ready = sorted(fitting, key=lambda w: (w.row.ready_at, w.row.id))[: command.limit]
    ready += queues.admit(tables, command, command.limit - len(ready), now)
    for workflow in ready:
        row = workflow.row
        workflow.awaits = ()
        workflow.row = replace(
            row,
            status=Status.RUNNING,
            claim=row.claim + 1,
            executor=command.executor,
            attempts=row.attempts + 1,
            started_at=now if row.started_at is None else row.started_at,
            ready_at=None,
        )
    weights = {it.row.id: Claimed(it.row, it.history).weight for it in ready if not it.row.fresh}
    over = {row.id: row.claim for row in excess((it.row for it in ready), weights, command.room)}
    hand_back(tables, c.HandBack(command.executor, tuple(Guard(*it) for it in over.items()), unbegun=True))
    return tuple(Claimed(it.row, it.history) for it in ready if it.row.id not in over)


def hand_back(tables: Tables, command: c.HandBack) -> int:
    """Only what this executor runs, and only under these claims."""
    guards, mine = command.guards, tables.run_by(command.executor)
    held = [w for w in mine if guards is None or Guard(w.row.id, w.row.claim) in guards]
    now = tables.clock()
    for workflow in held:
        workflow.end(Outcome(Status.QUEUED), now)
        workflow.row = replace(workflow.row, attempts=workflow.row.attempts - command.unbegun)
    return len(held)


def wake(tables: Tables, command: c.Wake) -> int:
    """Make ready, now, what is parked and not ready yet."""
    now = tables.clock()
    found = [w for w in sleepers(tables, now) if is_stirred(tables, w, command.targets)]
    for workflow in found:
        workflow.row = replace(workflow.row, ready_at=now)
    return len(found)


def sleepers(tables: Tables, now: float) -> Iterator[Workflow]:
    """Those that are parked, and not ready yet."""
    return (w for w in tables.workflows.values() if w.row.status is Status.WAITING and not w.is_ready(now))


def is_stirred(tables: Tables, workflow: Workflow, targets: tuple[str, ...] | None) -> bool:
    """Whether what it waits for has ended, and is to wake it; None looks at everything that it awaits."""
    over = (key for key in workflow.awaits if (tables.is_over(key) if targets is None else key in targets))
    return any(wakes(tables, workflow, key) for key in over)


def wakes(tables: Tables, workflow: Workflow, target: str) -> bool:
    """Whether a workflow is woken by the end of what it awaits."""
    awaited = tables.workflows.get(target)
    return target not in workflow.quiet or awaited is None or awaited.row.status is not Status.SUCCEEDED
