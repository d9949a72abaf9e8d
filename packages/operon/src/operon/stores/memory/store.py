"""A store in memory: what every command means, in plain Python; it must not know any database.

This is the specification. The conformance suite holds the other stores to it, and the simulator wraps `apply`.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from uuid import uuid4
from weakref import WeakMethod

from msgspec.structs import replace

from operon.core import commands as c
from operon.core.rows import (
    Advanced,
    Claimed,
    Entry,
    Filter,
    Guard,
    Outcome,
    Park,
    Peer,
    Pulse,
    Started,
    WorkflowRow,
    first_row,
)
from operon.core.states import MOVES, Status
from operon.promises import Promise
from operon.stores.memory import batches, cleaning, clocks, retention, schedules
from operon.stores.memory import queues as lines
from operon.stores.memory.clocks import Clock
from operon.stores.portions import excess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from operon.core.store import Lock
    from operon.core.timetable import Agenda, ScheduleRow

T = TypeVar("T")

READY_FROM = MOVES["claim"][0]


@dataclass(slots=True)
class Workflow:
    """A row, its journal by position, and what it waits for."""

    row: WorkflowRow
    journal: dict[str, Entry] = field(default_factory=dict[str, Entry])
    claims: dict[str, int] = field(default_factory=dict[str, int])
    """The claim that wrote each position."""
    awaits: tuple[str, ...] = ()
    quiet: tuple[str, ...] = ()
    cleanup: cleaning.Cleanup | None = None


class MemoryStore:
    """Answers every command at once, under one lock, and forgets all when it is dropped.

    Its clock is the machine's, so that what waits ends; tests may give another, such as a `Clock` that stands still.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.url = "memory://"
        self.dialect: Literal["postgres", "sqlite", "memory"] = "memory"
        self.journal = f"memory:{uuid4()}"
        self.queries: Mapping[str, str] = {}
        self.writer: Lock | None = None
        self.clock = clock if isinstance(clock, Clock) else Clock(clock)
        self.workflows: dict[str, Workflow] = {}
        self.executors: dict[int, Peer] = {}
        self.queues: dict[str, lines.Line] = {}
        self._ids = count(1)
        self.schedules: dict[str, ScheduleRow] = {}
        self._lock = threading.Lock()
        self._ears: list[WeakMethod[Callable[[str], None]]] = []
        self.children: defaultdict[str, list[str]] = defaultdict(list)

    def open(self, *, migrate: bool = True, adopt: bool = False) -> None:
        """Do nothing: there is nothing to connect to."""

    def ask(self, command: c.Command[T]) -> T:
        """Answer a command."""
        with self._lock:
            return self.apply(command)

    def submit(self, command: c.Command[T], then: Callable[[Future[T]], object] | None = None) -> Future[T]:
        """Answer a command; the future is already done."""
        future: Promise[T] = Promise(then)
        try:
            future.set_result(self.ask(command))
        except Exception as error:  # the future carries it
            future.set_exception(error)
        return future

    def listen(self, heard: Callable[[str], None]) -> None:
        """Call this method with every word that is said, as long as there is whose it is."""
        self._ears = [ear for ear in self._ears if ear() is not None]
        self._ears.append(WeakMethod(heard))

    def shout(self, word: str) -> None:
        """Tell all who listen, here and now."""
        for ear in tuple(self._ears):
            if (heard := ear()) is not None:
                heard(word)

    def close(self) -> None:
        """Do nothing: every answer has been given."""

    def apply(self, command: c.Command[T]) -> T:
        """Change the state as a command says, and give its answer; the caller holds the lock."""
        answer: T = ANSWERS[type(command)](self, command)
        return answer

    # ── Lanes ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, command: c.Start) -> Started:
        """Insert unless the id is taken or the parent has lost its claim; my own nonce is an insert of mine."""
        new = command.row
        there = self.workflows.get(new.id)
        if there is None:
            if new.parent and not self._holds(new.parent):
                return Started(created=False, outcome=Outcome(Status.CANCELLED), name="", digest="", refused=True)
            if (holder := self._holder(new.dedupe)) and not new.replace:
                row = holder.row
                return Started(created=False, outcome=_outcome(row), name=row.name, digest=row.digest, id=row.id)
            replaced = self.cancel(c.Cancel(holder.row.id)) if holder else ()
            there = self.workflows[new.id] = Workflow(first_row(new, self.clock()))
            if new.parent:
                self.children[new.parent.workflow_id].append(new.id)
            return Started(
                created=True, outcome=_outcome(there.row), name=new.name, digest=new.digest, replaced=replaced
            )
        row = there.row
        return Started(row.nonce == new.nonce, _outcome(row), row.name, row.digest)

    def start_many(self, command: c.StartMany) -> tuple[Started, ...]:
        """One after the other; nobody sees some of them without the others."""
        return tuple(self.start(c.Start(row)) for row in command.rows)

    def advance(self, command: c.Advance) -> Advanced:
        """Write all entries and the end, or nothing: the claim must be held, and every position be free or mine."""
        if not self._holds(Guard(command.workflow_id, command.claim)):
            return Advanced(written=False)
        workflow, now = self.workflows[command.workflow_id], self.clock()
        if not all(_is_free(workflow, entry, command.claim) for entry in command.entries):
            return Advanced(written=False)
        for entry in command.entries:
            workflow.journal.setdefault(entry.position, _recorded(entry, now))
            workflow.claims[entry.position] = command.claim
        parked = isinstance(command.end, Park) and self._park(workflow, command.end)
        if isinstance(command.end, Outcome):
            _end(workflow, command.end, now)
            batches.settle(self, command.end, now)
        delayed = (entry.position for entry in command.entries if entry.after is not None)
        instants = tuple(float(workflow.journal[position].output or 0) for position in delayed)
        return Advanced(written=True, parked=parked, instants=instants)

    # ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def load(self, command: c.Load) -> tuple[Entry, ...]:
        """Give the journal in completion order."""
        workflow = self.workflows.get(command.workflow_id)
        return _history(workflow) if workflow else ()

    def look(self, command: c.Look) -> Mapping[str, Outcome]:
        """Leave out what is unknown."""
        known = (self.workflows[key].row for key in command.ids if key in self.workflows)
        return {row.id: _outcome(row) for row in known}

    def find(self, command: c.Find) -> tuple[WorkflowRow, ...]:
        """Newest first, ids breaking ties."""
        found = sorted(self._matching(command.filter), key=lambda row: (row.created_at, row.id), reverse=True)
        return tuple(found[: command.filter.limit])

    def count(self, command: c.Count) -> int:
        """Count across all pages."""
        return sum(1 for _ in self._matching(replace(command.filter, after=None)))

    def describe(self, command: c.Describe) -> WorkflowRow | None:
        """One row."""
        workflow = self.workflows.get(command.workflow_id)
        return workflow.row if workflow else None

    # ── Claiming and waking ──────────────────────────────────────────────────────────────────────────────────────────

    def claim(self, command: c.Claim) -> tuple[Claimed, ...]:
        """Oldest ready first; every claim has a number of its own, which fences all before it."""
        now = self.clock()
        unqueued = (w for w in self.workflows.values() if w.row.queue is None and _is_ready(w.row, now))
        fitting = (w for w in unqueued if lines.is_for(w.row, command))
        ready = sorted(fitting, key=lambda w: (w.row.ready_at, w.row.id))[: command.limit]
        ready += lines.admit(self, command, command.limit - len(ready), now)
        for workflow in ready:
            row = workflow.row
            workflow.awaits = ()
            workflow.row = replace(
                row,
                status=Status.RUNNING,
                claim=row.claim + 1,
                executor=command.executor,
                attempts=row.attempts + 1,
                started_at=now if row.started_at is None else row.started_at,
                ready_at=None,
            )
        weights = {it.row.id: Claimed(it.row, _history(it)).weight for it in ready if not it.row.fresh}
        over = {row.id: row.claim for row in excess((it.row for it in ready), weights, command.room)}
        self.hand_back(c.HandBack(command.executor, tuple(Guard(*it) for it in over.items()), unbegun=True))
        return tuple(Claimed(it.row, _history(it)) for it in ready if it.row.id not in over)

    def wake(self, command: c.Wake) -> int:
        """Make ready, now, what is parked and not ready yet."""
        now = self.clock()
        sleepers = [w for w in self._sleepers(now) if self._is_stirred(w, command.targets)]
        for workflow in sleepers:
            workflow.row = replace(workflow.row, ready_at=now)
        return len(sleepers)

    def cancel(self, command: c.Cancel) -> tuple[Guard, ...]:
        """Cancel what lives, of the workflow and of all below it, even below one that has ended; fence its owner."""
        tree = [command.workflow_id]
        for key in tree if command.children else ():
            tree += self.children.get(key, ())
        there = [self.workflows[key] for key in tree if key in self.workflows]
        now = self.clock()
        for workflow in there:
            if not workflow.row.status.ended:
                cleaning.note(workflow, now)
                _end(workflow, Outcome(Status.CANCELLED), now)
                workflow.row = replace(workflow.row, claim=workflow.row.claim + 1)
        guards = (Guard(it.row.id, it.row.claim - 1) for it in there if it.row.status is Status.CANCELLED)
        return tuple(sorted(guards, key=lambda guard: guard.workflow_id))

    # ── Queues ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def seed(self, command: c.Seed) -> str | None:
        """See `Seed`."""
        now = self.clock()
        living = {peer.app for peer in self.executors.values() if peer.alive and peer.lease_until > now}
        return lines.seed(self, command, living)

    def opening(self, command: c.Opening) -> float | None:
        """The soonest of all."""
        return lines.opening(self, command, self.clock())

    def due(self, command: c.Due) -> Agenda:
        """See `Due`."""
        return schedules.due(self, command, self.clock())

    # ── Executors ────────────────────────────────────────────────────────────────────────────────────────────────────

    def enlist(self, command: c.Enlist) -> int:
        """Give an id that nobody had before."""
        process, fresh = command.process, next(self._ids)
        self.executors[fresh] = Peer(
            id=fresh,
            beat=0,
            app=process.app,
            host=process.host,
            pid=process.pid,
            born=process.born,
            alive=True,
            lease_until=self.clock() + process.ttl,
            version=process.version,
        )
        return fresh

    def beat(self, command: c.Beat) -> Pulse:
        """Renew the lease of the living; the dead stay dead."""
        now, me = self.clock(), self.executors.get(command.executor)
        alive = me is not None and me.alive
        if me and alive:
            self.executors[me.id] = replace(me, beat=me.beat + 1, lease_until=now + command.ttl)
        orphaned = any(not peer.alive and self._run_by(peer.id) for peer in self.executors.values())
        due = min((w.row.ready_at for w in self.workflows.values() if w.row.ready_at is not None), default=None)
        planned = next((row.next_at for row in schedules.planned(self, command.fires)), None)
        return Pulse(
            alive=alive,
            now=now,
            running=len(self._run_by(command.executor)),
            expired=tuple((p.id, p.beat) for p in self.executors.values() if p.alive and p.lease_until < now),
            due=None if due is None else due - now,
            stirred=orphaned or any(self._is_stirred(w, None) for w in self._sleepers(now)),
            lined=any(lines.in_line(w.row) for w in self.workflows.values()),
            planned=None if planned is None else planned - now,
            untidy=any(cleaning.due(self, now, command.executor)),
        )

    def list_executors(self, _: c.Executors) -> tuple[Peer, ...]:
        """Living ones first, then in the order in which they came."""
        return tuple(sorted(self.executors.values(), key=lambda peer: (not peer.alive, peer.id)))

    def bury(self, command: c.Bury) -> int:
        """Declare dead whose beat stood still, once the lease is over or the death is proven."""
        now = self.clock()
        seen = (peer for key, beat in command.seen if (peer := self.executors.get(key)) and peer.beat == beat)
        dead = [peer for peer in seen if peer.alive and (command.proven or peer.lease_until < now)]
        self.executors |= {peer.id: replace(peer, alive=False) for peer in dead}
        return len(dead)

    def take_over(self, command: c.TakeOver) -> int:
        """Requeue what the dead hold, each time later, and hold what has died too often since its last record."""
        living = {peer.id for peer in self.executors.values() if peer.alive}
        orphans = sorted(w.row.id for w in self._running() if w.row.executor not in living)[: command.limit]
        now = self.clock()
        for workflow in map(self.workflows.__getitem__, orphans):
            row = workflow.row
            before = 0 if row.claim in workflow.claims.values() else row.takeovers
            poisoned = before >= command.poison
            workflow.row = replace(
                row,
                status=Status.HELD if poisoned else Status.QUEUED,
                error=command.error if poisoned else None,
                ready_at=None if poisoned else now + min(300.0, 2.0**before - 1),
                executor=None,
                claim=row.claim + 1,
                takeovers=before + 1,
            )
        return len(orphans)

    def running(self, command: c.Running) -> tuple[WorkflowRow, ...]:
        """By id."""
        return tuple(sorted((w.row for w in self._run_by(command.executor)), key=lambda row: row.id))

    def hand_back(self, command: c.HandBack) -> int:
        """Only what this executor runs, and only under these claims."""
        guards, mine = command.guards, self._run_by(command.executor)
        held = [w for w in mine if guards is None or Guard(w.row.id, w.row.claim) in guards]
        now = self.clock()
        for workflow in held:
            _end(workflow, Outcome(Status.QUEUED), now)
            workflow.row = replace(workflow.row, attempts=workflow.row.attempts - command.unbegun)
        return len(held)

    def retire(self, command: c.Retire) -> None:
        """Hand back all, and die."""
        self.hand_back(c.HandBack(command.executor))
        if me := self.executors.get(command.executor):
            self.executors[me.id] = replace(me, alive=False)

    # ── What the methods above stand on ──────────────────────────────────────────────────────────────────────────────

    def _holder(self, dedupe: str | None) -> Workflow | None:
        alive = (w for w in self.workflows.values() if not w.row.status.ended)
        return None if dedupe is None else next((w for w in alive if w.row.dedupe == dedupe), None)

    def _holds(self, guard: Guard) -> bool:
        workflow = self.workflows.get(guard.workflow_id)
        return workflow is not None and (workflow.row.status, workflow.row.claim) == (Status.RUNNING, guard.claim)

    def _park(self, workflow: Workflow, park: Park) -> bool:
        """Go to sleep, unless what is awaited is over already: then the run goes on."""
        if any(map(self._is_over, park.awaits)):
            return False
        asleep = replace(workflow.row, status=Status.WAITING, executor=None, ready_at=park.ready_at, takeovers=0)
        workflow.row = asleep
        workflow.awaits, workflow.quiet = park.awaits, park.quiet
        return True

    def _is_over(self, workflow_id: str) -> bool:
        """Nothing is to be waited for in a workflow that has ended, is held, or is not there."""
        workflow = self.workflows.get(workflow_id)
        return workflow is None or workflow.row.status.ended or workflow.row.status is Status.HELD

    def _sleepers(self, now: float) -> Iterator[Workflow]:
        return (w for w in self.workflows.values() if w.row.status is Status.WAITING and not _is_ready(w.row, now))

    def _is_stirred(self, workflow: Workflow, targets: tuple[str, ...] | None) -> bool:
        over = (key for key in workflow.awaits if (self._is_over(key) if targets is None else key in targets))
        return any(self.wakes(workflow, key) for key in over)

    def wakes(self, workflow: Workflow, target: str) -> bool:
        """Whether somebody is woken by the end of what he awaits."""
        awaited = self.workflows.get(target)
        return target not in workflow.quiet or awaited is None or awaited.row.status is not Status.SUCCEEDED

    def _running(self) -> Iterator[Workflow]:
        return (w for w in self.workflows.values() if w.row.status is Status.RUNNING)

    def _run_by(self, executor: int) -> list[Workflow]:
        return [w for w in self._running() if w.row.executor == executor]

    def _matching(self, wanted: Filter) -> Iterator[WorkflowRow]:
        return (w.row for w in self.workflows.values() if _matches(w.row, wanted))


