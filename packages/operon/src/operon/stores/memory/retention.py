"""What the commands about retention mean, in plain Python."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from msgspec.structs import replace

from operon.core.rows import Obstacle, Swept
from operon.core.states import Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from operon.core import commands as c
    from operon.stores.memory.tables import Tables, Workflow


def delete(tables: Tables, command: c.Delete) -> int | Obstacle:
    """All of the tree, or nothing."""
    root = tables.workflows.get(command.workflow_id)
    if root is None:
        return 0
    tree = [root]
    for workflow in tree:
        tree += (tables.workflows[key] for key in tables.children.get(workflow.row.id, ()))
    parent = tables.workflows.get(root.row.parent or "")
    standing = [it for it in tree if not it.row.status.ended and not (it is root and it.row.status is Status.HELD)]
    standing += [parent] if parent is not None and not parent.row.status.ended else []
    if standing:
        first = min(standing, key=lambda it: (it is not root, it.row.id))
        return Obstacle(first.row.id, first.row.status)
    for workflow in tree:
        _remove(tables, workflow)
    return len(tree)


def sweep(tables: Tables, command: c.Sweep) -> Swept:
    """Look at a page, then act on what is free in it."""
    page = list(islice(_aged(tables, command, tables.clock()), command.limit))
    free = _forgettable if command.keys else _erasable
    gone = [workflow for _, workflow in page if free(tables, workflow)]
    for workflow in gone:
        if command.keys:
            _remove(tables, workflow)
        else:
            _erase(workflow)
    if len(page) < command.limit:
        return Swept(len(gone))
    place, last = page[-1]
    return Swept(len(gone), place, (last.row.ended_at or 0.0, last.row.id))


def strip(tables: Tables, command: c.Strip) -> int:
    """Nothing is left to do: a record and its journal go at once."""
    del tables, command
    return 0


def prune(tables: Tables, command: c.Prune) -> int:
    """Executors first."""
    now = tables.clock()
    busy = {it.row.executor for it in tables.workflows.values() if it.row.status is Status.RUNNING}
    old = [
        it.id
        for it in tables.executors.values()
        if not it.alive and it.lease_until < now - command.older and it.id not in busy
    ][: command.limit]
    for executor in old:
        del tables.executors[executor]
    pruned = len(old)
    for queue in tables.queues.values():
        longest = max(queue.limits.period or 0.0, queue.limits.partition_period or 0.0)
        kept = [(partition, at) for partition, at in queue.admitted if at > now - longest]
        pruned += len(queue.admitted) - len(kept)
        queue.admitted = kept
    return pruned


def standing(tables: Tables, command: c.Standing) -> Mapping[str, int]:
    """What is not erased."""
    found = (tables.workflows[key].row for key in command.ids if key in tables.workflows)
    return {row.id: row.nonce for row in found if not row.erased}


def journal(tables: Tables, command: c.Journal) -> str:
    """As long as it lives."""
    del command
    return tables.journal


def awaited(tables: Tables, command: c.Awaited) -> tuple[str, ...]:
    """Whatever it is parked for."""
    workflow = tables.workflows.get(command.workflow_id)
    return () if workflow is None else tuple(sorted(workflow.awaits))


def _aged(tables: Tables, command: c.Sweep, now: float) -> Iterator[tuple[int, Workflow]]:
    """Everything that is past its time, policy by policy, each from the oldest on."""
    for place, policy in enumerate(command.policies):
        fitting = [
            it
            for it in tables.workflows.values()
            if (it.row.name, it.row.status, it.row.erased) == (policy.name, policy.status, command.keys)
            and it.row.ended_at is not None
            and it.row.ended_at <= now - policy.keep
        ]
        for workflow in sorted(fitting, key=_age):
            if place > 0 or command.after is None or _age(workflow) > command.after:
                yield place, workflow


def _age(workflow: Workflow) -> tuple[float, str]:
    return workflow.row.ended_at or 0.0, workflow.row.id


def _erasable(tables: Tables, workflow: Workflow) -> bool:
    parent = tables.workflows.get(workflow.row.parent or "")
    awaited = any(workflow.row.id in it.awaits for it in tables.workflows.values())
    untidy = workflow.cleanup is not None and workflow.cleanup.open(tables.clock())
    return (parent is None or parent.row.erased) and not awaited and not untidy


def _forgettable(tables: Tables, workflow: Workflow) -> bool:
    return not tables.children.get(workflow.row.id)


def _erase(workflow: Workflow) -> None:
    """Leave what says whose id it is, and how it ended."""
    workflow.journal.clear()
    workflow.claims.clear()
    workflow.row = replace(
        workflow.row,
        input="",
        output=None,
        error=None,
        user=None,
        roles=(),
        request_id=None,
        traceparent=None,
        attributes=None,
        erased=True,
    )


def _remove(tables: Tables, workflow: Workflow) -> None:
    row = workflow.row
    del tables.workflows[row.id]
    tables.children.pop(row.id, None)
    if row.parent is not None and row.id in tables.children.get(row.parent, ()):
        tables.children[row.parent].remove(row.id)
