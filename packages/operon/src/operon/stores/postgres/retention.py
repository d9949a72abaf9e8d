"""The commands about retention: pages that lock nothing which others have locked, and the deletion of a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.errors import SerializationFailure

from operon.core.rows import Obstacle, Swept
from operon.core.states import Status, status_of

if TYPE_CHECKING:
    from operon.core import commands as c
    from operon.stores.postgres.session import Row, Session

TURNS = 5
"""A tree that has grown meanwhile is looked at again; what may grow is alive, and in the way."""


def delete(session: Session, command: c.Delete) -> int | Obstacle:
    """Lock the tree, then look whether it still is the one that was locked."""
    locked: list[str] = []
    with session.connection.transaction():
        for _ in range(TURNS):
            rows = session.rows("tree", id=command.workflow_id)
            obstacle = _obstacle(command.workflow_id, rows)
            if obstacle is not None or not any(row["below"] for row in rows):
                return obstacle or 0
            if {row["id"] for row in rows} <= set(locked):
                return len(session.rows("delete", ids=[row["id"] for row in rows if row["below"]]))
            locked = sorted(row["id"] for row in rows)
            session.rows("keep_still", ids=locked)
    raise SerializationFailure("others came in between, again and again")


def _obstacle(key: str, rows: list[Row]) -> Obstacle | None:
    for row in rows:
        code: int = row["status"]
        status = status_of(code)
        if not status.ended and not (status is Status.HELD and row["id"] == key):
            return Obstacle(row["id"], status)
    return None


def sweep(session: Session, command: c.Sweep) -> Swept:
    """See `Sweep`."""
    at, key = command.after or (float("-inf"), "")
    more = len(command.policies) - 1
    (row,) = session.rows(
        "forget" if command.keys else "erase",
        names=[policy.name for policy in command.policies],
        statuses=[policy.status.code for policy in command.policies],
        keeps=[policy.keep for policy in command.policies],
        after_ats=[at, *[float("-inf")] * more],
        after_ids=[key, *[""] * more],
        limit=command.limit,
    )
    if row["looked"] < command.limit:
        return Swept(row["gone"])
    return Swept(row["gone"], row["policy"], (row["ended_at"], row["id"]))


def strip(session: Session, command: c.Strip) -> int:
    """See `Strip`."""
    gone = len(session.rows("strip", limit=command.limit))
    session.rows("stripped", limit=command.limit)
    return gone


def prune(session: Session, command: c.Prune) -> int:
    """See `Prune`."""
    executors = session.rows("prune_executors", limit=command.limit, older=command.older)
    return len(executors) + len(session.rows("prune_admissions", limit=command.limit))
