"""What a schedule does when its instant has come: which instants are fired, and as which workflows."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

from msgspec import Raw, json
from msgspec.structs import replace

from operon.core.codec.signature import digest
from operon.core.commands import Fire, KeepSchedule, Op, ask
from operon.core.cron import Cron, zone
from operon.core.host import Host
from operon.core.rows import NewWorkflow
from operon.core.starting import pinned
from operon.core.timetable import PREFIX, Firing, Overlap, Plan, ScheduleRow

MOST = 100
"""Instants that are fired in one commit; the next ones follow in another."""
Instants = tuple[tuple[float, Overlap], ...]

_read = json.Decoder(dict[str, Raw]).decode


def fire(host: Host, row: ScheduleRow, now: float, tolerance: float) -> Op[None]:
    """Take a schedule's turn: once this returns, what was due is started and the next instant planned, by whomever."""
    instants, next_at = due(row, now, tolerance)
    firings = tuple(
        Firing(at, overlap, workflow(host, row.plan, at, run_id(row.plan.name, at))) for at, overlap in instants
    )
    fired = yield from ask(Fire(row.plan.name, row.turn, next_at, firings))
    if fired is not None and fired.cancelled:
        host.nudge(cancelled=True)
    if fired is not None and fired.started:
        host.nudge()


def rewound(row: ScheduleRow, now: float) -> Op[None]:
    """Plan the next instant anew, the clock having been put back: what was fired before is joined, by its id."""
    next_at = None if row.paused else Cron(row.plan.cron, row.plan.tz).next(now)
    if next_at is not None and (row.next_at is None or row.next_at > next_at):
        yield from ask(KeepSchedule(replace(row, next_at=next_at, turn=row.turn + 1)))


def due(row: ScheduleRow, now: float, tolerance: float) -> tuple[Instants, float | None]:
    """Say which instants of a schedule are fired now, each with what becomes of it, and the next one after those.

    An instant is missed if it passed longer ago than the tolerance. Of those, "skip" fires none, "one" the latest if
    nothing newer is due, "all" each: what comes late or together runs one after the other, whatever the overlap says,
    for the one before is not to blame.
    """
    plan, cron = row.plan, Cron(row.plan.cron, row.plan.tz)
    if row.next_at is None or row.next_at > now:
        return (), row.next_at
    instants: list[float] = [row.next_at]
    if plan.catch_up != "all" and row.next_at < now - tolerance:
        instants = list(_next(cron, now - tolerance, now, 1))
        if not instants and plan.catch_up == "one":
            instants = [cron.last(row.next_at, now)]
    if instants:
        instants += _next(cron, instants[-1], now, MOST - 1)
    late = plan.catch_up == "all" and (len(instants) > 1 or instants[0] < now - tolerance)
    overlap: Overlap = "queue" if late else plan.overlap
    return tuple((at, overlap) for at in instants), cron.next(instants[-1] if instants else now)


def _next(cron: Cron, after: float, until: float, limit: int) -> list[float]:
    return [at for at in islice(cron.after(after), limit) if at <= until]


def run_id(name: str, at: float) -> str:
    """Give the id of a schedule's run at a planned instant: whoever fires it, it is one workflow."""
    return f"{PREFIX}{name}:{iso(at)}"


def iso(at: float) -> str:
    """Spell an instant in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def with_time(host: Host, text: str, at: float, tz: str) -> str:
    """Add the planned time, in the schedule's zone, to a record of arguments."""
    planned = datetime.fromtimestamp(at, zone(tz))
    given = Raw(host.codec.encode(planned, where="the planned time").encode())
    return json.encode(_read(text) | {"at": given}).decode()


def without_time(text: str) -> str:
    """Take the planned time out of a record of arguments."""
    record = _read(text)
    return json.encode({name: record[name] for name in record if name != "at"}).decode()


def workflow(host: Host, plan: Plan, at: float, key: str) -> NewWorkflow:
    """Make the workflow that a schedule starts at an instant."""
    call = plan.call
    text = with_time(host, call.input, at, plan.tz) if call.timed else call.input
    function = host.function(call.name)
    return NewWorkflow(
        id=key,
        name=call.name,
        input=text,
        digest=digest(text),
        nonce=host.random.getrandbits(62),
        timeout=call.timeout,
        instance=call.instance,
        user=call.user,
        roles=call.roles,
        version=host.version,
        pin=call.pin if call.pin is not None or function is None else pinned(host, function),
        attributes=call.attributes,
        queue=call.queue,
        partition=call.partition,
        priority=call.priority,
    )
