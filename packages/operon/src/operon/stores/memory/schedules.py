"""What the commands about schedules mean, in plain Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from operon.core import commands as c
from operon.core.states import Status
from operon.core.timetable import LIVE, Agenda, Fired, ScheduleRow, advanced, overlap, skipped, started

if TYPE_CHECKING:
    from operon.core.timetable import Firing
    from operon.stores.memory.store import MemoryStore


def listing(store: MemoryStore, command: c.Schedules) -> tuple[ScheduleRow, ...]:
    """By name."""
    found = (row for name, row in store.schedules.items() if command.name in {None, name})
    return tuple(sorted(found, key=lambda row: row.plan.name))


def keep(store: MemoryStore, command: c.KeepSchedule) -> bool:
    """See `KeepSchedule`."""
    name, there = command.row.plan.name, store.schedules.get(command.row.plan.name)
    if command.row.turn != (0 if there is None else there.turn) + 1:
        return False
    store.schedules[name] = command.row
    return True


def forget(store: MemoryStore, command: c.ForgetSchedule) -> bool:
    """See `ForgetSchedule`."""
    return store.schedules.pop(command.name, None) is not None


def due(store: MemoryStore, command: c.Due, now: float) -> Agenda:
    """See `Due`."""
    rows = [row for row in planned(store, command.fires) if (row.next_at or 0.0) <= now]
    return Agenda(now, tuple(rows[: command.limit]))


def planned(store: MemoryStore, fires: c.Fires) -> list[ScheduleRow]:
    """The schedules of these that wait for an instant, the next to come first."""
    waiting = (row for row in store.schedules.values() if not row.paused and row.next_at is not None)
    return sorted(filter(fires.includes, waiting), key=lambda row: (row.next_at, row.plan.name))


def fire(store: MemoryStore, command: c.Fire) -> Fired | None:
    """See `Fire`."""
    row = store.schedules.get(command.name)
    if row is None or row.turn != command.turn or row.paused:
        return None
    row = advanced(row, command.next_at)
    ids: list[str] = []
    cancelled = False
    for firing in command.firings:
        last = store.workflows.get(row.last) if row.last is not None else None
        status = None if last is None else last.row.status
        what = overlap(firing, status, 0 if last is None else last.row.attempts)
        if what == "skip" and status in LIVE:
            row = skipped(row, firing)
            continue
        made = _start(store, firing, behind=row.last if what == "queue" and status in LIVE else None)
        if made and what == "replace" and last is not None and not last.row.status.ended:
            cancelled |= bool(store.cancel(c.Cancel(last.row.id)))
        row = started(row, firing)
        ids.append(firing.row.id)
    store.schedules[command.name] = row
    return Fired(tuple(ids), cancelled)


def _start(store: MemoryStore, firing: Firing, *, behind: str | None) -> bool:
    """Start what a firing says, parked behind another; False, and it is left as it is, when its id was there."""
    answer = store.start(c.Start(firing.row))
    if behind is not None and answer.created:
        workflow = store.workflows[firing.row.id]
        workflow.row = replace(workflow.row, status=Status.WAITING, ready_at=None)
        workflow.awaits = (behind,)
    return answer.created
