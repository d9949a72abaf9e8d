"""What the commands about batches mean, in plain Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from operon.core.batches import gathered, items
from operon.core.rows import Entry, Kind, first_row
from operon.core.states import Status
from operon.stores.memory.queues import rank
from operon.stores.memory.tables import Tables, Workflow

if TYPE_CHECKING:
    from operon.core import commands as c
    from operon.core.rows import Outcome


def ripen(tables: Tables, command: c.Ripen) -> int:
    """One of each full batch, those first that are first in line; those that have begun already bring theirs."""
    now, ripe = tables.clock(), 0
    for name, size, wait in command.batches:
        for queue in command.queues:
            there = [it for it in tables.workflows.values() if (it.row.queue, it.row.name) == (queue, name)]
            for partition in {it.row.partition for it in there}:
                here = [it for it in there if it.row.partition == partition]
                leaders = sum(it.row.status is Status.RUNNING and not it.journal for it in here)
                ready = sum(it.row.status is Status.QUEUED and (it.row.ready_at or now) <= now for it in here)
                near = sorted((it for it in here if _waits(it, now, wait)), key=lambda it: (rank(it.row), it.row.id))
                full = (ready + len(near) - leaders * (size - 1)) // size
                for workflow in near[: max(0, full - ready)]:
                    workflow.row = replace(workflow.row, ready_at=now)
                    ripe += 1
    return ripe


def _waits(it: Workflow, now: float, wait: float) -> bool:
    """Whether it waits for company."""
    return it.row.status is Status.QUEUED and it.row.ready_at is not None and now < it.row.ready_at <= now + wait


def form(tables: Tables, command: c.Form) -> str | None:
    """The leader, those in line by rank, and those that still wait for company."""
    made = tables.workflows.get(command.batch.id)
    if made is not None:
        return made.row.input
    leader = tables.workflows.get(command.leader.workflow_id)
    if leader is None or (leader.row.status, leader.row.claim) != (Status.RUNNING, command.leader.claim):
        return None
    now, new = tables.clock(), command.batch
    like = (new.queue, new.partition, command.name, Status.QUEUED, new.instance, new.pin)
    others = [
        it
        for it in tables.workflows.values()
        if (it.row.queue, it.row.partition, it.row.name, it.row.status, it.row.instance, it.row.pin) == like
        and (it.row.ready_at is None or it.row.ready_at <= now + command.wait)
        and not it.journal
    ]
    others.sort(key=lambda it: (it.row.ready_at or 0.0, rank(it.row), it.row.id))
    first, *found = ((it.row.id, it.row.claim, it.row.input) for it in (leader, *others[: command.size - 1]))
    text = gathered(first, found, command.room)
    tables.workflows[new.id] = Workflow(first_row(replace(new, input=text), now))
    for place, item in enumerate(items(text)):
        _wait_for(tables.workflows[item.id], item.claim, command, place, now)
    return text


def settle(tables: Tables, end: Outcome, now: float) -> None:
    """End those that still wait under the claim they had."""
    for share in end.shares:
        workflow = tables.workflows.get(share.item.workflow_id)
        if workflow is not None and (workflow.row.status, workflow.row.claim) == (Status.WAITING, share.item.claim):
            workflow.awaits = ()
            workflow.row = replace(
                workflow.row,
                status=share.outcome.status,
                output=share.outcome.output,
                error=share.outcome.error,
                ready_at=None,
                ended_at=now,
            )


def _wait_for(workflow: Workflow, claim: int, command: c.Form, place: int, now: float) -> None:
    new = command.batch
    row = workflow.row
    workflow.row = replace(row, status=Status.WAITING, claim=claim, executor=None, ready_at=row.deadline)
    workflow.awaits = (new.id,)
    workflow.journal["1"] = Entry(
        "1", 1, Kind.START, new.name, output=str(place), child=new.id, version=new.version, started_at=now, ended_at=now
    )
    workflow.claims["1"] = claim
