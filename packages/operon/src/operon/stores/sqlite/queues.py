"""How the commands about queues are answered in SQL, within the one writer's transaction."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from operon.core.queues import in_turn
from operon.core.rows import Limits, QueueRow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from operon.core import commands as c
    from operon.stores.sqlite.connection import Connection

LIMITS = Limits.__struct_fields__
PARTITIONS = 256
"""How many partitions a claim looks into; the next one goes on behind them."""
NO_LIMIT = 2**31


def admit(db: Connection, command: c.Claim, room: int, now: float) -> list[str]:
    """Pick what the queues let go, at most so many, in the order in which they are served."""
    wanted = {
        "names": json.dumps(command.names),
        "instances": json.dumps(command.instances),
        "version": command.version,
    }
    picked: list[str] = []
    for name, free in sorted(command.queues):
        queue = db.one("queue", name=name)
        if queue is None or queue["paused"]:
            continue
        db.run("promote", queue=name, now=now)
        at_most = min(free, room - len(picked), _room(db, queue, command.executor, now))
        if at_most > 0:
            picked += _serve(db, queue, at_most, wanted, now)
    return picked


def _room(db: Connection, queue: Any, executor: int, now: float) -> int:
    """How many more the queue as a whole lets run, and begin."""
    name, period = queue["name"], queue["period"] or 0.0
    if queue["rate"] is not None or queue["partition_rate"] is not None:
        db.run("prune", queue=name, now=now, period=period, partition_period=queue["partition_period"] or 0.0)
    running, here, admitted = db.one("taken", queue=name, executor=executor, now=now, period=period)
    rooms = ((queue["concurrency"], running), (queue["worker_concurrency"], here), (queue["rate"], admitted))
    return min((limit - taken for limit, taken in rooms if limit is not None), default=NO_LIMIT)


def _serve(db: Connection, queue: Any, room: int, wanted: dict[str, str], now: float) -> list[str]:
    """Serve partitions in turn, those behind the one that was served last first."""
    name = queue["name"]
    rooms: dict[str, int] = {}
    last = queue["served"]
    for partition in _partitions(db, name, queue["served"]):
        last = partition
        limit = min(room, _partition_room(db, queue, partition, now))
        if limit > 0:
            rooms[partition] = limit
        if len(rooms) >= room:
            break
    chosen: list[tuple[str, str]] = []
    # Few of each are enough, unless some lines are short; then look deeper.
    for depth in (-(-room // max(1, len(rooms))), room):
        lines = [_line(db, name, partition, min(limit, depth), wanted) for partition, limit in rooms.items()]
        chosen = in_turn(lines, room)
        if len(chosen) >= room:
            break
    served = chosen[-1][0] if chosen else last
    if served != queue["served"]:
        db.run("serve", queue=name, served=served)
    keys = [key for _, key in chosen]
    if keys and (queue["rate"] is not None or queue["partition_rate"] is not None):
        db.run("admit", queue=name, ids=json.dumps(keys), now=now)
    return keys


def _line(db: Connection, queue: str, partition: str, limit: int, wanted: dict[str, str]) -> list[tuple[str, str]]:
    found = db.run("line", queue=queue, partition=partition, limit=limit, **wanted)
    return [(partition, key) for (key,) in found]


def _partitions(db: Connection, name: str, served: str) -> Iterator[str]:
    """Each partition that has somebody in line, once around from the one that was served last, up to a bound."""
    (partition,) = db.one("partition_after", queue=name, partition=served)
    around = partition is None
    if around:
        (partition,) = db.one("partition_from", queue=name)
    for _ in range(PARTITIONS):
        if partition is None or (around and partition > served):
            return
        yield partition
        (partition,) = db.one("partition_after", queue=name, partition=partition)
        if partition is None and not around:
            around = True
            (partition,) = db.one("partition_from", queue=name)


def _partition_room(db: Connection, queue: Any, partition: str, now: float) -> int:
    limits = (queue["partition_concurrency"], queue["partition_rate"])
    if limits == (None, None):
        return NO_LIMIT
    period = queue["partition_period"] or 0.0
    taken = db.one("taken_of_partition", queue=queue["name"], partition=partition, now=now, period=period)
    rooms = (int(limit - used) for limit, used in zip(limits, taken, strict=True) if limit is not None)
    return min(rooms)


def seed(db: Connection, command: c.Seed, now: float) -> str | None:
    """See `Seed`."""
    queue = db.one("queue", name=command.name)
    if queue is None:
        db.run("declare", name=command.name, app=command.app, **spelled(command.limits))
        return None
    app, limits, declared = queue["app"], _limits(queue, ""), _limits(queue, "seed_")
    if app != command.app and declared != command.limits and db.one("rival", app=app, now=now):
        return str(app)
    if limits == declared:
        db.run("limit", name=command.name, **spelled(command.limits))
    db.run("reseed", name=command.name, app=command.app, **spelled(command.limits))
    return None


def change(db: Connection, command: c.SetQueue, _now: float) -> bool:
    """See `SetQueue`."""
    queue = db.one("queue", name=command.name)
    if queue is None:
        return False
    limits = command.limits or (_limits(queue, "seed_") if command.reset else None)
    if limits is not None:
        db.run("limit", name=command.name, **spelled(limits))
    if command.paused is not None:
        db.run("hold_line", name=command.name, paused=command.paused)
    return True


def listing(db: Connection, _command: c.Queues, _now: float) -> tuple[QueueRow, ...]:
    """By name."""
    return tuple(
        QueueRow(
            row["name"],
            row["app"],
            _limits(row, ""),
            _limits(row, "seed_"),
            bool(row["paused"]),
            row["queued"],
            row["running"],
        )
        for row in db.run("queues")
    )


def opening(db: Connection, command: c.Opening, now: float) -> float | None:
    """See `Opening`."""
    instants: list[float] = []
    for name in command.queues:
        queue = db.one("queue", name=name)
        if queue is None or queue["paused"] or db.one("partition_from", queue=name)[0] is None:
            continue
        windows = [(queue["rate"], queue["period"], None)]
        if queue["partition_rate"] is not None:
            each = [partition for (partition,) in db.run("waited_for", queue=name)]
            windows += [(queue["partition_rate"], queue["partition_period"], partition) for partition in each]
        for rate, period, partition in windows:
            if rate is not None and (full := db.one("admitted_before", queue=name, partition=partition, rate=rate)):
                instants.append(full[0] + period)
    return min((at - now for at in instants if at > now), default=None)


def spelled(limits: Limits) -> dict[str, Any]:
    """Spell limits as parameters."""
    return {name: getattr(limits, name) for name in LIMITS}


def _limits(row: Any, prefix: str) -> Limits:
    return Limits(*(row[prefix + name] for name in LIMITS))
