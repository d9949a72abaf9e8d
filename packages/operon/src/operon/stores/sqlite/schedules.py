"""How the commands about schedules are answered in SQL, within the one writer's transaction."""

from __future__ import annotations

import json
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

if TYPE_CHECKING:
    from collections.abc import Callable

    from operon.core.rows import Started
    from operon.stores.sqlite.connection import Connection


def listing(db: Connection, command: c.Schedules, _now: float) -> tuple[ScheduleRow, ...]:
    """By name."""
    return tuple(map(unspelled, db.run("schedules", name=command.name)))


def keep(db: Connection, command: c.KeepSchedule, _now: float) -> bool:
    """See `KeepSchedule`."""
    return db.changes("keep_schedule", **spelled(command.row)) == 1


def forget(db: Connection, command: c.ForgetSchedule, _now: float) -> bool:
    """See `ForgetSchedule`."""
    return db.changes("forget_schedule", name=command.name) == 1


def due(db: Connection, command: c.Due, now: float) -> Agenda:
    """See `Due`."""
    rows = db.run("due_schedules", now=now, limit=command.limit, **mine(command.fires))
    return Agenda(now, tuple(map(unspelled, rows)))


def planned(db: Connection, fires: c.Fires) -> float | None:
    """When the next of these schedules is due."""
    row = db.one("next_schedule", **mine(fires)) if fires != c.Fires() else None
    return None if row is None else float(row[0])


def mine(fires: c.Fires) -> dict[str, Any]:
    """Spell which schedules a process fires."""
    return {"schedules": json.dumps(fires.schedules), "functions": json.dumps(fires.functions)}


def fire(
    db: Connection, command: c.Fire, now: float, start: Callable[[Connection, c.Start, float], Started]
) -> Fired | None:
    """See `Fire`; `start` inserts a workflow."""
    found = db.one("schedules", name=command.name)
    row = None if found is None else unspelled(found)
    if row is None or row.turn != command.turn or row.paused:
        return None
    row = advanced(row, command.next_at)
    ids: list[str] = []
    cancelled = 0
    for firing in command.firings:
        status, attempts = _standing(db, row.last)
        live, what = status in LIVE, overlap(firing, status, attempts)
        if what == "skip" and live:
            row = skipped(row, firing)
            continue
        made = start(db, c.Start(firing.row), now).created
        if made and what == "replace" and status is not None and not status.ended:
            cancelled += db.changes("cancel", id=row.last, children=True, now=now)
        if made and what == "queue" and live:
            db.run("chain", id=firing.row.id)
            db.run("await", id=firing.row.id, awaits=json.dumps([row.last]))
        row = started(row, firing)
        ids.append(firing.row.id)
    db.run("keep_schedule", **spelled(row))
    return Fired(tuple(ids), cancelled > 0)


def _standing(db: Connection, key: str | None) -> tuple[Status | None, int]:
    """Where a workflow stands, and how often it was begun."""
    row = None if key is None else db.one("describe", id=key)
    return (None, 0) if row is None else (status_of(row["status"]), row["attempts"])
