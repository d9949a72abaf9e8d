"""One run from its first line to its outcome; who runs it, and where, is the engine's affair."""

from __future__ import annotations

from contextlib import suppress

from operon.core import context
from operon.core.batches import ItemFunction, item, shared
from operon.core.codec.failures import replaced
from operon.core.commands import Invoke, Op
from operon.core.context import Place
from operon.core.function import Function
from operon.core.host import Host
from operon.core.journal import Run
from operon.core.recording import write
from operon.core.rows import Entry, Outcome
from operon.core.states import Status
from operon.core.transactions import as_workflow
from operon.errors import (
    Cancelled,
    Divergence,
    Forbidden,
    NotDeserializable,
    NotFound,
    NotInWorkflow,
    StoreError,
    Suspended,
    WorkflowTimedOut,
)

ANYBODY = 0
"""The cleaner of what no executor runs."""


def clean_up(run: Run, function: Function) -> Op[None]:
    """Let the body of a workflow that has ended hear of it where it was; nothing is recorded, and nothing told.

    Must be driven in a context of its own; whoever drives it ends the run once all that is recorded has been given.

    Raises:
        BaseException: what the body raises, other than what it was told.
    """
    if isinstance(function, ItemFunction) or run.row.damage is not None:
        return
    with context.at(Place(run.root, driving=True)), suppress(Suspended, Cancelled):
        yield _body(run, function)


def execute(host: Host, run: Run, function: Function) -> Op[Outcome | None]:
    """Run a workflow's body and record its outcome; None if this run was left, and has none.

    Must be driven in a context of its own.
    """
    token = context.place.set(Place(run.root, driving=True))
    try:
        untidy = _untidy(run, function)
        outcome = timed_out(host, run, ANYBODY) if untidy else (yield from _outcome(host, run, function))
        try:
            yield from write(run, end=outcome)
        except StoreError as refusal:  # it would be refused again, however often the body runs
            outcome = _revived(host, run, refusal)
            yield from write(run, end=outcome)
        if untidy:
            host.nudge(cancelled=True)
    except (Suspended, Cancelled):  # the end came too late: it is not the caller's who waits inline for it
        return None
    finally:
        run.forget()
        context.back(token)  # what is asked from here on is not asked for the body
    return outcome


def _outcome(host: Host, run: Run, function: Function) -> Op[Outcome]:
    if run.row.damage is not None:
        return held(host, NotDeserializable(run.row.damage))
    try:
        function.admit(run.row.user, run.row.roles)
        invoke = _body(run, function)
    except Forbidden as error:
        return _failure(run, function, error)
    except (NotDeserializable, NotFound) as error:
        return held(host, error)
    if run.late:
        return timed_out(host, run)
    if isinstance(function, ItemFunction) and run.row.queue is not None:
        return (yield from item(host, run, function))
    try:
        if function.kind == "transaction":
            output = yield from as_workflow(host, run, function, invoke)
        else:
            output = function.signature.encode_result((yield invoke))
        outcome = shared(run.row, function, Outcome(Status.SUCCEEDED, output=output))
    except (KeyboardInterrupt, SystemExit):
        with suppress(Suspended):
            yield from write(run, end=Outcome(Status.QUEUED))
        raise
    except GeneratorExit:
        raise
    except BaseException as error:
        outcome = shared(run.row, function, _failure(run, function, error))
    return _checked(host, run, outcome)


def _untidy(run: Run, function: Function) -> bool:
    """Whether its deadline passed while it slept; then its body hears of it once that is recorded."""
    return run.late and run.row.attempts > 1 and run.row.damage is None and function.kind == "workflow"


def _body(run: Run, function: Function) -> Invoke[object]:
    args, kwargs = function.signature.decode(run.row.input, own=function.kind == "workflow")
    if run.row.instance is None or function.home is None:
        return Invoke(function.fn, args, kwargs, body=True)
    fn = function.fn.__get__(function.home.instance(run.row.instance))
    return Invoke(fn, args, kwargs, body=True)


def _failure(run: Run, function: Function, error: BaseException) -> Outcome:
    if run.dead is not None:
        run.failure = error if isinstance(run.dead, Cancelled) else None
        return Outcome(Status.FAILED)
    if not isinstance(error, Exception):
        error = replaced(error)
    run.failure = error
    text, _ = function.round_trip_error(error)
    return Outcome(Status.FAILED, error=text)


def _checked(host: Host, run: Run, outcome: Outcome) -> Outcome:
    """Let the run's own state decide, whatever came out of the body."""
    if run.dead is None:
        leftover = _leftover(run)
        if leftover is None:
            return outcome
        run.die(
            Divergence(
                f"{run.id}: the code ended before it asked for {leftover.kind} {leftover.name!r}, which the journal "
                f"has at position {leftover.position}. Bring the old code back, or others will be held, too."
            )
        )
    if isinstance(run.dead, Divergence | NotDeserializable | NotInWorkflow | StoreError):
        return _revived(host, run, run.dead)
    raise run.dead if isinstance(run.dead, Suspended) else Suspended(str(run.dead))


def _leftover(run: Run) -> Entry | None:
    """Find the first record of the main line that the code never asked for."""
    left = (e for e in run.journal.values() if "/" not in e.position and e.ordinal in run.outstanding)
    return min(left, key=lambda entry: entry.ordinal, default=None)


def _revived(host: Host, run: Run, why: Exception) -> Outcome:
    """Give a run that died here the last word, which is why."""
    run.dead = None
    run.pending.clear()
    return held(host, why)


def held(host: Host, why: Exception) -> Outcome:
    """Give the outcome that leaves the decision to a person."""
    return Outcome(Status.HELD, error=host.codec.encode_error(why, home="operon", where="a held workflow"))


def timed_out(host: Host, run: Run, cleaner: int | None = None) -> Outcome:
    """Give the outcome of a workflow that passed its deadline, and say who lets its body hear of that."""
    error = WorkflowTimedOut(f"{run.id} ({run.row.name}) passed its deadline and was stopped.", run.id)
    text = host.codec.encode_error(error, home="operon", where="a deadline")
    return Outcome(Status.FAILED, error=text, cleaner=cleaner)
