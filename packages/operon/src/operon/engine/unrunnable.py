"""Rows that are ready and that nothing in this process can run: named once each, so that they are not forgotten."""

from __future__ import annotations

import logging

from operon.core.commands import Find, Op, ask
from operon.core.host import Host
from operon.core.rows import Filter, WorkflowRow
from operon.core.states import Status
from operon.engine.program import Program

log = logging.getLogger("operon")
SEEN = 100
"""How many of the newest waiting rows are looked at."""


class Unrunnable:
    """What this process lacks for rows that are ready; others may have it, so a row is left alone."""

    def __init__(self, host: Host, program: Program) -> None:
        self._host = host
        self._program = program
        self._named: set[str] = set()
        self._patience = 1
        self._beats = 0

    def look(self, *, due: bool) -> Op[None]:
        """Count a heartbeat; when something was due at two in a row, look what it is, and ever more seldom."""
        if not due:
            self._beats, self._patience = 0, 1
            return
        self._beats += 1
        if self._beats <= self._patience:
            return
        self._beats, self._patience = 0, min(2 * self._patience, 64)
        waiting = Filter(status=(Status.QUEUED, Status.WAITING), limit=SEEN)
        now = self._host.now()
        for row in (yield from ask(Find(waiting))):
            if row.ready_at is not None and row.ready_at <= now and (lack := self._lacking(row)) is not None:
                self._tell(row, lack)

    def _lacking(self, row: WorkflowRow) -> str | None:
        program = self._program
        if row.name not in program.functions:
            return f"no function is recorded as {row.name!r}"
        if row.instance is not None and row.instance not in program.instances():
            return f"no object is registered as {row.instance!r}"
        if row.pin is not None and row.pin != self._host.version:
            return f"{row.name} is pinned to version {row.pin!r}, and this is {self._host.version!r}"
        return None

    def _tell(self, row: WorkflowRow, lack: str) -> None:
        if lack not in self._named:
            self._named.add(lack)
            log.warning(
                "%s is ready, and cannot run in this process: %s. It stays %s until a process that has it is launched.",
                row.id,
                lack,
                row.status.value,
            )
