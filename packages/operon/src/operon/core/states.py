"""The states of a workflow and the moves between them, as one table; it must not know who makes them."""

from __future__ import annotations

from operon.types import CODES, ENDED, Status

__all__ = ["CODES", "ENDED", "MOVES", "STATUSES", "Status", "status_of"]

STATUSES: tuple[Status, ...] = tuple(Status)


def status_of(code: int) -> Status:
    """Give the state that a number stands for; what stands for none waits for a person."""
    return STATUSES[code] if 0 <= code < len(STATUSES) else Status.HELD


MOVES: dict[str, tuple[frozenset[Status], Status]] = {
    "claim": (frozenset({Status.QUEUED, Status.WAITING}), Status.RUNNING),
    "park": (frozenset({Status.RUNNING}), Status.WAITING),
    "get in line": (frozenset({Status.WAITING}), Status.QUEUED),
    "hand back": (frozenset({Status.RUNNING}), Status.QUEUED),
    "take over": (frozenset({Status.RUNNING}), Status.QUEUED),
    "hold": (frozenset({Status.RUNNING}), Status.HELD),
    "succeed": (frozenset({Status.RUNNING}), Status.SUCCEEDED),
    "fail": (frozenset({Status.RUNNING}), Status.FAILED),
    "cancel": (frozenset(set(Status) - ENDED), Status.CANCELLED),
}
"""Every move a workflow can make: its name, the states it may be made from, the state it ends in."""
