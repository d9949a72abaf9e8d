"""The laws of retention: what is kept is there, and what is deleted was over for long enough; then a key is free."""

from __future__ import annotations

from typing import Any

from operon.core.commands import Command, Sweep
from operon.core.rows import WorkflowRow
from operon.core.states import Status
from operon.engine.settings import Settings
from operon.stores.memory import Tables
from operon.testing.simulate.verdicts import LawBroken

KEEP, KEEP_KEYS = 2.0, 4.0
"""Seconds after their end for which records are kept, and keys."""
SWEPT = ("plain", "sleeper", "thinker", "retrying", "parent", "crowd")
"""Whose records are deleted."""
SETTINGS = Settings(keep=dict.fromkeys((Status.SUCCEEDED, Status.FAILED, Status.CANCELLED), KEEP), keep_keys=KEEP_KEYS)


class RetentionLaws:
    """Watches what of one database is deleted."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def erased(self, old: WorkflowRow, new: WorkflowRow, command: Command[Any]) -> bool:
        """Whether what has ended was shrunk to its key; judges whether it might be."""
        if not new.erased or old.erased or not isinstance(command, Sweep):
            return False
        parent = self._tables.workflows.get(old.parent or "")
        if parent is not None and not parent.row.erased:
            raise LawBroken(f"{old.id} was erased, and its parent {parent.row.id} was not.")
        self._judge(old, KEEP)
        return True

    def removed(self, old: WorkflowRow, command: Command[Any]) -> None:
        """See a key go."""
        if not isinstance(command, Sweep) or not old.erased:
            raise LawBroken(f"{old.id}, {old.status}, is gone after {command}.")
        self._judge(old, KEEP_KEYS)

    def _judge(self, old: WorkflowRow, keep: float) -> None:
        if not old.status.ended or old.ended_at is None or old.ended_at > self._tables.clock() - keep:
            raise LawBroken(
                f"{old.id} was {old.status} at {old.ended_at}; it is {self._tables.clock()}, and it is gone."
            )