ANSWERS: Mapping[type[c.Command[Any]], Callable[[MemoryStore, Any], Any]] = {
    c.Start: MemoryStore.start,
    c.StartMany: MemoryStore.start_many,
    c.Seed: MemoryStore.seed,
    c.SetQueue: lines.change,
    c.Queues: lines.listing,
    c.Opening: MemoryStore.opening,
    c.Schedules: schedules.listing,
    c.KeepSchedule: schedules.keep,
    c.ForgetSchedule: schedules.forget,
    c.Due: MemoryStore.due,
    c.Fire: schedules.fire,
    c.Advance: MemoryStore.advance,
    c.Load: MemoryStore.load,
    c.Awaited: retention.awaited,
    c.Standing: retention.standing,
    c.Journal: retention.journal,
    c.Look: MemoryStore.look,
    c.Find: MemoryStore.find,
    c.Count: MemoryStore.count,
    c.Describe: MemoryStore.describe,
    c.Claim: MemoryStore.claim,
    c.Wake: MemoryStore.wake,
    c.Cancel: MemoryStore.cancel,
    c.Enlist: MemoryStore.enlist,
    c.Beat: MemoryStore.beat,
    c.Executors: MemoryStore.list_executors,
    c.Bury: MemoryStore.bury,
    c.TakeOver: MemoryStore.take_over,
    c.Running: MemoryStore.running,
    c.HandBack: MemoryStore.hand_back,
    c.Retire: MemoryStore.retire,
    c.Rewind: clocks.rewind,
    c.CleanUp: cleaning.clean_up,
    c.Cleaned: cleaning.cleaned,
    c.Ripen: batches.ripen,
    c.Form: batches.form,
    c.Delete: retention.delete,
    c.Sweep: retention.sweep,
    c.Strip: retention.strip,
    c.Prune: retention.prune,
}


