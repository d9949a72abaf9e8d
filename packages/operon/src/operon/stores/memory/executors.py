"""What the commands about executors mean, in plain Python: their leases, and what the dead leave behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from operon.core import commands as c
from operon.core.rows import Peer, Pulse, WorkflowRow
from operon.core.states import Status
from operon.stores.memory import claiming, cleaning, queues, schedules

if TYPE_CHECKING:
    from operon.stores.memory.tables import Tables


def enlist(tables: Tables, command: c.Enlist) -> int:
    """Give an id that nobody had before."""
    process, fresh = command.process, next(tables.ids)
    tables.executors[fresh] = Peer(
        id=fresh,
        beat=0,
        app=process.app,
        host=process.host,
        pid=process.pid,
        born=process.born,
        alive=True,
        lease_until=tables.clock() + process.ttl,
        version=process.version,
    )
    return fresh


def beat(tables: Tables, command: c.Beat) -> Pulse:
    """Renew the lease of the living; the dead stay dead."""
    now, me = tables.clock(), tables.executors.get(command.executor)
    alive = me is not None and me.alive
    if me and alive:
        tables.executors[me.id] = replace(me, beat=me.beat + 1, lease_until=now + command.ttl)
    orphaned = any(not peer.alive and tables.run_by(peer.id) for peer in tables.executors.values())
    due = min((w.row.ready_at for w in tables.workflows.values() if w.row.ready_at is not None), default=None)
    planned = next((row.next_at for row in schedules.planned(tables, command.fires)), None)
    return Pulse(
        alive=alive,
        now=now,
        running=len(tables.run_by(command.executor)),
        expired=tuple((p.id, p.beat) for p in tables.executors.values() if p.alive and p.lease_until < now),
        due=None if due is None else due - now,
        stirred=orphaned or any(claiming.is_stirred(tables, w, None) for w in claiming.sleepers(tables, now)),
        lined=queues.lined(tables, command.executor),
        planned=None if planned is None else planned - now,
        untidy=any(cleaning.due(tables, now, command.executor)),
    )


def listing(tables: Tables, _: c.Executors) -> tuple[Peer, ...]:
    """Living ones first, then in the order in which they came."""
    return tuple(sorted(tables.executors.values(), key=lambda peer: (not peer.alive, peer.id)))


def bury(tables: Tables, command: c.Bury) -> int:
    """Declare dead whose beat stood still, once the lease is over or the death is proven."""
    now = tables.clock()
    seen = (peer for key, beat in command.seen if (peer := tables.executors.get(key)) and peer.beat == beat)
    dead = [peer for peer in seen if peer.alive and (command.proven or peer.lease_until < now)]
    tables.executors |= {peer.id: replace(peer, alive=False) for peer in dead}
    return len(dead)


def take_over(tables: Tables, command: c.TakeOver) -> int:
    """Requeue what the dead hold, each time later, and hold what has died too often since its last record."""
    living = {peer.id for peer in tables.executors.values() if peer.alive}
    orphans = sorted(w.row.id for w in tables.running() if w.row.executor not in living)[: command.limit]
    now = tables.clock()
    for workflow in map(tables.workflows.__getitem__, orphans):
        row = workflow.row
        before = 0 if row.claim in workflow.claims.values() else row.takeovers
        poisoned = before >= command.poison
        workflow.row = replace(
            row,
            status=Status.HELD if poisoned else Status.QUEUED,
            error=command.error if poisoned else None,
            ready_at=None if poisoned else now + min(300.0, 2.0**before - 1),
            executor=None,
            claim=row.claim + 1,
            takeovers=before + 1,
        )
    return len(orphans)


def running(tables: Tables, command: c.Running) -> tuple[WorkflowRow, ...]:
    """By id."""
    return tuple(sorted((w.row for w in tables.run_by(command.executor)), key=lambda row: row.id))


def retire(tables: Tables, command: c.Retire) -> None:
    """Hand back all, and die."""
    claiming.hand_back(tables, c.HandBack(command.executor))
    if me := tables.executors.get(command.executor):
        tables.executors[me.id] = replace(me, alive=False)
