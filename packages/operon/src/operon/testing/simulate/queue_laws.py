"""The laws of queues, counted anew from what the rows say: no limit is exceeded at any instant."""

from __future__ import annotations

from collections import defaultdict

from operon.core.rows import WorkflowRow
from operon.core.states import Status
from operon.stores.memory import Tables
from operon.testing.simulate.verdicts import LawBroken

EARLY = 2e-6
"""Instants are told to the microsecond."""


class QueueLaws:
    """Watches what the queues of one database let run."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._begun: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
        """When something of a queue began, and of which partition."""

    def began(self, row: WorkflowRow) -> None:
        """Note that something was let run."""
        if row.queue is not None:
            self._begun[row.queue].append((self._tables.clock(), row.partition))

    def judge(self, row: WorkflowRow) -> None:
        """Hold its queue, as it stands when all that was let run together runs, against its limits."""
        if row.queue is None:
            return
        line = self._tables.queues[row.queue]
        limits, began = line.limits, self._begun[row.queue]
        running = [
            it.row
            for it in self._tables.workflows.values()
            if it.row.queue == row.queue and it.row.status is Status.RUNNING
        ]
        here = sum(1 for it in running if it.executor == row.executor)
        beside = sum(1 for it in running if it.partition == row.partition)
        since = self._tables.clock() + EARLY
        lately = sum(1 for at, _ in began if at > since - (limits.period or 0.0))
        own = sum(1 for at, it in began if it == row.partition and at > since - (limits.partition_period or 0.0))
        counts = (
            ("run", len(running), limits.concurrency),
            (f"run in executor {row.executor}", here, limits.worker_concurrency),
            (f"of partition {row.partition!r} run", beside, limits.partition_concurrency),
            (f"began within {limits.period} s", lately, limits.rate),
            (f"of partition {row.partition!r} began within {limits.partition_period} s", own, limits.partition_rate),
        )
        for what, count, limit in counts:
            if limit is not None and count > limit:
                raise LawBroken(f"Of the queue {row.queue!r}, {count} {what}, and {limit} may.")
        if line.paused:
            raise LawBroken(f"{row.id} began while its queue {row.queue!r} is paused.")
