"""Doing something for a workflow as a recorded step: a replay is given the answer of the first time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from msgspec import json
from msgspec.structs import replace

from operon.core import context
from operon.core.commands import Op
from operon.core.host import Host
from operon.core.journal import note, read, recall, settle
from operon.core.rows import Entry, Kind
from operon.errors import NotInWorkflow, OperonError

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
    if branch is None or branch.run.cleaning(host.clock()):
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
    if context.transaction.get() is not None:
        raise NotInWorkflow(f"{verb}() was called inside a transaction, of which it cannot be a part: call it outside.")
    branch = context.current()
    if branch is None:
        return (yield from work(host.new_id()))
    run = branch.run
    run.check()
    position = branch.advance()
    recorded = yield from recall(branch, position, Kind.STEP, verb, digest)
    if recorded is not None and (error := recorded.error) is not None:
        raise read(run, recorded, lambda: host.codec.decode_error(error, home="operon"))
    if recorded is not None:
        return read(run, recorded, lambda: json.decode(recorded.output or "null", type=answers))
    yield from settle(run)
    blank = Entry(position, 0, Kind.STEP, verb, digest, version=host.version)
    try:
        answer = yield from work(f"{run.id}.{position}")
        output = host.codec.policy.check_size(json.encode(answer), f"what {verb}() answers")
    except OperonError as error:
        run.check()
        text = host.codec.encode_error(error, home="operon", where=f"{verb}()")
        yield from note(run, replace(blank, ordinal=run.number(), error=text))
        raise
    run.check()
    yield from note(run, replace(blank, ordinal=run.number(), output=output))
    return answer
