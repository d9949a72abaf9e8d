"""The commands about queues, and starts that are transactions of their own: in one commit, or in place of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs
from psycopg.errors import SerializationFailure

from operon.core import commands as c
from operon.core.rows import Guard, Limits, QueueRow, Started
from operon.stores.postgres import writes

if TYPE_CHECKING:
    from operon.stores.postgres.session import Row, Session

LIMITS = Limits.__struct_fields__
TURNS = 20
"""Others may replace what was put in place of another, again and again; but not for long."""


class Overtaken(Exception):
    """Another took the dedupe or has the id: nothing of this transaction may stay."""

    def __init__(self, answer: Started | None) -> None:
        super().__init__()
        self.answer = answer


def start_many(session: Session, command: c.StartMany) -> tuple[Started, ...]:
    """Insert workflows in one statement; a nonce says which of them were inserted before an answer was lost."""
    first = {row.id: row for row in reversed(command.rows)}
    answers = writes.perform(session, [c.Start(row) for row in first.values()], again=True) if first else []
    started = dict(zip(first, answers, strict=True))
    found = (started[row.id] if first[row.id] is row else writes.fetch(session, row) for row in command.rows)
    return tuple(answer for answer in found if isinstance(answer, Started))


def replace(session: Session, command: c.Start) -> Started:
    """Cancel who has the dedupe, with what descends from it, and insert another, in one commit."""
    row = command.row
    for _ in range(TURNS):
        try:
            with session.connection.transaction():
                holders = session.rows("holder", dedupe=row.dedupe, id=row.id)
                replaced = tuple(guard for holder in holders for guard in cancel(session, holder["id"]))
                started = writes.start(session, row) or writes.fetch(session, row)
                return structs.replace(_own(started), replaced=replaced)
        except Overtaken as overtaken:
            if overtaken.answer is not None and overtaken.answer.id is None:
                return overtaken.answer
    raise SerializationFailure("others came in between, again and again")


def cancel(session: Session, key: str, *, children: bool = True) -> tuple[Guard, ...]:
    """Cancel a tree: pass after pass, until one finds nobody alive."""
    first = True
    while session.rows("cancel", id=key, children=children, first=first):
        first = False
    return tuple(Guard(row["id"], row["claim"]) for row in session.rows("revoked", id=key, children=children))


def _own(started: Started | None) -> Started:
    if started is None or not started.created:
        raise Overtaken(started)
    return started


def seed(session: Session, command: c.Seed) -> str | None:
    """See `Seed`."""
    declared = {"name": command.name, "app": command.app, **spelled(command.limits)}
    if session.rows("seeded", **declared) or session.rows("seed", **declared):
        return None
    return str(session.rows("declared_by", name=command.name)[0]["app"])


def change(session: Session, command: c.SetQueue) -> bool:
    """See `SetQueue`."""
    with session.connection.transaction():
        if command.reset:
            session.rows("reset_limits", name=command.name)
        if command.limits is not None:
            session.rows("limit", name=command.name, **spelled(command.limits))
        return bool(session.rows("hold_line", name=command.name, paused=command.paused))


def listing(session: Session, _: c.Queues) -> tuple[QueueRow, ...]:
    """By name."""
    return tuple(
        QueueRow(
            row["name"],
            row["app"],
            _limits(row, ""),
            _limits(row, "seed_"),
            row["paused"],
            row["queued"],
            row["running"],
        )
        for row in session.rows("queues")
    )


def opening(session: Session, command: c.Opening) -> float | None:
    """See `Opening`."""
    seconds: float | None = session.rows("opening", queues=list(command.queues))[0]["seconds"]
    return seconds


def spelled(limits: Limits) -> Row:
    """Spell limits as parameters."""
    return {name: getattr(limits, name) for name in LIMITS}


def _limits(row: Row, prefix: str) -> Limits:
    return Limits(*(row[prefix + name] for name in LIMITS))
