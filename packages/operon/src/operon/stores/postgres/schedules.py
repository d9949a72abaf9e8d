"""The commands about schedules: a turn is taken, and what it starts is inserted, in one commit."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from operon.core import commands as c
from operon.core.states import Status, status_of
from operon.core.timetable import (
    LIVE,
    Agenda,
    Fired,
    ScheduleRow,
    advanced,
    overlap,
    skipped,
    spelled,
    started,
    unspelled,
)
from operon.stores.postgres import queues, writes

if TYPE_CHECKING:
    from operon.core.timetable import Firing
    from operon.stores.postgres.session import Row, Session


def listing(session: Session, command: c.Schedules) -> tuple[ScheduleRow, ...]:
    """By name."""
    return tuple(map(_row, session.rows("schedules", name=command.name)))


def keep(session: Session, command: c.KeepSchedule) -> bool:
    """See `KeepSchedule`; sent again after its answer was lost, it finds what it wrote."""
    name = "plant_schedule" if command.row.turn == 1 else "keep_schedule"
    if session.rows(name, **spelled(command.row)):
        return True
    return command.row in listing(session, c.Schedules(command.row.plan.name))


def forget(session: Session, command: c.ForgetSchedule) -> bool:
    """See `ForgetSchedule`."""
    return bool(session.rows("forget_schedule", name=command.name))


def due(session: Session, command: c.Due) -> Agenda:
    """See `Due`."""
    rows = session.rows("due_schedules", limit=command.limit, **mine(command.fires))
    return Agenda(rows[0]["now"], tuple(_row(row) for row in rows if row["name"] is not None))


def mine(fires: c.Fires) -> Row:
    """Spell which schedules a process fires."""
    return {"schedules": list(fires.schedules), "functions": list(fires.functions)}


def fire(session: Session, command: c.Fire) -> Fired | None:
    """See `Fire`."""
    with session.connection.transaction():
        found = session.rows("turn", name=command.name)
        row = _row(found[0]) if found else None
        if row is None or row.turn != command.turn or row.paused:
            return None
        row = advanced(row, command.next_at)
        ids: list[str] = []
        cancelled = False
        for firing in command.firings:
            status, attempts = _standing(session, row.last, locked=firing.overlap != "skip")
            live, what = status in LIVE, overlap(firing, status, attempts)
            if what == "skip" and live:
                row = skipped(row, firing)
                continue
            made = _start(session, firing)
            if made and what == "replace" and row.last is not None:
                cancelled |= bool(queues.cancel(session, row.last))
            if made and what == "queue" and live:
                session.rows("chain", id=firing.row.id, awaited=row.last)
            row = started(row, firing)
            ids.append(firing.row.id)
        session.rows("keep_schedule", **spelled(row))
    return Fired(tuple(ids), cancelled)


def _standing(session: Session, key: str | None, *, locked: bool) -> tuple[Status | None, int]:
    """Where the one before stands, and how often it was begun; locked for whoever waits for its end, or cancels it."""
    found = session.rows("predecessor" if locked else "last_status", id=key) if key is not None else []
    return (status_of(found[0]["status"]), found[0]["attempts"]) if found else (None, 0)


def _start(session: Session, firing: Firing) -> bool:
    """Insert a workflow; False when its id was there."""
    answer = writes.start(session, firing.row) or writes.fetch(session, firing.row)
    return answer is not None and answer.created


def _row(row: Row) -> ScheduleRow:
    values: dict[str, Any] = {
        name: value.timestamp() if isinstance(value, datetime) else value for name, value in row.items()
    }
    return unspelled(values)
