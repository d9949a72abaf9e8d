"""What the commands about clean-ups mean, in plain Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from operon.core.rows import Claimed
from operon.core.states import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from operon.core import commands as c
    from operon.stores.memory.store import MemoryStore, Workflow

HOUR = 3600.0
MOST = 3


@dataclass
class Cleanup:
    """What a workflow that ended has to do still."""

    until: float
    times: int = 0
    cleaner: int | None = None

    def open(self, now: float) -> bool:
        """Whether it may still begin."""
        return self.until > now and self.times < MOST


def note(workflow: Workflow, now: float) -> None:
    """Note that one is due of what is about to be cancelled, if it had begun."""
    row = workflow.row
    if row.status in (Status.QUEUED, Status.RUNNING, Status.WAITING) and row.attempts > 0:
        workflow.cleanup = Cleanup(now + HOUR, cleaner=row.executor)


def due(store: MemoryStore, now: float, executor: int) -> Iterator[Workflow]:
    """Those that nobody else is at who lives, the oldest first."""
    living = {peer.id for peer in store.executors.values() if peer.alive} - {executor}
    for workflow in store.workflows.values():
        it, row = workflow.cleanup, workflow.row
        if it is not None and it.open(now) and it.cleaner not in living and row.status.ended and not row.erased:
            yield workflow


def clean_up(store: MemoryStore, command: c.CleanUp) -> tuple[Claimed, ...]:
    """Take some."""
    found = [
        it
        for it in due(store, store.clock(), command.executor)
        if it.row.name in command.names
        and not (it.row.id in command.here and it.cleanup is not None and it.cleanup.cleaner == command.executor)
        and (it.row.instance is None or it.row.instance in command.instances)
        and (it.row.pin is None or it.row.pin == command.version)
    ][: command.limit]
    for it in filter(None, (workflow.cleanup for workflow in found)):
        it.cleaner = command.executor
        it.times += 1
    return tuple(Claimed(it.row, tuple(sorted(it.journal.values(), key=lambda entry: entry.ordinal))) for it in found)


def cleaned(store: MemoryStore, command: c.Cleaned) -> None:
    """If it is still this executor's."""
    workflow = store.workflows.get(command.workflow_id)
    if workflow is not None and workflow.cleanup is not None and workflow.cleanup.cleaner == command.executor:
        workflow.cleanup = None
