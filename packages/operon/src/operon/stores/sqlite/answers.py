"""How each command is answered in SQL; it must not know threads, commits nor retries."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec.structs import replace

from operon.core import commands as c
from operon.core.rows import (
    Advanced,
    Claimed,
    Entry,
    Filter,
    Guard,
    Kind,
    NewWorkflow,
    Outcome,
    Park,
    Peer,
    Process,
    Pulse,
    Started,
    WorkflowRow,
    read_row,
    record_parameters,
    workflow_parameters,
)
from operon.core.states import Status, status_of
from operon.stores.portions import excess
from operon.stores.sqlite import batches, queues, retention, schedules
from operon.stores.sqlite.connection import SQL, Connection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from operon.core.timetable import Fired

Answer: TypeAlias = "Callable[[Connection, Any, float], Any]"
PROCESS = Process.__struct_fields__
ROW = [name for name in WorkflowRow.__struct_fields__ if name != "damage"]
COUNT = f"select count(*) from ({SQL['find']})"  # noqa: S608 - one constant within another


class Undone(Exception):
    """Carries the answer of a command whose changes must be undone."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer


def answer(db: Connection, command: c.Command[Any], now: float) -> Any:
    """Do what a command says, within the transaction that is open.

    Raises:
        Undone: it is done, and none of its changes may stay.
    """
    return ANSWERS[type(command)](db, command, now)


def _start(db: Connection, command: c.Start, now: float) -> Started:
    new = command.row
    replaced: tuple[Guard, ...] = ()
    if new.replace and (holder := db.one("holder", dedupe=new.dedupe, id=new.id)):
        replaced = _cancel(db, c.Cancel(holder["id"]), now)
    if db.changes("start", **_new(new), now=now):
        status = Status.QUEUED if new.executor is None else Status.RUNNING
        return Started(created=True, outcome=Outcome(status), name=new.name, digest=new.digest, replaced=replaced)
    there = db.one("started", id=new.id, dedupe=new.dedupe)
    if there is None or (there["id"] != new.id and not _may_start(db, new)):
        refused = Started(created=False, outcome=Outcome(Status.CANCELLED), name="", digest="", refused=True)
        raise Undone(refused)
    key, nonce, name, digest, *outcome = there
    started = Started(nonce == new.nonce, _outcome(*outcome), name, digest, id=None if key == new.id else key)
    if new.replace and not started.created:
        raise Undone(started)
    return started


def _may_start(db: Connection, new: NewWorkflow) -> bool:
    parent = new.parent
    return parent is None or db.one("holds", id=parent.workflow_id, claim=parent.claim) is not None


def _start_many(db: Connection, command: c.StartMany, now: float) -> tuple[Started, ...]:
    return tuple(_start(db, c.Start(row), now) for row in command.rows)


def _fire(db: Connection, command: c.Fire, now: float) -> Fired | None:
    return schedules.fire(db, command, now, _start)


def _advance(db: Connection, command: c.Advance, now: float) -> Advanced:
    guard, end = Guard(command.workflow_id, command.claim), command.end
    if not db.one("holds", id=guard.workflow_id, claim=guard.claim):
        return Advanced(written=False)
    outputs = [(_append(db, guard, entry, now), entry.after) for entry in command.entries]
    if isinstance(end, Outcome):
        _finish(db, guard.workflow_id, end, now)
        batches.settle(db, end, now)
    parked = isinstance(end, Park) and _park(db, guard.workflow_id, end)
    return Advanced(
        written=True, parked=parked, instants=tuple(float(output) for output, after in outputs if after is not None)
    )


def _append(db: Connection, guard: Guard, entry: Entry, now: float) -> Any:
    """Write an entry, or find that this claim has written it before; give its output."""
    if entry.after is not None:
        entry = replace(entry, output=repr(now + entry.after))
    values = record_parameters(guard, entry)
    if db.changes("append", **values, now=now):
        return entry.output
    if (there := db.one("appended", **values, after=entry.after)) is None:
        raise Undone(Advanced(written=False))
    return there[0]


def _finish(db: Connection, key: str, end: Outcome, now: float) -> None:
    db.run(
        "finish",
        id=key,
        status=end.status.code,
        output=end.output,
        error=end.error,
        ready_at=now if end.status is Status.QUEUED else None,
        ended_at=now if end.status.ended else None,
        cleaner=end.cleaner,
        now=now,
    )


def _park(db: Connection, key: str, park: Park) -> bool:
    awaits = json.dumps(park.awaits)
    parked = db.changes("park", id=key, ready_at=park.ready_at, awaits=awaits) == 1
    if parked and park.awaits:
        db.run("await", id=key, awaits=awaits)
        if park.quiet:
            db.run("hush", id=key, quiet=json.dumps(park.quiet))
    return parked


