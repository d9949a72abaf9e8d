"""What an operation does with its run: finds its record, fixes a result, makes it durable, waits for its turn.

Each is a generator of the commands that are declared here, which the engine answers. Must not know how.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from msgspec.structs import replace

from operon.core.commands import Command, Op, ask
from operon.core.journal import WAKE, Branch, Run
from operon.core.rows import Advanced, Entry, Kind, Outcome, Park
from operon.errors import Divergence, NotDeserializable, Suspended

T = TypeVar("T")


class Flush(Command[Advanced], frozen=True):
    """Make durable what the run has written so far, with its end in the same commit if there is one."""

    run: Run
    end: Outcome | Park | None = None


class Turn(Command[None], frozen=True):
    """Wait until every smaller ordinal has been given to the code, and all other branches have come to rest.

    So the code sees a result, live or replayed, when whatever could go on without it has done so: replays are exact.
    What is pending meanwhile may linger a little.
    """

    run: Run
    ordinal: int


class CatchUp(Command[None], frozen=True):
    """Wait until all that is recorded has been given to the code: nothing new comes before it.

    Unless it is strict, the wait ends, too, when every branch rests: what is recorded may need what is new, as where a
    step hands its body one thing after the other.
    """

    run: Run
    strict: bool


class Stall(Command[None], frozen=True):
    """Be cancelled in the turn of this ordinal, once, whatever asks for it till then: by that, or by the `error`."""

    run: Run
    ordinal: int
    error: BaseException | None = None


class Wait(Command[dict[str, Outcome]], frozen=True):
    """Wait until the store's clock reaches `until`, or one of the workflows in `awaits` has ended.

    Answers the outcomes that were seen here; an empty answer says only that it is time to look. With a run, a long
    wait leaves the workflow's function by `Suspended`.
    """

    run: Run | None
    until: float | None = None
    awaits: tuple[str, ...] = ()
    since: float = 0.0
    """When, by the host's clock, they were looked at last: what had ended before was another of the same id."""
    then: tuple[str, ...] = ()
    """What the code will wait for next, one after the other: a run may be parked for all of these at once."""
    fail_fast: bool = True
    """It will not, once one of them has failed."""


def recall(
    branch: Branch, position: str, kind: Kind, name: str, digest: str = "", *, strict: bool = False
) -> Op[Entry | None]:
    """Give the record at a position, in its turn; None when the code is ahead of the journal.

    Args:
        branch: asks.
        position: where it is.
        kind: of the operation.
        name: of the operation.
        digest: of its arguments.
        strict: whether the operation waits for something that no branch of this run can need.

    Raises:
        Divergence: the journal has something else here, or something after here; the run is dead.
    """
    run = branch.run
    run.check()
    entry = run.journal.get(position)
    if entry is None:
        if run.reach.get(branch.path.rstrip("/"), 0) > int(position.rpartition("/")[2]):
            raise run.die(Divergence(f"{run.id}: the journal has no record at {position}, but has later ones."))
        if run.beyond is not None:
            run.beyond()
            run.check()
        yield from _catch_up(run, Entry(position, 0, Kind.CANCELLED, name, digest), strict=strict)
        return None
    if (entry.name, entry.digest) != (name, digest) or entry.kind not in (kind, Kind.CANCELLED):
        raise run.die(_divergence(run, entry, kind, name))
    yield from hand_out(run, entry)
    return entry


def _catch_up(run: Run, cancelled: Entry, *, strict: bool) -> Op[None]:
    """Let what is recorded come first; the operation that waits for that may be cancelled by it."""
    if run.behind():
        try:
            yield CatchUp(run, strict)
        except BaseException as error:
            run.check()
            yield from interrupted(run, replace(cancelled, ordinal=run.number()), error)
            raise
        run.check()


def hand_out(run: Run, entry: Entry) -> Op[None]:
    """Give a record to the code, in its turn; a cancelled operation waits to be cancelled again."""
    try:
        yield Stall(run, entry.ordinal) if entry.kind is Kind.CANCELLED else Turn(run, entry.ordinal)
    finally:
        run.given(entry.ordinal)


def _divergence(run: Run, entry: Entry, kind: Kind, name: str) -> Divergence:
    what = "other arguments" if (entry.kind, entry.name) == (kind, name) else f"{kind} {name!r}"
    return Divergence(
        f"{run.id}: at position {entry.position} the journal has {entry.kind} {entry.name!r}, and the code now asks "
        f"for {what}. The workflow is held; bring the old code back, or others that are as far will be, too."
    )


def read(run: Run, entry: Entry, decode: Callable[[], T]) -> T:
    """Decode what a record holds.

    Raises:
        NotDeserializable: it cannot be read, so the run cannot go on: it is held, and a person decides.
    """
    try:
        return decode()
    except Exception as error:  # a record that is damaged, or of another time, may fail in any way
        place = f"the {entry.kind} {entry.name!r} at position {entry.position}"
        raise run.die(NotDeserializable(f"{run.id}: {place} cannot be read: {error}")) from None


def settle(run: Run) -> Op[None]:
    """Make what is recorded so far durable: nothing begins before, nor in a run that was left meanwhile."""
    if run.pending or run.writing:
        run.check()
        yield Flush(run)
    run.check()


def write(run: Run, *entries: Entry, end: Outcome | Park | None = None) -> Op[Advanced]:
    """Write entries, and the end, durably; a run that may no longer write is dead, and its cause is raised."""
    run.pending.extend(entries)
    return (yield from ask(Flush(run, end)))


def note(run: Run, entry: Entry) -> Op[None]:
    """Fix a result: it is durable before the next operation begins, at the latest a few milliseconds from now.

    Its value is handed to the code in the turn of its ordinal.
    """
    if not noted(run, entry):
        yield from hand_out(run, entry)


def noted(run: Run, entry: Entry) -> bool:
    """Fix a result; whether its value may be handed to the code at once, for nothing can come in between."""
    run.pending.append(entry)
    if not run.alone:
        return False
    run.host.linger(run)
    run.given_alone(entry.ordinal)
    return True


def interrupted(run: Run, entry: Entry, error: BaseException) -> Op[None]:
    """Note that an operation was cancelled by the code around it, so that a replay cancels it too, in the same turn.

    What interrupts the whole process is no part of the workflow's history: the run is left.
    """
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        run.die(Suspended(f"{run.id} was interrupted."))
    try:
        if run.dead is None:
            run.pending.append(entry)
            yield Stall(run, entry.ordinal, error)
    finally:
        run.given(entry.ordinal)


def rest(run: Run, position: str, until: float | None, awaits: tuple[str, ...] = ()) -> Op[dict[str, Outcome]]:
    """Wait in a workflow; where branches run side by side, when the wait ended is part of the history."""
    mark = f"{position}{WAKE}"
    woken = run.journal.get(mark)
    if woken is not None:
        yield from hand_out(run, woken)
        return {}
    concurrent = run.concurrent
    if concurrent:
        yield from _catch_up(run, Entry(mark, 0, Kind.CANCELLED, "wake"), strict=True)
    try:
        seen = yield from ask(Wait(run, until, awaits))
    except BaseException as error:
        if run.dead is None:
            yield from interrupted(run, Entry(mark, run.number(), Kind.CANCELLED, "wake"), error)
        raise
    if concurrent or run.concurrent:  # a timer may have fired meanwhile: a replay asks at the beginning
        yield from note(run, Entry(mark, run.number(), Kind.WAKE, "wake"))
    return seen
