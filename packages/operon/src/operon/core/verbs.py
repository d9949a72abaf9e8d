"""The verbs of a workflow's body, each written once for both colours: sleep, now, rng, uuid4."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

from operon.core import context
from operon.core.commands import Op
from operon.core.given import instant, seconds
from operon.core.host import Host
from operon.core.journal import Branch
from operon.core.recording import Turn, note, read, recall, rest, settle, write
from operon.core.rows import Entry, Kind


def sleep(host: Host, duration: float | timedelta | datetime, /) -> Op[None]:
    """Sleep in a workflow: counted from the first time this line ran, over any crash.

    Args:
        duration: seconds, a timedelta, or an aware datetime to sleep until.

    Raises:
        NotInWorkflow: outside a workflow's body.
        BadValue: a duration that is negative or beyond all calendars, or a datetime without a time zone.
    """
    branch = context.within_workflow("sleep")
    run = branch.run
    after = until = None
    if isinstance(duration, datetime):
        until = instant(duration, "sleep() until")
    else:
        after = seconds(duration, "sleep()")
    position, until = yield from _clocked(host, branch, Kind.SLEEP, "sleep", after, until)
    yield from rest(run, position, until)


def alarm(host: Host, branch: Branch, name: str, after: float) -> Op[float]:
    """Record an instant so many seconds from now; a replay gets the same one."""
    _, until = yield from _clocked(host, branch, Kind.NOW, name, after)
    return until


def _clocked(
    host: Host, branch: Branch, kind: Kind, name: str, after: float | None, until: float | None = None
) -> Op[tuple[str, float]]:
    """Record an instant, given or so many seconds from now, unless the journal has it."""
    run = branch.run
    position = branch.advance()
    recorded = yield from recall(branch, position, kind, name)
    if recorded is not None:
        return position, read(run, recorded, lambda: float(recorded.output or 0))
    yield from settle(run)
    output = None if until is None else repr(until)
    entry = Entry(position, run.number(), kind, name, output=output, after=after, version=host.version)
    yield from write(run, entry)
    if after is not None:
        host.observe(run.instants[position] - after)
    yield Turn(run, entry.ordinal)
    run.given(entry.ordinal)
    return position, run.instants.pop(position) if until is None else until


def now(host: Host) -> Op[datetime]:
    """Tell the time by the database's clock, aware and in UTC; a replay is told the same.

    In a step, or outside a workflow, it is simply the time.
    """
    branch = context.current()
    if branch is None:
        return datetime.fromtimestamp(host.now(), UTC)
    branch.run.check()
    return datetime.fromtimestamp((yield from alarm(host, branch, "now", 0.0)), UTC)


def _drawn(host: Host, kind: Kind) -> Op[str]:
    """Draw 128 random bits; a replay draws the same."""
    branch = context.current()
    fresh = f"{host.random.getrandbits(128):032x}"
    if branch is None:
        return fresh
    run = branch.run
    run.check()
    position = branch.advance()
    recorded = yield from recall(branch, position, kind, kind.value)
    if recorded is not None:
        return read(run, recorded, lambda: f"{int(json.loads(recorded.output or '0'), 16):032x}")
    output = json.dumps(fresh)
    yield from note(run, Entry(position, run.number(), kind, kind.value, output=output, version=host.version))
    return fresh


def rng(host: Host) -> Op[Random]:
    """Give a random number generator whose seed is recorded: a replay draws the same numbers from it."""
    seed = yield from _drawn(host, Kind.RANDOM)
    return Random(int(seed, 16))  # noqa: S311 - repeatable is what it is for


def uuid4(host: Host) -> Op[UUID]:
    """Give a random UUID; a replay gets the same one."""
    bits = yield from _drawn(host, Kind.UUID)
    return UUID(int=int(bits, 16), version=4)
