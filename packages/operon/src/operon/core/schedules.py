"""Schedules as the core knows them: which can be meant, how code declares them, and the verbs that change them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from hashlib import blake2b
from itertools import islice, takewhile
from typing import Any, get_args

from msgspec import MsgspecError, Struct, field, json
from msgspec.structs import replace

from operon.core import records
from operon.core.codec.hints import signature_of
from operon.core.commands import (
    Due,
    Executors,
    Fires,
    ForgetSchedule,
    KeepSchedule,
    Op,
    Schedules,
    Start,
    StartMany,
    ask,
)
from operon.core.cron import Cron, zone
from operon.core.firing import run_id, with_time, without_time, workflow
from operon.core.function import Declared, Using
from operon.core.given import instant
from operon.core.host import Host
from operon.core.ids import checked
from operon.core.once import looking, once
from operon.core.queues import queued
from operon.core.results import Handle
from operon.core.starting import known, new_row
from operon.core.timetable import PREFIX, CatchUp, Overlap, Plan, ScheduleRow, Template
from operon.errors import BadValue, DeclarationError, KeyConflict, NotFound
from operon.types import ScheduleRecord

LONGEST = 200
"""Characters of a schedule's name: with an instant behind it, it is still an id."""
MOST = 10_000
"""Instants that are filled in by one call."""
CHUNK = 500
REFUSED = ("key", "dedupe", "delay", "within", "on_duplicate", "request_id", "traceparent")
"""Options of a single call: they mean nothing for one that is made again and again."""


class Definition(Struct, frozen=True):
    """A schedule as a user wrote it."""

    name: str
    cron: str
    tz: str
    catch_up: CatchUp
    overlap: Overlap
    declared: Declared
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    queue: str | None = None

    def check(self) -> Cron:
        """See that it can be meant.

        Raises:
            BadValue: a name, a time, an answer or an option that cannot.
        """
        checked(self.name, "The name of a schedule", BadValue)
        if len(self.name) > LONGEST:
            raise BadValue(f"The name of a schedule has at most {LONGEST} characters: {self.name[:40]!r}…")
        for what, given, known_ones in (
            ("catch_up", self.catch_up, get_args(CatchUp)),
            ("overlap", self.overlap, get_args(Overlap)),
        ):
            if given not in known_ones:
                raise BadValue(f"{what}={given!r}: there are {', '.join(map(repr, known_ones))}.")
        for option in REFUSED:
            if getattr(self.declared.options, option) != getattr(Using(), option):
                raise BadValue(
                    f".using({option}=…) says something of one call, and the schedule {self.name!r} makes many: "
                    "leave it out."
                )
        return Cron(self.cron, self.tz)


