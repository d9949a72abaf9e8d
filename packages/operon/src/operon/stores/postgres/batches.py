"""The commands about batches, each a transaction of its own: it changes many workflows, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from operon.core.batches import gathered, items
from operon.core.rows import Advanced, Outcome
from operon.stores.postgres import writes

if TYPE_CHECKING:
    from operon.core import commands as c
    from operon.stores.postgres.session import Row, Session


def ripen(session: Session, command: c.Ripen) -> int:
    """See `Ripen`."""
    names, sizes, waits = zip(*command.batches, strict=True) if command.batches else ((), (), ())
    queues = list(command.queues)
    return len(session.rows("ripen", queues=queues, names=list(names), sizes=list(sizes), waits=list(waits)))


def form(session: Session, command: c.Form) -> str | None:
    """See `Form`; a batch that is there was formed by this very command, whose answer was lost."""
    new = command.batch
    like: Row = {
        "queue": new.queue,
        "partition": new.partition,
        "instance": new.instance,
        "pin": new.pin,
        "name": command.name,
    }
    with session.connection.transaction():
        found = session.rows("leader", id=command.leader.workflow_id, claim=command.leader.claim)
        if not found:
            made = session.rows("describe", id=new.id)
            return str(made[0]["input"]) if made else None
        found += session.rows("followers", **like, limit=command.size - len(found))
        found += session.rows("companions", **like, limit=command.size - len(found), wait=command.wait)
        first, *others = ((row["id"], row["claim"], row["input"]) for row in found)
        text = gathered(first, others, command.room)
        writes.start(session, replace(new, input=text))
        those = items(text)
        session.rows(
            "join_batch",
            ids=[item.id for item in those],
            claims=[item.claim for item in those],
            batch=new.id,
            name=new.name,
            version=new.version,
        )
        return text


def settle(session: Session, command: c.Advance) -> Advanced:
    """End a batch, and its items with it; asked again after a lost answer, it finds that it is done."""
    shares = command.end.shares if isinstance(command.end, Outcome) else ()
    with session.connection.transaction():
        (answer,) = writes.perform(session, [command], again=True)
        if not isinstance(answer, Advanced) or not answer.written:
            return Advanced(written=False)
        session.rows(
            "settle_items",
            ids=[share.item.workflow_id for share in shares],
            claims=[share.item.claim for share in shares],
            statuses=[share.outcome.status.code for share in shares],
            outputs=[share.outcome.output for share in shares],
            errors=[share.outcome.error for share in shares],
        )
        return answer
