"""How the commands about batches are answered in SQL, within the one writer's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from operon.core.batches import gathered, items
from operon.core.rows import workflow_parameters

if TYPE_CHECKING:
    from operon.core import commands as c
    from operon.core.rows import Outcome
    from operon.stores.sqlite.connection import Connection


def ripen(db: Connection, command: c.Ripen, now: float) -> int:
    """See `Ripen`."""
    return sum(
        db.changes("ripen", queue=queue, name=name, size=size, wait=wait, now=now)
        for name, size, wait in command.batches
        for queue in command.queues
    )


def form(db: Connection, command: c.Form, now: float) -> str | None:
    """See `Form`."""
    leader = db.one("leader", id=command.leader.workflow_id, claim=command.leader.claim)
    if leader is None:
        made = db.one("describe", id=command.batch.id)
        return None if made is None else str(made["input"])
    new = command.batch
    like: dict[str, Any] = {"queue": new.queue, "partition": new.partition, "instance": new.instance, "pin": new.pin}
    like["name"] = command.name
    others = db.run("followers", **like, limit=command.size - 1).fetchall()
    left = command.size - 1 - len(others)
    others += db.run("companions", **like, limit=left, wait=command.wait, now=now).fetchall()
    text = gathered(tuple(leader), (tuple(it) for it in others), command.room)
    db.run("start", **workflow_parameters(replace(new, input=text)), executor=new.executor, parent_claim=None, now=now)
    for place, item in enumerate(items(text)):
        db.run("join_batch", id=item.id, claim=item.claim)
        db.run("await_batch", id=item.id, batch=new.id)
        note = {"name": new.name, "version": new.version, "place": str(place), "claim": item.claim}
        db.run("note_batch", id=item.id, batch=new.id, **note, now=now)
    return text


def settle(db: Connection, end: Outcome, now: float) -> None:
    """End the items with their batch."""
    for share in end.shares:
        outcome = share.outcome
        values = {"status": outcome.status.code, "output": outcome.output, "error": outcome.error, "now": now}
        db.run("settle_item", id=share.item.workflow_id, claim=share.item.claim, **values)
