"""The states of a workflow and the moves between them, as one table; it must not know who makes them."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Where a workflow is; compares equal to its name, `record.status == "running"`."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    HELD = "held"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def code(self) -> int:
        """The number that stands for this state in the database."""
        return CODES[self]

    @property
    def ended(self) -> bool:
        """Whether nothing will ever change the outcome again."""
        return self in ENDED


CODES: dict[Status, int] = {status: code for code, status in enumerate(Status)}
STATUSES: tuple[Status, ...] = tuple(Status)
ENDED = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})


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
