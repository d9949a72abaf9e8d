"""Deleting a workflow for good: its record, what descends from it, and its key."""

from __future__ import annotations

from msgspec.structs import replace

from operon.core import context
from operon.core.commands import Delete, Describe, Op, ask
from operon.core.host import Host
from operon.core.ids import possible
from operon.core.journal import Branch
from operon.core.once import failed, trying
from operon.core.recording import note, recall, settle, write
from operon.core.results import unknown
from operon.core.rows import Entry, Kind, Obstacle
from operon.errors import NotEnded


def delete(host: Host, workflow_id: str) -> Op[None]:
    """Delete a workflow that has ended or is held, and all that descends from it: once this returns, its key is free.

    A start with that key begins anew; whatever of the old workflow might still run somewhere cannot write into it.

    Raises:
        NotFound: no workflow has this id.
        NotEnded: it has not ended, or what it started has not, or its parent, which may still read its result.
    """
    branch = context.current()
    if branch is None:
        yield from _deleted(workflow_id, begun=False)
    else:
        yield from _recorded(host, branch, workflow_id)


def _recorded(host: Host, branch: Branch, workflow_id: str) -> Op[None]:
    """Delete as an operation of a workflow; that it began is recorded first, for a second time finds nothing there."""
    run = branch.run
    run.check()
    position = branch.advance()
    recorded = yield from recall(branch, position, Kind.STEP, "delete", workflow_id)
    if recorded is not None:
        return failed(host, run, recorded)
    yield from settle(run)
    blank = Entry(position, 0, Kind.STEP, "delete", workflow_id, version=host.version)

    def work() -> Op[None]:
        if position not in run.failures:
            yield from _there(workflow_id)
            yield from write(run, replace(blank, position=f"{position}#1", kind=Kind.ATTEMPT))
        yield from _deleted(workflow_id, begun=True)

    yield from trying(host, run, blank, "delete()", work())
    run.check()
    yield from note(run, replace(blank, ordinal=run.number(), output="null"))


def _there(workflow_id: str) -> Op[None]:
    if not possible(workflow_id) or (yield from ask(Describe(workflow_id))) is None:
        raise unknown(workflow_id)


def _deleted(workflow_id: str, *, begun: bool) -> Op[None]:
    """Delete; what was there a moment ago and is not any more was deleted by somebody, maybe by this very call."""
    if not begun:
        yield from _there(workflow_id)
    answer = yield from ask(Delete(workflow_id))
    if not isinstance(answer, Obstacle):
        return
    if answer.id == workflow_id:
        raise NotEnded(f"{workflow_id} is {answer.status}: cancel it first, or wait until it has ended.")
    raise NotEnded(
        f"{workflow_id} cannot be deleted while {answer.id} is {answer.status}, which it started or was started by: "
        f"cancel that first, or wait until it has ended."
    )
