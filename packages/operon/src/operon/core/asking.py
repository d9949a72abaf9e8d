"""Asking about workflows: describe, steps, find, count, retrieve; and cancel."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from operon.core import context
from operon.core.commands import Cancel, Count, Describe, Find, Load, Op, ask
from operon.core.function import Declared, Function
from operon.core.host import Host
from operon.core.ids import possible
from operon.core.journal import note, recall, settle
from operon.core.results import Handle, erased, unknown
from operon.core.rows import Entry, Filter, Kind, Outcome, WorkflowRow
from operon.core.states import Status
from operon.errors import BadValue, NotDeserializable
from operon.types import StepRecord, WorkflowRecord

R = TypeVar("R")
HIDDEN = frozenset({Kind.ATTEMPT, Kind.WAKE})


def retrieve(host: Host, workflow_id: str, function: Declared | None = None) -> Op[Handle[Any]]:
    """Give the handle of a workflow that was started before.

    Args:
        workflow_id: its id.
        function: the workflow it runs; gives the handle its type. Otherwise the recorded name says it.

    Raises:
        NotFound: no workflow has this id; RecordDeleted, one of its kind: it had ended, and its record was deleted.
    """
    row = yield from _row(workflow_id)
    return Handle(host, workflow_id, function.function if function is not None else host.function(row.name))


def describe(host: Host, workflow_id: str) -> Op[WorkflowRecord]:
    """Tell all that is known of a workflow.

    Raises:
        NotFound: no workflow has this id; RecordDeleted, one of its kind: it had ended, and its record was deleted.
    """
    return record(host, (yield from _row(workflow_id)))


def steps(host: Host, workflow_id: str) -> Op[list[StepRecord]]:
    """List a workflow's recorded operations in the order in which they were completed.

    Raises:
        NotFound: no workflow has this id; RecordDeleted, one of its kind: it had ended, and its record was deleted.
    """
    row = yield from _row(workflow_id)
    function = host.function(row.name)
    entries = yield from ask(Load(workflow_id))
    return [_step(host, function, entry) for entry in entries if entry.kind not in HIDDEN]


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
        BadValue: a state that does not exist, a datetime without a time zone, a limit below one.
    """
    place = None if after is None else (after.created_at.timestamp(), after.id)
    if limit < 1:
        raise BadValue(f"find(limit={limit}) must be at least 1.")
    wanted = Filter(
        name,
        _statuses(status),
        parent,
        user,
        _instant(since),
        _instant(until),
        _labels(attributes),
        limit,
        place,
        queue,
    )
    return [record(host, row) for row in (yield from ask(Find(wanted)))]


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
    del host
    wanted = Filter(
        name, _statuses(status), parent, user, _instant(since), _instant(until), _labels(attributes), queue=queue
    )
    return (yield from ask(Count(wanted)))


def cancel(host: Host, workflow_id: str, *, children: bool = True) -> Op[None]:
    """Cancel a workflow and what descends from it: once this returns, none of them records anything more.

    Its body is interrupted by `Cancelled` at its next verb. What has ended is left as it is.

    Raises:
        NotFound: no workflow has this id; RecordDeleted, one of its kind: it had ended, and its record was deleted.
    """
    yield from _row(workflow_id)
    branch = context.current()
    if branch is None:
        yield from ask(Cancel(workflow_id, children))
        host.nudge(cancelled=True)
        return
    position = branch.advance()
    if (yield from recall(branch, position, Kind.STEP, "cancel", workflow_id)) is not None:
        return
    yield from settle(branch.run)
    yield from ask(Cancel(workflow_id, children))
    host.nudge(cancelled=True)
    branch.run.check()
    entry = Entry(position, branch.run.number(), Kind.STEP, "cancel", workflow_id, "null", version=host.version)
    yield from note(branch.run, entry)


def _row(workflow_id: str) -> Op[WorkflowRow]:
    row: WorkflowRow | None = (yield from ask(Describe(workflow_id))) if possible(workflow_id) else None
    if row is None:
        raise unknown(workflow_id)
    if row.erased:
        raise erased(workflow_id, Outcome(row.status, erased=row.ended_at))
    return row


def _statuses(status: str | Sequence[str] | None) -> tuple[Status, ...] | None:
    if status is None:
        return None
    names = (status,) if isinstance(status, str) else tuple(status)
    unknown = [name for name in names if name not in tuple(Status)]
    if unknown:
        raise BadValue(f"{unknown[0]!r} is no state; there are {', '.join(Status)}.")
    return tuple(Status(name) for name in names)


def _instant(at: datetime | None) -> float | None:
    if at is None:
        return None
    if at.tzinfo is None:
        raise BadValue(f"{at} needs a time zone, such as datetime(..., tzinfo=UTC).")
    return at.timestamp()


def _labels(attributes: Mapping[str, Any] | None) -> tuple[tuple[str, str], ...]:
    return tuple((name, json.dumps(value, sort_keys=True)) for name, value in sorted((attributes or {}).items()))


# ── Records ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def record(host: Host, row: WorkflowRow) -> WorkflowRecord:
    """Show a row to the user: instants as datetimes, values decoded as far as this process can."""
    function = host.function(row.name)
    return WorkflowRecord(
        id=row.id,
        name=row.name,
        status=row.status,
        created_at=_at(row.created_at) or datetime.fromtimestamp(0, UTC),
        started_at=_at(row.started_at),
        ended_at=_at(row.ended_at),
        ready_at=_at(row.ready_at),
        deadline=_at(row.deadline),
        input=read_input(host, function, row.input),
        output=_value(host, function, row.output),
        error=_error(host, function, row.error),
        attempts=row.attempts,
        executor=row.executor,
        version=row.version,
        parent=row.parent,
        root=row.root,
        user=row.user,
        roles=row.roles,
        request_id=row.request_id,
        attributes=json.loads(row.attributes) if row.attributes else {},
        queue=row.queue,
        partition=row.partition,
        priority=row.priority,
        dedupe=row.dedupe,
    )


def _step(host: Host, around: Function | None, entry: Entry) -> StepRecord:
    own = host.function(entry.name) if entry.kind in (Kind.STEP, Kind.TRANSACTION) else None
    return StepRecord(
        position=entry.position,
        kind=entry.kind,
        name=entry.name,
        status="failed" if entry.error is not None else "cancelled" if entry.kind is Kind.CANCELLED else "succeeded",
        output=_value(host, own, entry.output),
        error=_error(host, own or around, entry.error),
        started_at=_at(entry.started_at),
        ended_at=_at(entry.ended_at),
        attempt=entry.attempt,
        child=entry.child,
        version=entry.version,
    )


def _at(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def read_input(host: Host, function: Function | None, text: str) -> dict[str, Any]:
    """Give recorded arguments by name, decoded as far as this process can."""
    try:
        value = host.codec.decode(text) if function is None else function.named(text)
    except NotDeserializable:
        value = json.loads(text)
    return dict(value)


def _value(host: Host, function: Function | None, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return host.codec.decode(text) if function is None else function.signature.decode_result(text)
    except NotDeserializable:
        return json.loads(text)


def _error(host: Host, function: Function | None, text: str | None) -> BaseException | None:
    if text is None or text == "null":
        return None
    return host.codec.decode_error(text, home="") if function is None else function.decode_error(text)
