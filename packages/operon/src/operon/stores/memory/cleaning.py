"""What the commands about clean-ups mean, in plain Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operon.core.rows import Claimed
from operon.core.states import Status
from operon.stores.memory.tables import HOUR, Cleanup, Tables, Workflow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from operon.core import commands as c


def note(workflow: Workflow, now: float) -> None:
    """Note that one is due of what is about to be cancelled, if it had begun."""
    row = workflow.row
    if row.status in (Status.QUEUED, Status.RUNNING, Status.WAITING) and row.attempts > 0:
        workflow.cleanup = Cleanup(now + HOUR, cleaner=row.executor)


def due(tables: Tables, now: float, executor: int) -> Iterator[Workflow]:
    """Those that nobody else is at who lives, the oldest first."""
    living = {peer.id for peer in tables.executors.values() if peer.alive} - {executor}
    for workflow in tables.workflows.values():
        it, row = workflow.cleanup, workflow.row
        if it is not None and it.open(now) and it.cleaner not in living and row.status.ended and not row.erased:
            yield workflow


def clean_up(tables: Tables, command: c.CleanUp) -> tuple[Claimed, ...]:
    """Take some."""
    found = [
        it
        for it in due(tables, tables.clock(), command.executor)
        if it.row.name in command.names
        and not (it.row.id in command.here and it.cleanup is not None and it.cleanup.cleaner == command.executor)
        and (it.row.instance is None or it.row.instance in command.instances)
        and (it.row.pin is None or it.row.pin == command.version)
    ][: command.limit]
    for it in filter(None, (workflow.cleanup for workflow in found)):
        it.cleaner = command.executor
        it.times += 1
    return tuple(Claimed(it.row, tuple(sorted(it.journal.values(), key=lambda entry: entry.ordinal))) for it in found)


def cleaned(tables: Tables, command: c.Cleaned) -> None:
    """If it is still this executor's, or nobody's and cancelled under that claim."""
    workflow = tables.workflows.get(command.workflow_id)
    if workflow is None or workflow.cleanup is None:
        return
    cleaner, claim = workflow.cleanup.cleaner, workflow.row.claim - 1
    if cleaner == command.executor or (cleaner is None and claim == command.claim):
        workflow.cleanup = None