def _claim(db: Connection, command: c.Claim, now: float) -> tuple[Claimed, ...]:
    names, instances = json.dumps(command.names), json.dumps(command.instances)
    wanted = {"names": names, "instances": instances, "version": command.version, "limit": command.limit}
    keys = [key for (key,) in db.run("ready", **wanted, now=now)]
    keys += queues.admit(db, command, command.limit - len(keys), now) if command.queues else ()
    order = {key: place for place, key in enumerate(keys)}
    if not order:
        return ()
    taken = list(_rows(db.run("claim", ids=json.dumps([*order]), executor=command.executor, now=now)))
    taken.sort(key=lambda row: order[row.id])
    taken = _portion(db, command, taken, now)
    journals = _journals(db, [row.id for row in taken if not row.fresh])
    return tuple(Claimed(row, journals.get(row.id, ())) for row in taken)


def _portion(db: Connection, command: c.Claim, taken: list[WorkflowRow], now: float) -> list[WorkflowRow]:
    """Keep those for whose journals there is room, and give the others back."""
    heavy = [row.id for row in taken if not row.fresh]
    weights = dict(db.run("weights", ids=json.dumps(heavy)).fetchall()) if heavy[1:] else {}
    over = {row.id: row.claim for row in excess(taken, weights, command.room)}
    if over:
        _hand_back(db, c.HandBack(command.executor, tuple(Guard(*it) for it in over.items()), unbegun=True), now)
    return [row for row in taken if row.id not in over]


def _wake(db: Connection, command: c.Wake, now: float) -> int:
    targets = [key for (key,) in db.run("noted")] if command.targets is None else command.targets
    woken = db.changes("wake", targets=json.dumps(targets), now=now)
    db.run("forget_wakes", targets=json.dumps(targets))
    return woken


def _cancel(db: Connection, command: c.Cancel, now: float) -> tuple[Guard, ...]:
    tree = {"id": command.workflow_id, "children": command.children}
    db.run("cancel", **tree, now=now)
    return tuple(Guard(*row) for row in db.run("revoked", **tree))


def _clean_up(db: Connection, command: c.CleanUp, now: float) -> tuple[Claimed, ...]:
    wanted = {"executor": command.executor, "version": command.version, "limit": command.limit}
    lists = {name: json.dumps(getattr(command, name)) for name in ("names", "instances", "here")}
    taken = list(_rows(db.run("clean_up", **wanted, **lists, now=now)))
    journals = _journals(db, [row.id for row in taken])
    return tuple(Claimed(row, journals.get(row.id, ())) for row in taken)


def _cleaned(db: Connection, command: c.Cleaned, _now: float) -> None:
    db.run("cleaned", id=command.workflow_id, executor=command.executor, claim=command.claim)


def _enlist(db: Connection, command: c.Enlist, now: float) -> int:
    process = {name: getattr(command.process, name) for name in PROCESS}
    return int(db.one("enlist", **process, now=now)[0])


def _beat(db: Connection, command: c.Beat, now: float) -> Pulse:
    alive = db.changes("beat", executor=command.executor, ttl=command.ttl, now=now) == 1
    running, due, stirred, lined, untidy = db.one("pulse", executor=command.executor, now=now)
    expired = tuple((peer, beat) for peer, beat in db.run("expired", now=now))
    at = schedules.planned(db, command.fires)
    return Pulse(
        alive=alive,
        now=now,
        running=running,
        expired=expired,
        due=due,
        stirred=bool(stirred),
        lined=bool(lined),
        planned=None if at is None else at - now,
        untidy=bool(untidy),
    )


def _bury(db: Connection, command: c.Bury, now: float) -> int:
    return sum(
        db.changes("bury", executor=executor, beat=beat, proven=command.proven, now=now)
        for executor, beat in command.seen
    )


def _take_over(db: Connection, command: c.TakeOver, now: float) -> int:
    return db.changes("take_over", limit=command.limit, poison=command.poison, error=command.error, now=now)


def _hand_back(db: Connection, command: c.HandBack, now: float) -> int:
    guards = command.guards
    pairs = None if guards is None else json.dumps([(guard.workflow_id, guard.claim) for guard in guards])
    return db.changes("hand_back", executor=command.executor, guards=pairs, unbegun=int(command.unbegun), now=now)


def _retire(db: Connection, command: c.Retire, now: float) -> None:
    _hand_back(db, c.HandBack(command.executor), now)
    db.run("retire", executor=command.executor)


def _rewind(db: Connection, command: c.Rewind, now: float) -> None:
    db.run("rewind", back=command.back, now=now)
    db.run("rewind_leases", back=command.back, ttl=command.ttl, now=now)
    db.run("rewind_admissions", now=now)


def _load(db: Connection, command: c.Load, _now: float) -> tuple[Entry, ...]:
    return _journals(db, [command.workflow_id]).get(command.workflow_id, ())


