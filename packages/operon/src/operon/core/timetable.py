"""What the database remembers of schedules, as frozen data; it must not know how any database spells it.

Instants are seconds since 1970 UTC by the *store's* clock.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import MsgspecError, Struct, json
from msgspec.structs import replace

from operon.core.rows import NewWorkflow
from operon.core.states import Status

CatchUp = Literal["skip", "one", "all"]
Overlap = Literal["skip", "queue", "replace"]

LIVE = (Status.QUEUED, Status.RUNNING, Status.WAITING)
"""The states of a run that keeps the next one out; what is held does not."""
PREFIX = "schedule:"
"""What the id of a schedule's run begins with."""


class Template(Struct, frozen=True, omit_defaults=True):
    """The call that a schedule makes, as far as it is the same each time."""

    name: str
    """The function's recorded name."""
    input: str
    """The arguments, as they are recorded, without the planned time."""
    timed: bool = False
    """The planned time is passed, too, as `at`."""
    instance: str | None = None
    timeout: float | None = None
    user: str | None = None
    roles: tuple[str, ...] = ()
    pin: str | None = None
    attributes: str | None = None
    queue: str | None = None
    partition: str = ""
    priority: int = 0


class Plan(Struct, frozen=True):
    """A schedule as it is defined: when it starts what."""

    name: str
    cron: str
    tz: str
    catch_up: CatchUp
    overlap: Overlap
    call: Template


class ScheduleRow(Struct, frozen=True):
    """A schedule as it stands."""

    plan: Plan
    app: str
    """The app whose code declared it, or that created it."""
    declared: bool
    """It is in an app's code, and only processes that declare it fire it."""
    next_at: float | None
    """The next planned instant; None when there is none. It does not hold while the schedule is paused."""
    paused: bool = False
    turn: int = 0
    """Counts the changes: a change says which state it saw."""
    last: str | None = None
    """The workflow that was started last, at a planned time."""
    last_at: float | None = None
    """The planned instant of that one."""
    skipped: int = 0
    """How many firings were left out because the one before had not ended."""
    skipped_at: float | None = None
    """The planned instant of the latest of those."""


class Firing(Struct, frozen=True):
    """One planned instant that has come: what is started, and what becomes of it if the one before has not ended."""

    at: float
    overlap: Overlap
    row: NewWorkflow


class Fired(Struct, frozen=True):
    """The answer to a fire."""

    started: tuple[str, ...]
    """The workflows that were inserted, or were there already, in order."""
    cancelled: bool = False
    """Some were cancelled to make room for them."""


class Agenda(Struct, frozen=True):
    """The schedules that are due."""

    now: float
    rows: tuple[ScheduleRow, ...]


def overlap(firing: Firing, status: Status | None, attempts: int) -> Overlap:
    """Say what becomes of a firing, by the run before: behind one that waits for its own turn it waits, too.

    That one was late, and others before it may be under way, which nobody would cancel.
    """
    waits = status is Status.WAITING and attempts == 0
    return "queue" if firing.overlap == "replace" and waits else firing.overlap


def advanced(row: ScheduleRow, next_at: float | None) -> ScheduleRow:
    """See a schedule whose turn was taken: it waits for another instant."""
    return replace(row, next_at=next_at, turn=row.turn + 1)


def started(row: ScheduleRow, firing: Firing) -> ScheduleRow:
    """See a schedule which has started a workflow."""
    return replace(row, last=firing.row.id, last_at=firing.at)


def skipped(row: ScheduleRow, firing: Firing) -> ScheduleRow:
    """See a schedule which has left out a firing."""
    return replace(row, skipped=row.skipped + 1, skipped_at=firing.at)


COLUMNS = ("app", "declared", "next_at", "paused", "turn", "last", "last_at", "skipped", "skipped_at")
"""The columns that a row has beside its plan's."""


def spelled(row: ScheduleRow) -> dict[str, Any]:
    """Spell a schedule as a database's columns."""
    plan = row.plan
    return {name: getattr(row, name) for name in COLUMNS} | {
        "name": plan.name,
        "function": plan.call.name,
        "cron": plan.cron,
        "tz": plan.tz,
        "catch_up": plan.catch_up,
        "overlap": plan.overlap,
        "call": json.encode(plan.call).decode(),
    }


def unspelled(columns: Any) -> ScheduleRow:
    """Make a schedule of a database's columns, its instants as numbers."""
    named = {name: columns[name] for name in ("name", "cron", "tz", "catch_up", "overlap")}
    try:
        call = json.decode(columns["call"], type=Template)
    except MsgspecError:  # it is shown as it is, and whoever would fire it finds that it cannot
        call = Template(columns["function"], columns["call"])
    plan = Plan(**named, call=call)
    values: dict[str, Any] = {name: columns[name] for name in COLUMNS}
    values.update((name, bool(values[name])) for name in ("declared", "paused"))
    return ScheduleRow(plan, **values)
