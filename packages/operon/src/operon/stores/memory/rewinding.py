"""What is made good when the clock was put back, in plain Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from operon.core.states import Status

if TYPE_CHECKING:
    from operon.core import commands as c
    from operon.stores.memory.tables import Tables


def rewind(tables: Tables, command: c.Rewind) -> None:
    """See `Rewind`."""
    now, back = tables.clock(), command.back
    for workflow in tables.workflows.values():
        row = workflow.row
        if row.status in (Status.QUEUED, Status.WAITING) and now < (row.ready_at or now) <= now + back:
            workflow.row = replace(row, ready_at=(row.ready_at or now) - back)
    for peer in tuple(tables.executors.values()):
        if peer.alive and peer.lease_until > now + back:
            lease = max(peer.lease_until - back, now + command.ttl)
            tables.executors[peer.id] = replace(peer, lease_until=lease)
    for queue in tables.queues.values():
        queue.admitted = [(partition, min(at, now)) for partition, at in queue.admitted]
