"""Rows that somebody else keeps locked, as a support script does that was forgotten: only who wants them waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec.structs import replace

from operon.core.commands import Advance, Cancel, Command, Start
from operon.core.states import Status
from operon.stores.memory import Tables
from operon.stores.memory.claiming import wakes
from operon.testing.simulate.verdicts import LawBroken

T = TypeVar("T")
PROMPT = 4.0
"""Seconds within which what is ready is begun, where nothing else goes wrong."""
LONG = 2 * PROMPT
"""Seconds for which a row is kept locked."""


class Locks:
    """The workflows and executors of one store whose rows are locked."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.held: set[str | int] = set()
        """Their ids."""
        self._freed: dict[str | int, float] = {}

    def release(self, key: str | int) -> None:
        """Give a row free."""
        self.held.discard(key)
        self._freed[key] = self._tables.clock()

    def bars(self, command: Command[Any]) -> bool:
        """Whether a command has to wait until somebody gives a row free; no service does, for it goes on without it."""
        if not self.held:
            return False
        if isinstance(command, Advance):
            return command.workflow_id in self.held
        if isinstance(command, Cancel):
            return any(key in self.held for key in self._tree(command.workflow_id))
        if isinstance(command, Start):
            guard, holders = command.row.parent, self._tables.workflows.values()
            rivals = (it.row.id for it in holders if command.row.replace and it.row.dedupe == command.row.dedupe)
            return (guard is not None and guard.workflow_id in self.held) or any(key in self.held for key in rivals)
        return False

    def pass_by(self, apply: Callable[[], T]) -> T:
        """Change everything but what is locked."""
        workflows = {key: it for key, it in self._tables.workflows.items() if key in self.held}
        rows = {key: (replace(it.row), it.awaits) for key, it in workflows.items()}
        executors = {key: it for key, it in self._tables.executors.items() if key in self.held}
        answer = apply()
        for key, it in workflows.items():
            before, awaits = rows[key]
            if it.row != before:
                it.row, it.awaits = before, awaits
        self._tables.executors |= executors
        return answer

    def judge(self) -> None:
        """See to it that others were not kept waiting, while something was locked for long."""
        since = self._tables.clock() - PROMPT
        for key, workflow in self._tables.workflows.items():
            row = workflow.row
            ready = row.ready_at is not None and row.ready_at <= since
            if row.status is Status.WAITING and not ready:
                loud = (it for it in workflow.awaits if wakes(self._tables, workflow, it))
                targets = (self._tables.workflows[it].row for it in loud)
                ready = any(it.ended_at is not None and it.ended_at <= since for it in targets)
            free = key not in self.held and self._freed.get(key, since) <= since
            if ready and row.status in {Status.QUEUED, Status.WAITING} and free and row.queue is None:
                raise LawBroken(f"{key} is ready, and waits for a lock on {self.held}.")

    def _tree(self, root: str) -> list[str]:
        tree = [root]
        for key in tree:
            tree += self._tables.children.get(key, ())
        return tree
