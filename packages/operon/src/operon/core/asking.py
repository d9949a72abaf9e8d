"""Asking about workflows: describe, steps, find, count, retrieve; and cancel."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from msgspec.structs import replace

from operon.core import context, records
from operon.core.commands import Awaited, Cancel, Count, Describe, Executors, Find, Load, Op, ask
from operon.core.function import Declared
from operon.core.given import instant, labels, text, whole
from operon.core.host import Host
from operon.core.ids import possible
from operon.core.journal import note, recall, settle
from operon.core.operations import History
from operon.core.results import Handle, erased, unknown
from operon.core.rows import Entry, Filter, Kind, Outcome, WorkflowRow
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
    row = yield from _row(workflow_id)
    return Handle(host, workflow_id, function.function if function is not None else host.function(row.name))


def describe(host: Host, workflow_id: str) -> Op[WorkflowRecord]:
    """Tell all that is known of a workflow.

    Raises:
        NotFound: no workflow has this id; RecordDeleted, one of its kind: it had ended, and its record was deleted.
    """
    record = records.record(host, (yield from _row(workflow_id)))
    if record.executor is None:
        return record
    peer = next((each for each in (yield from ask(Executors())) if each.id == record.executor), None)
    return record if peer is None else dataclasses.replace(record, host=peer.host.partition(":")[0], pid=peer.pid)


def steps(host: Host, workflow_id: str) -> Op[list[StepRecord]]:
    """List a workflow's operations: those recorded, in the order in which they were completed, and what goes on.

    Raises:
        NotFound: no workflow has this id; RecordDeleted, one of its kind: it had ended, and its record was deleted.
    """
    row = yield from _row(workflow_id)
    entries = yield from ask(Load(workflow_id))
    if row.status.ended:
        return History(host, row, entries).records()
    return History(host, row, entries, (yield from ask(Awaited(workflow_id)))).records()


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
    return [records.record(host, row) for row in (yield from ask(Find(page)))]


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
    wanted = _wanted(_texts(name=name, parent=parent, user=user, queue=queue), status, (since, until), attributes)
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
