"""What the commands about schedules mean, in plain Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from operon.core import commands as c
from operon.core.states import Status
from operon.core.timetable import LIVE, Agenda, Fired, ScheduleRow, advanced, overlap, skipped, started
from operon.stores.memory import starting

if TYPE_CHECKING:
    from operon.core.timetable import Firing
    from operon.stores.memory.tables import Tables


def listing(tables: Tables, command: c.Schedules) -> tuple[ScheduleRow, ...]:
    """By name."""
    found = (row for name, row in tables.schedules.items() if command.name in {None, name})
    return tuple(sorted(found, key=lambda row: row.plan.name))


def keep(tables: Tables, command: c.KeepSchedule) -> bool:
    """See `KeepSchedule`."""
    name, there = command.row.plan.name, tables.schedules.get(command.row.plan.name)
    if command.row.turn != (0 if there is None else there.turn) + 1:
        return False
    tables.schedules[name] = command.row
    return True


def forget(tables: Tables, command: c.ForgetSchedule) -> bool:
    """See `ForgetSchedule`."""
    return tables.schedules.pop(command.name, None) is not None


def due(tables: Tables, command: c.Due) -> Agenda:
    """See `Due`."""
    now = tables.clock()
    rows = [row for row in planned(tables, command.fires) if (row.next_at or 0.0) <= now]
    return Agenda(now, tuple(rows[: command.limit]))


def planned(tables: Tables, fires: c.Fires) -> list[ScheduleRow]:
    """The schedules of these that wait for an instant, the next to come first."""
    waiting = (row for row in tables.schedules.values() if not row.paused and row.next_at is not None)
    return sorted(filter(fires.includes, waiting), key=lambda row: (row.next_at, row.plan.name))


def fire(tables: Tables, command: c.Fire) -> Fired | None:
    """See `Fire`."""
    row = tables.schedules.get(command.name)
    if row is None or row.turn != command.turn or row.paused:
        return None
    row = advanced(row, command.next_at)
    ids: list[str] = []
    cancelled = False
    for firing in command.firings:
        last = tables.workflows.get(row.last) if row.last is not None else None
        status = None if last is None else last.row.status
        what = overlap(firing, status, 0 if last is None else last.row.attempts)
        if what == "skip" and status in LIVE:
            row = skipped(row, firing)
            continue
        made = _start(tables, firing, behind=row.last if what == "queue" and status in LIVE else None)
        if made and what == "replace" and last is not None and not last.row.status.ended:
            cancelled |= bool(starting.cancel(tables, c.Cancel(last.row.id)))
        row = started(row, firing)
        ids.append(firing.row.id)
    tables.schedules[command.name] = row
    return Fired(tuple(ids), cancelled)


def _start(tables: Tables, firing: Firing, *, behind: str | None) -> bool:
    """Start what a firing says, parked behind another; False, and it is left as it is, when its id was there."""
    answer = starting.start(tables, c.Start(firing.row))
    if behind is not None and answer.created:
        workflow = tables.workflows[firing.row.id]
        workflow.row = replace(workflow.row, status=Status.WAITING, ready_at=None)
        workflow.awaits = (behind,)
    return answer.created
