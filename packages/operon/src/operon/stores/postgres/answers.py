"""One function a command: the statements that answer it, and its answer as the core knows it. Never retries."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from psycopg.errors import LockNotAvailable

from operon.core import commands as c
from operon.core.rows import Claimed, Entry, Filter, Guard, Kind, Outcome, Peer, Pulse, WorkflowRow, read_row
from operon.stores.portions import excess
from operon.stores.postgres import batches, queues, retention, schedules
from operon.stores.postgres.writes import outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from operon.stores.postgres.session import Row, Session

NAMES = [name for name in WorkflowRow.__struct_fields__ if name != "damage"]
RECORDED = [name for name in Entry.__struct_fields__ if name != "after"]


def load(session: Session, command: c.Load) -> tuple[Entry, ...]:
    """Read a journal."""
    return journals(session, [command.workflow_id]).get(command.workflow_id, ())


def awaited(session: Session, command: c.Awaited) -> tuple[str, ...]:
    """Read what a workflow is parked for."""
    return tuple(row["awaited"] for row in session.rows("awaited", id=command.workflow_id))


def standing(session: Session, command: c.Standing) -> Mapping[str, int]:
    """See which have their record."""
    return {row["id"]: row["nonce"] for row in session.rows("standing", ids=list(command.ids))}


def journal(session: Session, _: c.Journal) -> str:
    """Read its name."""
    return str(session.rows("journal")[0]["journal"])


def journals(session: Session, ids: Sequence[str]) -> Mapping[str, tuple[Entry, ...]]:
    """Read the journals of those who have one."""
    rows = session.rows("load", ids=ids) if ids else ()
    return {key: tuple(map(entry, each)) for key, each in groupby(rows, key=itemgetter("workflow_id"))}


def look(session: Session, command: c.Look) -> Mapping[str, Outcome]:
    """See where some workflows stand."""
    rows = session.rows("look", ids=list(command.ids))
    return {row["id"]: outcome(row) for row in rows}


def find(session: Session, command: c.Find) -> tuple[WorkflowRow, ...]:
    """List what matches."""
    after_at, after_id = command.filter.after or (None, None)
    page = {"after_at": after_at, "after_id": after_id, "limit": command.filter.limit}
    return tuple(map(workflow, session.rows("find", **wanted(command.filter), **page)))


def count(session: Session, command: c.Count) -> int:
    """Count what matches."""
    return int(session.rows("count", **wanted(command.filter))[0]["count"])


def describe(session: Session, command: c.Describe) -> WorkflowRow | None:
    """Read one workflow."""
    rows = session.rows("describe", id=command.workflow_id)
    return workflow(rows[0]) if rows else None


def claim(session: Session, command: c.Claim) -> tuple[Claimed, ...]:
    """Take what is ready, and read the journals when the claim is committed: nobody else writes them any more."""
    wanted = {
        "executor": command.executor,
        "names": list(command.names),
        "instances": list(command.instances),
        "version": command.version,
    }
    rows = session.rows("claim", **wanted, limit=command.limit)
    rows.sort(key=lambda row: (row["since"], row["id"]))
    if command.queues and len(rows) < command.limit:
        names, places = zip(*command.queues, strict=True)
        left = command.limit - len(rows)
        try:
            rows += session.rows("admit", **wanted, limit=left, queues=list(names), places=list(places))
        except LockNotAvailable:
            if not rows:
                raise
    taken = _portion(session, command, [workflow(row) for row in rows])
    histories = journals(session, [row.id for row in taken if not row.fresh])
    return tuple(Claimed(row, histories.get(row.id, ())) for row in taken)


def _portion(session: Session, command: c.Claim, taken: list[WorkflowRow]) -> list[WorkflowRow]:
    """Keep those for whose journals there is room, and give the others back."""
    heavy = [row.id for row in taken if not row.fresh]
    weights = {row["workflow_id"]: row["weight"] for row in session.rows("weights", ids=heavy)} if heavy[1:] else {}
    over = {row.id: row.claim for row in excess(taken, weights, command.room)}
    if over:
        hand_back(session, c.HandBack(command.executor, tuple(Guard(*it) for it in over.items()), unbegun=True))
    return [row for row in taken if row.id not in over]


def cancel(session: Session, command: c.Cancel) -> tuple[Guard, ...]:
    """Cancel a tree."""
    return queues.cancel(session, command.workflow_id, children=command.children)


def clean_up(session: Session, command: c.CleanUp) -> tuple[Claimed, ...]:
    """Take clean-ups, and read the journals, which nobody writes any more."""
    wanted = {name: getattr(command, name) for name in ("executor", "version", "limit")}
    lists = {name: list(getattr(command, name)) for name in ("names", "instances", "here")}
    rows = session.rows("clean_up", **wanted, **lists)
    taken = [workflow(row) for row in rows]
    histories = journals(session, [row.id for row in taken])
    return tuple(Claimed(row, histories.get(row.id, ())) for row in taken)


def cleaned(session: Session, command: c.Cleaned) -> None:
    """Note that one is done."""
    session.rows("cleaned", id=command.workflow_id, executor=command.executor, claim=command.claim)


def wake(session: Session, command: c.Wake) -> int:
    """Make ready those who wait."""
    targets = None if command.targets is None else list(command.targets)
    return len(session.rows("wake", targets=targets))


def enlist(session: Session, command: c.Enlist) -> int:
    """Enter a process."""
    process = command.process
    rows = session.rows(
        "enlist",
        app=process.app,
        host=process.host,
        pid=process.pid,
        born=process.born,
        version=process.version,
        ttl=process.ttl,
    )
    return int(rows[0]["id"])


def beat(session: Session, command: c.Beat) -> Pulse:
    """Renew a lease."""
    (row,) = session.rows("beat", executor=command.executor, ttl=command.ttl, **schedules.mine(command.fires))
    expired = tuple(zip(row.pop("ids"), row.pop("beats"), strict=True))
    return Pulse(**row, expired=expired)


def executors(session: Session, _: c.Executors) -> tuple[Peer, ...]:
    """List the processes."""
    return tuple(Peer(**row) for row in session.rows("executors"))


def bury(session: Session, command: c.Bury) -> int:
    """Declare processes dead."""
    ids, beats = [key for key, _ in command.seen], [beat for _, beat in command.seen]
    return len(session.rows("bury", ids=ids, beats=beats, proven=command.proven))


def take_over(session: Session, command: c.TakeOver) -> int:
    """Requeue what the dead hold."""
    return len(session.rows("take_over", limit=command.limit, poison=command.poison, error=command.error))


def running(session: Session, command: c.Running) -> tuple[WorkflowRow, ...]:
    """List what an executor runs."""
    return tuple(map(workflow, session.rows("running", executor=command.executor)))


def hand_back(session: Session, command: c.HandBack) -> int:
    """Return work to the queue."""
    guards = command.guards
    ids = None if guards is None else [guard.workflow_id for guard in guards]
    claims = None if guards is None else [guard.claim for guard in guards]
    unbegun = int(command.unbegun)
    return len(session.rows("hand_back", executor=command.executor, ids=ids, claims=claims, unbegun=unbegun))


def retire(session: Session, command: c.Retire) -> None:
    """Return all work to the queue, and leave."""
    hand_back(session, c.HandBack(command.executor))
    session.rows("retire", executor=command.executor)


def rewind(session: Session, command: c.Rewind) -> None:
    """See `Rewind`; what another has locked is left to the one who has it, or to the clock."""
    session.rows("rewind", back=command.back)
    session.rows("rewind_leases", back=command.back, ttl=command.ttl)
    session.rows("rewind_admissions")


ANSWERS: Mapping[type[c.Command[Any]], Callable[[Session, Any], Any]] = {
    c.Start: queues.replace,
    c.StartMany: queues.start_many,
    c.Seed: queues.seed,
    c.SetQueue: queues.change,
    c.Queues: queues.listing,
    c.Opening: queues.opening,
    c.Advance: batches.settle,
    c.Ripen: batches.ripen,
    c.Form: batches.form,
    c.Delete: retention.delete,
    c.Sweep: retention.sweep,
    c.Strip: retention.strip,
    c.Prune: retention.prune,
    c.Schedules: schedules.listing,
    c.KeepSchedule: schedules.keep,
    c.ForgetSchedule: schedules.forget,
    c.Due: schedules.due,
    c.Fire: schedules.fire,
    c.Load: load,
    c.Awaited: awaited,
    c.Standing: standing,
    c.Journal: journal,
    c.Look: look,
    c.Find: find,
    c.Count: count,
    c.Describe: describe,
    c.Claim: claim,
    c.Cancel: cancel,
    c.CleanUp: clean_up,
    c.Cleaned: cleaned,
    c.Wake: wake,
    c.Enlist: enlist,
    c.Beat: beat,
    c.Executors: executors,
    c.Bury: bury,
    c.TakeOver: take_over,
    c.Running: running,
    c.HandBack: hand_back,
    c.Retire: retire,
    c.Rewind: rewind,
}


def workflow(row: Row) -> WorkflowRow:
    """Make a workflow of its row: instants are seconds, a status has a name."""
    values: Row = {name: row[name] for name in NAMES}
    values |= {name: value.timestamp() for name, value in values.items() if isinstance(value, datetime)}
    return read_row(values)


def entry(row: Row) -> Entry:
    """Make an entry of its row."""
    values: Row = {name: row[name] for name in RECORDED}
    values["kind"] = Kind(row["kind"])
    return Entry(**values)


def wanted(filter_: Filter) -> Row:
    """Spell a filter; labels go as one JSON object."""
    labels = ", ".join(f"{json.dumps(label)}: {text}" for label, text in filter_.attributes)
    return {
        "name": filter_.name,
        "status": None if filter_.status is None else [status.code for status in filter_.status],
        "parent": filter_.parent,
        "user": filter_.user,
        "queue": filter_.queue,
        "since": filter_.since,
        "until": filter_.until,
        "labels": f"{{{labels}}}" if labels else None,
    }