def timed(declared: Declared, args: Iterable[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call leaves a parameter `at` open, for the planned time."""
    signature = _signature(declared)
    bound = signature.bind_partial(*args, **kwargs).arguments
    return any(_is_time(each) and each.name not in bound for each in signature.parameters.values())


def open_parameters(declared: Declared) -> list[str]:
    """The parameters that a schedule which binds nothing would leave without a value."""
    needed = (each for each in _signature(declared).parameters.values() if each.default is each.empty)
    variadic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    return [each.name for each in needed if each.kind not in variadic and not _is_time(each)]


def _is_time(parameter: inspect.Parameter) -> bool:
    return parameter.name == "at" and parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}


def _signature(declared: Declared) -> inspect.Signature:
    full = signature_of(declared.function.fn)
    return full.replace(parameters=[*full.parameters.values()][declared.function.hidden :])


def plan(host: Host, given: Definition, now: float) -> Plan:
    """Make what is remembered of a definition; its arguments are recorded here.

    Raises:
        BadValue: as `Definition.check`.
        NotSerializable: an argument cannot be recorded.
        TypeError: an argument is missing, or one too many.
    """
    given.check()
    at = timed(given.declared, given.args, given.kwargs)
    sample = {"at": datetime.fromtimestamp(now, zone(given.tz))} if at else {}
    declared = given.declared if given.queue is None else queued(given.declared, given.queue)
    row = new_row(host, declared, given.args, {**given.kwargs, **sample})
    call = Template(
        row.name,
        without_time(row.input) if at else row.input,
        at,
        row.instance,
        row.timeout,
        row.user,
        row.roles,
        given.declared.options.version,
        row.attributes,
        row.queue,
        row.partition,
        row.priority,
    )
    return Plan(given.name, given.cron, given.tz, given.catch_up, given.overlap, call)


# ── Code ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def declare(host: Host, definitions: Sequence[Definition]) -> Op[None]:
    """Enter what an app's code declares: what is new begins now, what has another time begins anew, a pause stays.

    Raises:
        DeclarationError: another app, which is running, declares one of them otherwise.
        NotFound: there is no such queue.
    """
    if not definitions:
        return
    there = {row.plan.name: row for row in (yield from ask(Schedules()))}
    now = yield from _now()
    for given in definitions:
        yield from known(host, given.queue)
        wanted = plan(host, given, now)
        row = there.get(given.name)
        while (declared := (yield from _declared(host, wanted, row, now))) is not None:
            if (yield from ask(KeepSchedule(declared))):
                break
            row, now = yield from _seen(given.name)


def _declared(host: Host, wanted: Plan, row: ScheduleRow | None, now: float) -> Op[ScheduleRow | None]:
    """See a schedule as this app's code has it; None if it is so already."""
    if row is None:
        return _new(host, wanted, now, declared=True)
    if row.declared and row.plan == wanted:
        return None
    if row.declared and row.app != host.name:
        executors = yield from ask(Executors())
        if any(peer.alive and peer.app == row.app for peer in executors):
            raise DeclarationError(
                f"The apps {row.app} and {host.name} declare the schedule {row.plan.name!r} differently, and "
                f"{row.app} is running: declare it alike, or give one of them name=…."
            )
    return _redefined(replace(row, app=host.name, declared=True), wanted, now)


def _new(host: Host, wanted: Plan, now: float, *, declared: bool) -> ScheduleRow:
    return ScheduleRow(wanted, host.name, declared, Cron(wanted.cron, wanted.tz).next(now), turn=1)


def _redefined(row: ScheduleRow, wanted: Plan, now: float) -> ScheduleRow:
    """See a schedule under another plan: what was missed under another time is not caught up."""
    same = (row.plan.cron, row.plan.tz) == (wanted.cron, wanted.tz)
    next_at = row.next_at if same else Cron(wanted.cron, wanted.tz).next(now)
    return replace(row, plan=wanted, next_at=next_at, turn=row.turn + 1)


# ── Verbs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def create(host: Host, given: Definition, *, over: bool) -> Op[ScheduleRecord]:
    """Make a schedule at run time; one that is there is replaced only if that was said.

    Raises:
        KeyConflict: another one has the name.
        NotFound: there is no such queue.
    """
    given.check()

    def work(_: str) -> Op[ScheduleRow]:
        yield from known(host, given.queue)
        while True:
            row, now = yield from _seen(given.name)
            wanted = plan(host, given, now)
            if row is not None and row.plan == wanted and not row.declared:
                return row
            if row is not None and (row.declared or not over):
                raise KeyConflict(_taken(row))
            made = _new(host, wanted, now, declared=False) if row is None else _redefined(row, wanted, now)
            if (yield from ask(KeepSchedule(made))):
                host.replan()
                return made

    said = json.encode((given.name, given.cron, given.tz, given.declared.function.name)).decode()
    return record(host, (yield from once(host, "schedules.create", _digest(said), ScheduleRow, work)))


def _taken(row: ScheduleRow) -> str:
    name = row.plan.name
    if row.declared:
        return f"The schedule {name!r} is declared in the code of {row.app}: change it there, or take another name."
    return (
        f"There is a schedule {name!r} already, of {row.plan.call.name} at {row.plan.cron!r} ({row.plan.tz}), and this "
        "one differs: take another name, or say replace=True."
    )


def pause(host: Host, name: str) -> Op[None]:
    """Let it start nothing more until it is resumed.

    Raises:
        NotFound: there is no such schedule.
    """
    yield from _change(host, "schedules.pause", name, lambda row, _: replace(row, paused=True))


def resume(host: Host, name: str) -> Op[None]:
    """End a pause; nothing of the time between is caught up.

    Raises:
        NotFound: there is no such schedule.
    """

    def resumed(row: ScheduleRow, now: float) -> ScheduleRow:
        next_at = Cron(row.plan.cron, row.plan.tz).next(now) if row.paused else row.next_at
        return replace(row, paused=False, next_at=next_at)

    yield from _change(host, "schedules.resume", name, resumed)


def _change(host: Host, verb: str, name: str, change: Callable[[ScheduleRow, float], ScheduleRow]) -> Op[None]:
    def work(_: str) -> Op[None]:
        while True:
            row, now = yield from _seen(name)
            if row is None:
                raise NotFound(_missing(name))
            changed = change(row, now)
            if changed == row or (yield from ask(KeepSchedule(replace(changed, turn=row.turn + 1)))):
                host.replan()
                return

    yield from once(host, verb, _digest(name), type(None), work)


def delete(host: Host, name: str) -> Op[None]:
    """Delete a schedule; what it has started goes on. One that code declares is there again at the next launch.

    Raises:
        NotFound: there is no such schedule.
    """

    def work(_: str) -> Op[None]:
        if not (yield from ask(ForgetSchedule(name))):
            raise NotFound(_missing(name))

    yield from once(host, "schedules.delete", _digest(name), type(None), work)


def trigger(host: Host, name: str) -> Op[Handle[Any]]:
    """Start it now, whatever its time, its pause and its last run; neither is any of them changed by it.

    Raises:
        NotFound: there is no such schedule.
    """

    def work(fresh: str) -> Op[tuple[str, str]]:
        row = yield from _row(name)
        now = yield from _now()
        key = f"{PREFIX}{name}:{fresh}"
        yield from ask(Start(workflow(host, row.plan, now, key)))
        host.nudge()
        return key, row.plan.call.name

    key, function = yield from once(host, "schedules.trigger", _digest(name), tuple[str, str], work)
    return Handle(host, key, host.function(function))


def backfill(host: Host, name: str, since: datetime, until: datetime) -> Op[list[Handle[Any]]]:
    """Start it for each planned instant from `since` on and before `until`; those that were started are joined.

    Raises:
        NotFound: there is no such schedule.
        BadValue: a time without a zone or still to come, or too many instants.
    """
    first, end = instant(since, "since="), instant(until, "until=")

    def work(_: str) -> Op[tuple[str, tuple[str, ...]]]:
        row = yield from _row(name)
        now = yield from _now()
        if end > now:
            raise BadValue(f"until={until} is still to come: fill in what has passed.")
        cron = Cron(row.plan.cron, row.plan.tz)
        instants = [at for at in takewhile(lambda at: at < end, islice(cron.after(first - 1), MOST + 2)) if at >= first]
        if len(instants) > MOST:
            raise BadValue(f"{name!r} has more than {MOST} instants from {since} to {until}: fill in a shorter time.")
        rows = [workflow(host, row.plan, at, run_id(name, at)) for at in instants]
        for start in range(0, len(rows), CHUNK):
            yield from ask(StartMany(tuple(rows[start : start + CHUNK])))
        host.nudge()
        return row.plan.call.name, tuple(each.id for each in rows)

    said = _digest(f"{name} {first} {end}")
    function, keys = yield from once(host, "schedules.backfill", said, tuple[str, tuple[str, ...]], work)
    return [Handle(host, key, host.function(function)) for key in keys]


def listing(host: Host) -> Op[list[ScheduleRecord]]:
    """Give every schedule, by name."""
    rows = yield from looking(host, "schedules.list", "", tuple[ScheduleRow, ...], lambda: ask(Schedules()))
    return [record(host, row) for row in rows]


def describe(host: Host, name: str) -> Op[ScheduleRecord]:
    """Give one schedule.

    Raises:
        NotFound: there is no such schedule.
    """
    row = yield from looking(host, "schedules.describe", _digest(name), ScheduleRow, lambda: _row(name))
    return record(host, row)


def _find(name: str) -> Op[ScheduleRow | None]:
    return next(iter((yield from ask(Schedules(name)))), None)


def _seen(name: str) -> Op[tuple[ScheduleRow | None, float]]:
    """Look at a schedule, and only then at the clock: whatever was fired at this turn was due before."""
    row = yield from _find(checked(name, "The name of a schedule", NotFound))
    return row, (yield from _now())


def _row(name: str) -> Op[ScheduleRow]:
    row = yield from _find(checked(name, "The name of a schedule", NotFound))
    if row is None:
        raise NotFound(_missing(name))
    return row


def _missing(name: str) -> str:
    return f"There is no schedule {name!r}: `operon schedules list` shows those there are."


def _now() -> Op[float]:
    """Read the store's clock."""
    return (yield from ask(Due(Fires(), 0))).now


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def record(host: Host, row: ScheduleRow) -> ScheduleRecord:
    """Show a schedule to the user: instants in its time zone, values decoded as far as this process can."""
    it, call = row.plan, row.plan.call

    def at(seconds: float | None) -> datetime | None:
        return None if seconds is None else records.at(seconds, known_zone(it.tz))

    return ScheduleRecord(
        name=it.name,
        cron=it.cron,
        tz=it.tz,
        function=call.name,
        input=_input(host, call),
        queue=call.queue,
        catch_up=it.catch_up,
        overlap=it.overlap,
        paused=row.paused,
        declared=row.declared,
        app=row.app,
        next_at=None if row.paused else at(row.next_at),
        last=row.last,
        last_at=at(row.last_at),
        skipped=row.skipped,
        skipped_at=at(row.skipped_at),
    )


def known_zone(name: str) -> tzinfo:
    """Give a time zone to show instants in: UTC, where a row names one that is not known here."""
    try:
        return zone(name)
    except BadValue:
        return UTC


def _input(host: Host, call: Template) -> Mapping[str, Any]:
    function = host.function(call.name)
    try:
        text = with_time(host, call.input, 0.0, "UTC") if call.timed else call.input
    except MsgspecError:  # no JSON object
        text = call.input
    found = records.read_input(host, function, text)
    return {name: value for name, value in found.items() if not (call.timed and name == "at")}
