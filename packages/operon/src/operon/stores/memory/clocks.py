"""The clock of a store in memory, and what is made good when it was put back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from operon.core.states import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from operon.core import commands as c
    from operon.stores.memory.store import MemoryStore


class Clock:
    """A clock that stands still until it is advanced, or follows another and can be moved ahead of it.

    Standing still, each reading is a microsecond after the last, so that the order of events is that of their instants.
    """

    def __init__(self, source: Callable[[], float] | None = None, start: float = 1_700_000_000.0) -> None:
        self._source = source
        self._ahead = 0.0 if source else start

    def __call__(self) -> float:
        """Seconds since 1970, to the microsecond, as a datetime has them."""
        if self._source:
            return round(self._source() + self._ahead, 6)
        self.advance(1e-6)
        return round(self._ahead, 6)

    def advance(self, seconds: float) -> None:
        """Let this much time pass."""
        self._ahead += seconds


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
