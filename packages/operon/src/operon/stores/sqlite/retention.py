"""How the commands about retention are answered in SQL, within the one writer's transaction."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from operon.core.rows import Obstacle, Swept
from operon.core.states import Status, status_of

if TYPE_CHECKING:
    from operon.core import commands as c
    from operon.stores.sqlite.connection import Connection


def delete(db: Connection, command: c.Delete, _now: float) -> int | Obstacle:
    """See `Delete`."""
    keys: list[str] = []
    for key, code, below in db.run("tree", id=command.workflow_id):
        status = status_of(int(code))
        if not status.ended and not (status is Status.HELD and key == command.workflow_id):
            return Obstacle(key, status)
        keys += [key] if below else []
    ids = json.dumps(keys)
    for statement in ("delete_steps", "delete_awaits", "delete"):
        db.run(statement, ids=ids)
    return len(keys)


def sweep(db: Connection, command: c.Sweep, now: float) -> Swept:
    """See `Sweep`."""
    page: list[tuple[int, str, float]] = []
    at, key = command.after or (None, None)
    for place, policy in enumerate(command.policies):
        wanted = {"name": policy.name, "status": policy.status.code, "until": now - policy.keep}
        left = command.limit - len(page)
        found = db.run("aged_keys" if command.keys else "aged", **wanted, after_at=at, after_id=key, limit=left)
        page += ((place, row["id"], row["ended_at"]) for row in found)
        if len(page) >= command.limit:
            break
        at = key = None
    ids = json.dumps([key for _, key, _ in page])
    free = json.dumps([key for (key,) in db.run("forgettable" if command.keys else "erasable", ids=ids, now=now)])
    gone = db.changes("delete" if command.keys else "erase", ids=free)
    if len(page) < command.limit:
        return Swept(gone)
    place, last, ended_at = page[-1]
    return Swept(gone, place, (ended_at, last))


def strip(db: Connection, command: c.Strip, _now: float) -> int:
    """See `Strip`."""
    gone = db.changes("strip", limit=command.limit)
    db.run("stripped", limit=command.limit)
    return gone


def prune(db: Connection, command: c.Prune, now: float) -> int:
    """See `Prune`."""
    return db.changes("prune_executors", until=now - command.older, limit=command.limit) + db.changes(
        "prune_admissions", now=now, limit=command.limit
    )
