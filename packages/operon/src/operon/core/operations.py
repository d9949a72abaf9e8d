"""What is shown of a workflow's operations: those recorded, when each began and ended, and those that go on.

A wait is one operation, though its journal has two records, or one of its beginning or its end only; so is a step with
all its attempts. What goes on is never shown as done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from operon.core.host import Host
from operon.core.journal import WAKE
from operon.core.records import at, at_all, read_error, read_value
from operon.core.rows import Entry, Kind, WorkflowRow
from operon.types import Status, StepRecord

HIDDEN = frozenset({Kind.ATTEMPT, Kind.WAKE, Kind.TIMER})


class History:
    """A workflow's journal, as it is shown.

    Args:
        host: the app, or the client, that asks.
        row: the workflow.
        entries: its journal, by ordinal.
        awaits: the ids of those it is parked for.
        now: when it was looked at.
    """

    def __init__(
        self,
        host: Host,
        row: WorkflowRow,
        entries: Sequence[Entry],
        awaits: Sequence[str],
        now: float,
    ) -> None:
        self._host = host
        self._row = row
        self._entries = entries
        self._awaits = awaits
        self._function = host.function(row.name)
        self._now = now
        self._wakes = {each.position.removesuffix(WAKE): each for each in entries if each.position.endswith(WAKE)}
        self._ends: dict[str, float] = {}
        """Of each branch, when its latest operation ended."""

    def records(self) -> list[StepRecord]:
        """List what was done, in the order in which it was completed, and what goes on."""
        shown = [self._recorded(entry) for entry in self._entries if self._is_operation(entry)]
        return [*shown, *self._retried(), *self._awaited()]

    @staticmethod
    def _is_operation(entry: Entry) -> bool:
        return entry.kind not in HIDDEN and not entry.position.endswith(WAKE)

    def _recorded(self, entry: Entry) -> StepRecord:
        branch = entry.position.rpartition("/")[0]
        record = self._step(entry)
        if entry.kind is Kind.SLEEP:
            record = self._slept(entry, record)
        elif entry.kind is Kind.RESULT:  # it is recorded when it is over; it began when the branch came to it
            since = self._ends.get(branch, self._row.started_at)
            record = replace(record, started_at=at(min(since or entry.started_at, entry.ended_at)))
        self._ends[branch] = entry.ended_at if record.ended_at is None else record.ended_at.timestamp()
        return record

    def _step(self, entry: Entry) -> StepRecord:
        own = self._host.function(entry.name) if entry.kind in (Kind.STEP, Kind.TRANSACTION) else None
        done = Status.CANCELLED if entry.kind is Kind.CANCELLED else Status.SUCCEEDED
        return StepRecord(
            position=entry.position,
            kind=entry.kind,
            name=entry.name,
            status=Status.FAILED if entry.error is not None else done,
            output=read_value(self._host, own, entry.output),
            error=read_error(self._host, own or self._function, entry.error),
            started_at=at_all(entry.started_at),
            ended_at=at_all(entry.ended_at),
            attempt=entry.attempt,
            child=entry.child,
            version=entry.version,
        )

    def _slept(self, entry: Entry, record: StepRecord) -> StepRecord:
        until = _number(entry.output)
        record = replace(record, ready_at=at(until))
        if (woken := self._wakes.get(entry.position)) is not None:
            status = Status.CANCELLED if woken.kind is Kind.CANCELLED else Status.SUCCEEDED
            return replace(record, status=status, ended_at=at(woken.ended_at))
        if until <= min(self._now, self._row.ended_at or self._now):
            return replace(record, ended_at=at(max(until, entry.started_at)))
        return self._going_on(record)

    def _going_on(self, record: StepRecord) -> StepRecord:
        """See an operation that has no end as one that waits, or that its workflow's end has ended."""
        if self._row.status.ended:
            return replace(record, status=Status.CANCELLED, ended_at=at_all(self._row.ended_at))
        return replace(record, status=Status.WAITING, ended_at=None)

    def _retried(self) -> Iterator[StepRecord]:
        """Steps that failed and are tried again."""
        done = {entry.position for entry in self._entries}
        latest: dict[str, Entry] = {}
        first: dict[str, Entry] = {}
        for entry in self._entries:
            position = entry.position.partition("#")[0]
            if entry.kind is Kind.ATTEMPT and position not in done:
                latest[position] = entry
                first.setdefault(position, entry)
        for position, entry in latest.items():
            ready_at = _number(entry.output)
            record = replace(
                self._step(entry),
                position=position,
                kind=Kind.STEP,
                output=None,
                started_at=at_all(first[position].started_at),
                ready_at=at(ready_at) if ready_at > self._now else None,
                attempt=entry.attempt + 1,
            )
            record = self._going_on(record)
            if self._row.status is Status.RUNNING and ready_at <= self._now:
                record = replace(record, status=Status.RUNNING)
            yield record

    def _awaited(self) -> Iterator[StepRecord]:
        """Workflows that this one is parked for; it comes back to the same place then."""
        if self._row.status is not Status.WAITING:
            return
        forked = any("/" in entry.position for entry in self._entries)
        numbers = (int(it.position) for it in self._entries if it.position.isdecimal())
        position = "" if forked or len(self._awaits) > 1 else str(max(numbers, default=0) + 1)
        for awaited in self._awaits:
            yield StepRecord(
                position=position,
                kind=Kind.RESULT,
                name="result",
                status=Status.WAITING,
                output=None,
                error=None,
                started_at=at_all(self._ends.get("", self._row.started_at)),
                ended_at=None,
                attempt=1,
                child=awaited,
                version=self._row.version,
            )


def _number(text: str | None) -> float:
    """Read a recorded instant; one that cannot be read never comes."""
    try:
        return float(text or 0)
    except ValueError:
        return float("inf")
