"""What is shown of rows: instants as datetimes, values decoded as far as this process can.

A row that cannot be read is shown all the same and says in place what is wrong with it: one of them must not keep
anybody from seeing the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, cast

from operon.core.function import Function
from operon.core.host import Host
from operon.core.rows import WorkflowRow
from operon.errors import NotDeserializable
from operon.types import Unreadable, WorkflowRecord

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
MARGIN = 86400.0
"""Seconds that an instant keeps from the ends of the calendar, so that every time zone can show it."""


def at(seconds: float, zone: tzinfo = UTC) -> datetime:
    """See an instant as a datetime; one that no calendar has is shown as its end."""
    if not seconds > (FIRST - EPOCH).total_seconds() + MARGIN:
        return FIRST
    if not seconds < (LAST - EPOCH).total_seconds() - MARGIN:
        return LAST
    return (EPOCH + timedelta(seconds=seconds)).astimezone(zone)


def record(host: Host, row: WorkflowRow) -> WorkflowRecord:
    """Show a row to the user."""
    function = host.function(row.name)
    error = read_error(host, function, row.error)
    return WorkflowRecord(
        id=row.id,
        name=row.name,
        status=row.status,
        created_at=at(row.created_at),
        started_at=at_all(row.started_at),
        ended_at=at_all(row.ended_at),
        ready_at=at_all(row.ready_at),
        deadline=at_all(row.deadline),
        input=read_input(host, function, row.input),
        output=read_value(host, function, row.output),
        error=NotDeserializable(row.damage) if error is None and row.damage is not None else error,
        attempts=row.attempts,
        executor=row.executor,
        version=row.version,
        parent=row.parent,
        root=row.root,
        user=row.user,
        roles=row.roles,
        request_id=row.request_id,
        attributes=_object(row.attributes),
        queue=row.queue,
        partition=row.partition,
        priority=row.priority,
        dedupe=row.dedupe,
        pin=row.pin,
    )


def at_all(seconds: float | None) -> datetime | None:
    """See an instant as a datetime, if there is one."""
    return None if seconds is None else at(seconds)


def read_input(host: Host, function: Function | None, text: str) -> dict[str, Any]:
    """Give recorded arguments by name, decoded as far as this process can."""
    try:
        return dict(host.codec.decode(text) if function is None else function.named(text))
    except Exception:  # a record that is damaged, or of another time, may fail in any way
        return _object(text)


def _object(text: str | None) -> dict[str, Any]:
    """Give a JSON object as it is recorded; what is none has a place in one."""
    found: object = {} if text is None else _recorded(text)
    return dict(cast("Mapping[str, Any]", found)) if isinstance(found, Mapping) else {"?": found}


def read_value(host: Host, function: Function | None, text: str | None) -> Any:
    """Give a recorded result, decoded as far as this process can."""
    if text is None:
        return None
    try:
        return host.codec.decode(text) if function is None else function.signature.decode_result(text)
    except Exception:  # likewise
        return _recorded(text)


def _recorded(text: str) -> Any:
    """Give a record as JSON, where it is some."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return Unreadable(text, f"{error}")


def read_error(host: Host, function: Function | None, text: str | None) -> BaseException | None:
    """Rebuild a recorded error as far as this process can; one that is no record at all is a NotDeserializable."""
    if text is None or text == "null":
        return None
    try:
        return host.codec.decode_error(text, home="") if function is None else function.decode_error(text)
    except Exception as unreadable:  # likewise
        return unreadable if function is None else read_error(host, None, text)