def _recorded(entry: Entry, now: float) -> Entry:
    """An entry as it will be read: its instants are the store's."""
    output = entry.output if entry.after is None else repr(now + entry.after)
    return replace(entry, output=output, after=None, started_at=now - entry.elapsed, ended_at=now)


def _history(workflow: Workflow) -> tuple[Entry, ...]:
    return tuple(sorted(workflow.journal.values(), key=lambda entry: (entry.ordinal, entry.position)))


def _is_free(workflow: Workflow, entry: Entry, claim: int) -> bool:
    """Whether a position is unwritten, or was written by this very claim and says the same."""
    there = workflow.journal.get(entry.position)
    return there is None or (
        workflow.claims[entry.position] == claim
        and (there.ordinal, there.kind, there.name, there.digest)
        == (entry.ordinal, entry.kind, entry.name, entry.digest)
        and (entry.after is not None or there.output == entry.output)
        and there.error == entry.error
    )


def _end(workflow: Workflow, outcome: Outcome, now: float) -> None:
    """Take a workflow from its executor: for good, for a person to decide, or back to the queue."""
    workflow.awaits = ()
    if outcome.cleaner is not None:
        workflow.cleanup = cleaning.Cleanup(now + cleaning.HOUR, cleaner=outcome.cleaner)
    workflow.row = replace(
        workflow.row,
        status=outcome.status,
        output=outcome.output,
        error=outcome.error,
        executor=workflow.row.executor if outcome.status.ended or outcome.status is Status.HELD else None,
        ready_at=now if outcome.status is Status.QUEUED else None,
        ended_at=now if outcome.status.ended else None,
    )


def _outcome(row: WorkflowRow) -> Outcome:
    return Outcome(row.status, row.output, row.error, row.ended_at if row.erased else None)


def _is_ready(row: WorkflowRow, now: float) -> bool:
    return row.status in READY_FROM and row.ready_at is not None and row.ready_at <= now


def _matches(row: WorkflowRow, wanted: Filter) -> bool:
    labels: dict[str, Any] = json.loads(row.attributes or "{}")
    return (
        not row.erased
        and (wanted.name is None or row.name == wanted.name)
        and (wanted.status is None or row.status in wanted.status)
        and (wanted.parent is None or row.parent == wanted.parent)
        and (wanted.user is None or row.user == wanted.user)
        and (wanted.queue is None or row.queue == wanted.queue)
        and (wanted.since is None or row.created_at >= wanted.since)
        and (wanted.until is None or row.created_at < wanted.until)
        and all(label in labels and labels[label] == json.loads(text) for label, text in wanted.attributes)
        and (wanted.after is None or (row.created_at, row.id) < wanted.after)
    )
