"""Asking about workflows: describe, steps, find, count, retrieve; and cancel.

What a workflow's body is told is recorded: a replay is told the same, whatever has become of them since.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from msgspec import Struct
from msgspec import json as structs
from msgspec.structs import replace

from operon.core import apps, records
from operon.core.codec.signature import digest
from operon.core.commands import Awaited, Cancel, Count, Describe, Executors, Find, Load, Op, ask
from operon.core.function import Declared
from operon.core.given import instant, labels, text, whole
from operon.core.host import Host
from operon.core.ids import possible
from operon.core.once import looking, once
from operon.core.operations import History
from operon.core.results import Handle, erased, unknown
from operon.core.rows import Entry, Filter, Outcome, WorkflowRow
from operon.core.states import Status
from operon.errors import BadValue
from operon.types import StepRecord, WorkflowRecord

R = TypeVar("R")
"""Children that are looked at."""


def retrieve(host: Host, workflow_id: str, function: Declared | None = None) -> Op[Handle[Any]]:
    """Give the handle of a workflow that was started before.

    Args:
        workflow_id: its id.
        function: the workflow it runs; gives the handle its type. Otherwise the recorded name says it.

    Raises:
        NotFound: no workflow has this id; RecordDeleted, one of its kind: it had ended, and its record was deleted.
    """

    def name() -> Op[str]:
        return (yield from _row(workflow_id)).name

    known = yield from looking(host, "retrieve", workflow_id, str, name)
    return Handle(host, workflow_id, function.function if function is not None else host.function(known))


def describe(host: Host, workflow_id: str) -> Op[WorkflowRecord]:
    """Tell all that is known of a workflow.

    Raises:
        NotFound: no workflow has this id; RecordDeleted, one of its kind: it had ended, and its record was deleted.
    """

    def look() -> Op[Described]:
        row = yield from _row(workflow_id)
        peers = () if row.executor is None else (yield from ask(Executors()))
        peer = next((each for each in peers if each.id == row.executor), None)
        return Described(row) if peer is None else Described(row, peer.host.partition(":")[0], peer.pid)

    seen = yield from looking(host, "describe", workflow_id, Described, look)
    return dataclasses.replace(records.record(host, seen.row), host=seen.host, pid=seen.pid)


class Described(Struct, frozen=True):
    """A workflow, and who runs it."""

    row: WorkflowRow
    host: str | None = None
    pid: int | None = None


def steps(host: Host, workflow_id: str) -> Op[list[StepRecord]]:
    """List a workflow's operations: those recorded, in the order in which they were completed, and what waits.

    A step or transaction in its first attempt is not listed before it is recorded.

    Raises:
        NotFound: no workflow has this id; RecordDeleted, one of its kind: it had ended, and its record was deleted.
    """

    def look() -> Op[Seen]:
        row = yield from _row(workflow_id)
        entries = yield from ask(Load(workflow_id))
        return Seen(row, entries, () if row.status.ended else (yield from ask(Awaited(workflow_id))), host.now())

    seen = yield from looking(host, "steps", workflow_id, Seen, look)
    return History(host, seen.row, seen.entries, seen.awaits, seen.now).records()


class Seen(Struct, frozen=True):
    """A workflow's journal, what the workflow is parked for, and when that was looked at."""

    row: WorkflowRow
    entries: tuple[Entry, ...]
    awaits: tuple[str, ...]
    now: float


def find(
    host: Host,
    *,
    name: str | None = None,
    status: str | Sequence[str] | None = None,
    parent: str | None = None,
    user: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    attributes: Mapping[str, Any] | None = None,
    queue: str | None = None,
    limit: int = 100,
    after: WorkflowRecord | None = None,
) -> Op[list[WorkflowRecord]]:
    """Find workflows, newest first.

    Args:
        name: the recorded name of their function.
        status: one state, or several.
        parent: the id of the workflow that started them.
        user: on whose behalf they run.
        since: created then or later.
        until: created before then.
        attributes: labels they all have.
        queue: the queue they were enqueued in.
        limit: how many at most.
        after: go on behind this one, the last of the page before.

    Raises:
        BadValue: a state that does not exist, a datetime without a time zone, a limit below one, or what no record has.
    """
    page = replace(
        _wanted(_texts(name=name, parent=parent, user=user, queue=queue), status, (since, until), attributes),
        limit=whole("limit", limit, least=1),
        after=None if after is None else (after.created_at.timestamp(), after.id),
    )
    rows = yield from looking(host, "find", _digest(page), tuple[WorkflowRow, ...], lambda: ask(Find(page)))
    return [records.record(host, row) for row in rows]


def count(
    host: Host,
    *,
    name: str | None = None,
    status: str | Sequence[str] | None = None,
    parent: str | None = None,
    user: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    attributes: Mapping[str, Any] | None = None,
    queue: str | None = None,
) -> Op[int]:
    """Count workflows; takes what `find` takes."""
    wanted = _wanted(_texts(name=name, parent=parent, user=user, queue=queue), status, (since, until), attributes)
    return (yield from looking(host, "count", _digest(wanted), int, lambda: ask(Count(wanted))))


def _digest(wanted: Filter) -> str:
    return digest(structs.encode(wanted).decode())


def cancel(host: Host, workflow_id: str, *, children: bool = True) -> Op[None]:
    """Cancel a workflow and what descends from it: once this returns, none of them records anything more.

    In this process none of them begins another step, but for its clean-up. A body is interrupted by `Cancelled` at its
    await, or, where it blocks, at its next verb. What has ended is left as it is.

    Raises:
        NotFound: no workflow has this id; RecordDeleted, one of its kind: it had ended, and its record was deleted.
        NotInWorkflow: a transaction is open.
    """

    def work(_: str) -> Op[None]:
        yield from _row(workflow_id)
        apps.cancelled(host, (yield from ask(Cancel(workflow_id, children))))

    yield from once(host, "cancel", workflow_id, type(None), work)


def _row(workflow_id: str) -> Op[WorkflowRow]:
    row: WorkflowRow | None = (yield from ask(Describe(workflow_id))) if possible(workflow_id) else None
    if row is None:
        raise unknown(workflow_id)
    if row.erased:
        raise erased(workflow_id, Outcome(row.status, erased=row.ended_at))
    return row


def _texts(**given: str | None) -> dict[str, str]:
    return {each: text(value, f"{each}=") for each, value in given.items() if value is not None}


def _wanted(
    texts: Mapping[str, str],
    status: str | Sequence[str] | None,
    times: tuple[datetime | None, datetime | None],
    attributes: Mapping[str, Any] | None,
) -> Filter:
    since, until = times
    return Filter(
        name=texts.get("name"),
        parent=texts.get("parent"),
        user=texts.get("user"),
        queue=texts.get("queue"),
        status=_statuses(status),
        since=None if since is None else instant(since, "since="),
        until=None if until is None else instant(until, "until="),
        attributes=_labels(attributes),
    )


def _statuses(status: str | Sequence[str] | None) -> tuple[Status, ...] | None:
    if status is None:
        return None
    names = (status,) if isinstance(status, str) else tuple(status)
    unknown = [name for name in names if name not in tuple(Status)]
    if unknown:
        raise BadValue(f"{unknown[0]!r} is no state; there are {', '.join(Status)}.")
    return tuple(Status(name) for name in names)


def _labels(attributes: Mapping[str, Any] | None) -> tuple[tuple[str, str], ...]:
    wanted: dict[str, Any] = {} if attributes is None else json.loads(labels(attributes))
    return tuple((name, json.dumps(value, sort_keys=True)) for name, value in wanted.items())