def _awaited(db: Connection, command: c.Awaited, _now: float) -> tuple[str, ...]:
    return tuple(key for (key,) in db.run("awaited", id=command.workflow_id))


def _standing(db: Connection, command: c.Standing, _now: float) -> Mapping[str, int]:
    return dict(db.run("standing", ids=json.dumps(command.ids)).fetchall())


def _journal(db: Connection, _command: c.Journal, _now: float) -> str:
    return str(db.one("journal")[0])


def _journals(db: Connection, ids: Sequence[str]) -> Mapping[str, tuple[Entry, ...]]:
    found = db.run("load", ids=json.dumps(ids)) if ids else ()
    return {
        key: tuple(Entry(position, ordinal, Kind(kind), *rest) for _, position, ordinal, kind, *rest in rows)
        for key, rows in groupby(found, key=itemgetter(0))
    }


def _look(db: Connection, command: c.Look, _now: float) -> Mapping[str, Outcome]:
    found = db.run("look", ids=json.dumps(command.ids))
    return {key: _outcome(*outcome) for key, *outcome in found}


def _describe(db: Connection, command: c.Describe, _now: float) -> WorkflowRow | None:
    return next(_rows(db.run("describe", id=command.workflow_id)), None)


def _find(db: Connection, command: c.Find, _now: float) -> tuple[WorkflowRow, ...]:
    return tuple(_rows(db.run("find", **_wanted(command.filter))))


def _count(db: Connection, command: c.Count, _now: float) -> int:
    everything = replace(command.filter, limit=-1, after=None)
    return int(db.execute(COUNT, _wanted(everything)).fetchone()[0])


def _running(db: Connection, command: c.Running, _now: float) -> tuple[WorkflowRow, ...]:
    return tuple(_rows(db.run("running", executor=command.executor)))


def _executors(db: Connection, _command: c.Executors, _now: float) -> tuple[Peer, ...]:
    return tuple(replace(Peer(*row), alive=bool(row[6])) for row in db.run("executors"))


READS: Mapping[type[c.Command[Any]], Answer] = {
    c.Load: _load,
    c.Awaited: _awaited,
    c.Standing: _standing,
    c.Journal: _journal,
    c.Look: _look,
    c.Describe: _describe,
    c.Find: _find,
    c.Count: _count,
    c.Running: _running,
    c.Executors: _executors,
    c.Queues: queues.listing,
    c.Schedules: schedules.listing,
}
WRITES: Mapping[type[c.Command[Any]], Answer] = {
    c.Start: _start,
    c.StartMany: _start_many,
    c.Seed: queues.seed,
    c.SetQueue: queues.change,
    c.Opening: queues.opening,
    c.KeepSchedule: schedules.keep,
    c.ForgetSchedule: schedules.forget,
    c.Due: schedules.due,
    c.Fire: _fire,
    c.Advance: _advance,
    c.Claim: _claim,
    c.Wake: _wake,
    c.Cancel: _cancel,
    c.CleanUp: _clean_up,
    c.Cleaned: _cleaned,
    c.Enlist: _enlist,
    c.Beat: _beat,
    c.Bury: _bury,
    c.TakeOver: _take_over,
    c.HandBack: _hand_back,
    c.Retire: _retire,
    c.Rewind: _rewind,
    c.Ripen: batches.ripen,
    c.Form: batches.form,
    c.Delete: retention.delete,
    c.Sweep: retention.sweep,
    c.Strip: retention.strip,
    c.Prune: retention.prune,
}
ANSWERS: Mapping[type[c.Command[Any]], Answer] = {**READS, **WRITES}


def _new(new: NewWorkflow) -> dict[str, Any]:
    """Spell a new workflow as parameters."""
    parent_claim = new.parent.claim if new.parent else None
    return workflow_parameters(new) | {"executor": new.executor, "parent_claim": parent_claim}


def _outcome(status: int, output: str | None, error: str | None, erased: float | None) -> Outcome:
    return Outcome(status_of(status), output, error, erased)


def _rows(found: Iterable[Any]) -> Iterator[WorkflowRow]:
    for row in found:
        yield read_row({name: row[name] for name in ROW})


def _wanted(wanted: Filter) -> dict[str, Any]:
    """Spell a filter as parameters."""
    at, key = wanted.after or (None, None)
    return {
        "name": wanted.name,
        "status": None if wanted.status is None else json.dumps([status.code for status in wanted.status]),
        "parent": wanted.parent,
        "user": wanted.user,
        "queue": wanted.queue,
        "since": wanted.since,
        "until": wanted.until,
        "attributes": json.dumps({label: json.loads(text) for label, text in wanted.attributes}),
        "limit": wanted.limit,
        "after_at": at,
        "after_id": key,
    }
