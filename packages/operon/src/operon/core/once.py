"""Doing something for a workflow as a recorded step: a replay is given the answer of the first time."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import blake2b
from typing import TypeVar

from msgspec import MsgspecError, convert, to_builtins
from msgspec.structs import replace

from operon.core import context
from operon.core.commands import Op
from operon.core.host import Host
from operon.core.journal import Run
from operon.core.recording import note, read, recall, settle
from operon.core.rows import Entry, Kind
from operon.errors import NotInWorkflow, NotSerializable, OperonError

T = TypeVar("T")


def looking(host: Host, verb: str, digest: str, answers: type[T], look: Callable[[], Op[T]]) -> Op[T]:
    """Look at something; in a workflow's body once, so that a replay sees what the first run saw.

    Args:
        host: the app.
        verb: names the step.
        digest: of the arguments.
        answers: the type of what is seen, plain data that is recorded as JSON.
        look: looks.

    Raises:
        PayloadTooLarge: it is too much to be recorded.
        Divergence: the journal has something else here.
    """
    branch = context.current()
    if branch is None or branch.cleaning(host.clock()):
        return (yield from look())
    return (yield from once(host, verb, digest, answers, lambda _: look()))


def once(host: Host, verb: str, digest: str, answers: type[T], work: Callable[[str], Op[T]]) -> Op[T]:
    """Do something; in a workflow's body as a recorded step, whose error is recorded, too.

    Args:
        host: the app.
        verb: names the step.
        digest: of the arguments.
        answers: the type of the answer, plain data that is recorded as JSON.
        work: does it, given what is the same for each attempt of the step and different for any other call.

    Raises:
        NotInWorkflow: a transaction is open, which this could be no part of.
        Divergence: the journal has something else here.
    """
    if context.transaction() is not None:
        raise NotInWorkflow(f"{verb}() was called inside a transaction, of which it cannot be a part: call it outside.")
    branch = context.current()
    if branch is None:
        return (yield from work(host.new_id()))
    run = branch.run
    run.check()
    position = branch.advance()
    recorded = yield from recall(branch, position, Kind.STEP, verb, digest)
    if recorded is not None:
        failed(host, run, recorded)
        return read(run, recorded, lambda: _answer(recorded.output or "null", answers))
    yield from settle(run)
    blank = Entry(position, 0, Kind.STEP, verb, digest, version=host.version)

    def answered() -> Op[str]:
        fresh = blake2b(f"{run.id}:{run.row.nonce}:{position}".encode(), digest_size=16).hexdigest()
        return _recorded(host, verb, answers, (yield from work(fresh)))

    output = yield from trying(host, run, blank, f"{verb}()", answered())
    run.check()
    yield from note(run, replace(blank, ordinal=run.number(), output=output))
    return read(run, blank, lambda: _answer(output, answers))


def _recorded(host: Host, verb: str, answers: type[T], answer: T) -> str:
    what = f"what {verb}() answers"
    try:
        text = json.dumps(to_builtins(answer, builtin_types=(float,)), separators=(",", ":"))
        _answer(text, answers)
    except (MsgspecError, ValueError) as error:  # damaged rows are shown, and may hold anything
        raise NotSerializable(f"{what[0].upper()}{what[1:]} cannot be recorded: {error}") from None
    return host.codec.policy.check_size(text.encode(), what)


def _answer(text: str, answers: type[T]) -> T:
    return convert(json.loads(text), answers)


def trying(host: Host, run: Run, blank: Entry, where: str, op: Op[T]) -> Op[T]:
    """Do what a verb does; an error of ours is recorded, and raised as a replay will raise it.

    What may be otherwise tomorrow is part of the history: not there, taken, held, not ended yet.
    """
    try:
        return (yield from op)
    except OperonError as error:
        run.check()
        text, told = host.codec.round_trip_error(error, home="operon", where=where)
    yield from note(run, replace(blank, ordinal=run.number(), error=text))
    raise told


def failed(host: Host, run: Run, recorded: Entry) -> None:
    """Raise the error that a verb's record holds, if it holds one."""
    if (text := recorded.error) is not None:
        raise read(run, recorded, lambda: host.codec.decode_error(text, home="operon"))
