"""What is made good when the store's clock was put back, in plain Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from operon.core.states import Status

if TYPE_CHECKING:
    from operon.core import commands as c
    from operon.stores.memory.store import MemoryStore


def rewind(store: MemoryStore, command: c.Rewind) -> None:
    """See `Rewind`."""
    now, back = store.clock(), command.back
    for workflow in store.workflows.values():
        row = workflow.row
        if row.status in (Status.QUEUED, Status.WAITING) and now < (row.ready_at or now) <= now + back:
            workflow.row = replace(row, ready_at=(row.ready_at or now) - back)
    for peer in tuple(store.executors.values()):
        if peer.alive and peer.lease_until > now + back:
            lease = max(peer.lease_until - back, now + command.ttl)
            store.executors[peer.id] = replace(peer, lease_until=lease)
    for line in store.queues.values():
        line.admitted = [(partition, min(at, now)) for partition, at in line.admitted]
