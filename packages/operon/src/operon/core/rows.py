"""What the database remembers, as frozen data; it must not know how any database spells it.

Instants are seconds since 1970 UTC by the *store's* clock; durations are seconds.
Values (`input`, `output`, `error`) are the codec's JSON text and never looked into here.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

from msgspec import MsgspecError, Struct
from msgspec.json import decode

from operon.core.states import STATUSES, Status, status_of


class Kind(StrEnum):
    """What a journal entry records."""

    STEP = "step"
    TRANSACTION = "transaction"
    ATTEMPT = "attempt"
    SLEEP = "sleep"
    NOW = "now"
    RANDOM = "random"
    UUID = "uuid"
    START = "start"
    RESULT = "result"
    WAKE = "wake"
    CANCELLED = "cancelled"
    TIMER = "timer"
    UNKNOWN = "unknown"
    """None of these: written by a later version, or damaged."""

    @classmethod
    def _missing_(cls, value: object) -> Kind:
        del value
        return cls.UNKNOWN


class Entry(Struct, frozen=True):
    """One record of a workflow's journal; the first writer of a position wins."""

    position: str
    """Where in the code: `"3"`, or `"2/3"` in the second concurrent branch; a failed attempt is `"3#1"`."""
    ordinal: int
    """When, among all entries of the workflow: completion order, replayed as it was."""
    kind: Kind
    name: str
    digest: str = ""
    """Of the arguments; another one at replay is a divergence."""
    output: str | None = None
    error: str | None = None
    child: str | None = None
    after: float | None = None
    """Instead of an output: record the store's clock plus this many seconds (a sleep's end, `now`)."""
    elapsed: float = 0.0
    """How long the work took; the store derives `started_at` from it."""
    attempt: int = 1
    version: str = ""
    isolation: str | None = None
    started_at: float = 0.0
    """Filled by the store when read."""
    ended_at: float = 0.0
    """Filled by the store when read."""


class Guard(Struct, frozen=True):
    """A running workflow and the claim under which it may still write."""

    workflow_id: str
    claim: int

    def fenced_by(self, claim: int | None) -> bool:
        """Whether this is that claim, or one before it of the same workflow; another of its id has other claims."""
        return claim is not None and self.claim <= claim and before_claims(self.claim) == before_claims(claim)


class NewWorkflow(Struct, frozen=True):
    """A workflow that is about to be started."""

    id: str
    name: str
    input: str
    digest: str
    nonce: int
    """Random: tells my insert from another's when a commit's answer was lost."""
    executor: int | None = None
    """Runs it at once, under its first claim; None leaves it queued for whoever claims it."""
    delay: float = 0.0
    timeout: float | None = None
    """Seconds from the start to the deadline."""
    deadline: float | None = None
    """An inherited deadline; the earlier of the two counts."""
    instance: str | None = None
    """The registered object a method belongs to: `"Billing/eu"`."""
    parent: Guard | None = None
    """Started only while the parent still runs under this claim."""
    root: str | None = None
    user: str | None = None
    roles: tuple[str, ...] = ()
    request_id: str | None = None
    traceparent: str | None = None
    version: str = ""
    pin: str | None = None
    """Only this code version may run it."""
    attributes: str | None = None
    """A JSON object of the user's own labels."""
    queue: str | None = None
    """Runs when this queue admits it, and never at once."""
    partition: str = ""
    priority: int = 0
    """Higher sooner, within a queue's partition; a level is worth a minute of waiting."""
    dedupe: str | None = None
    """No other workflow with this text is started until this one has ended."""
    replace: bool = False
    """Cancel whoever has the `dedupe`, with what descends from it, in the same commit."""

    @property
    def first_claim(self) -> int:
        """The number of its first claim."""
        return before_claims(self.nonce) + 1


def before_claims(nonce: int) -> int:
    """Give the number before a workflow's first claim.

    Claims of two workflows that had one id, the first deleted, never meet: so what still runs of the first is fenced
    from the second. Every claim adds one; the stores' inserts say the same.
    """
    return nonce >> 20 << 20


class Outcome(Struct, frozen=True, omit_defaults=True):
    """Where a workflow stands, and what it came to."""

    status: Status
    output: str | None = None
    error: str | None = None
    erased: float | None = None
    """When it had ended, if all that is left of it is its key."""
    shares: tuple[Share, ...] = ()
    """What becomes, in the same commit, of those that wait for it as its items."""
    cleaner: int | None = None
    """The executor whose body is still to hear of this end, or 0 for whichever takes that on; see `CleanUp`."""


class Share(Struct, frozen=True):
    """How an item of a batch ends, unless it has been claimed or cancelled since that was formed."""

    item: Guard
    outcome: Outcome


class Park(Struct, frozen=True):
    """Leave the executor until an instant, or until one of some workflows has ended."""

    ready_at: float | None
    awaits: tuple[str, ...] = ()
    quiet: tuple[str, ...] = ()
    """Those of them whose success wakes nobody: another is awaited longer."""


class Started(Struct, frozen=True):
    """The answer to a start: mine, or what was there already."""

    created: bool
    outcome: Outcome
    name: str
    digest: str
    refused: bool = False
    """The parent is no longer running under its claim; nothing was inserted."""
    id: str | None = None
    """The workflow that has the `dedupe`, where that is another one."""
    replaced: tuple[Guard, ...] = ()
    """The claims of what was cancelled for it."""


class Advanced(Struct, frozen=True):
    """The answer to an advance."""

    written: bool
    """False: fenced. Another owner has the workflow, or it has ended; the run must be abandoned."""
    parked: bool = False
    instants: tuple[float, ...] = ()
    """For each entry that had `after`, in order: the instant that was recorded."""


class WorkflowRow(Struct, frozen=True):
    """One workflow as it stands in the database."""

    id: str
    name: str
    status: Status
    claim: int
    input: str
    digest: str
    output: str | None
    error: str | None
    executor: int | None
    created_at: float
    started_at: float | None
    ended_at: float | None
    ready_at: float | None
    deadline: float | None
    instance: str | None
    parent: str | None
    root: str | None
    user: str | None
    roles: tuple[str, ...]
    request_id: str | None
    traceparent: str | None
    version: str
    pin: str | None
    attributes: str | None
    takeovers: int
    attempts: int
    """How often it was claimed."""
    nonce: int = 0
    """The one it was inserted with."""
    queue: str | None = None
    partition: str = ""
    priority: int = 0
    dedupe: str | None = None
    erased: bool = False
    """All that is left is its key, and what tells whether another call means the same."""
    damage: str | None = None
    """What of it cannot be read, in words; it is run by nobody."""

    @property
    def fresh(self) -> bool:
        """Whether nobody has claimed it before: its journal is empty."""
        return self.claim - before_claims(self.nonce) == 1 or self.claim == 1


class Claimed(Struct, frozen=True):
    """A workflow that is now the claimer's to run, and its whole journal, by ordinal."""

    row: WorkflowRow
    journal: tuple[Entry, ...] = ()

    @property
    def weight(self) -> int:
        """How long the texts of the journal are."""
        return sum(len(entry.output or "") + len(entry.error or "") for entry in self.journal)


class Filter(Struct, frozen=True):
    """Which workflows `find` and `count` mean; None means any."""

    name: str | None = None
    status: tuple[Status, ...] | None = None
    parent: str | None = None
    user: str | None = None
    since: float | None = None
    until: float | None = None
    attributes: tuple[tuple[str, str], ...] = ()
    """Pairs of a label and the JSON text it must have."""
    limit: int = 100
    after: tuple[float, str] | None = None
    """Continue behind this (`created_at`, `id`); newest first."""
    queue: str | None = None


class Limits(Struct, frozen=True):
    """How much of a queue may run, over all processes; None is no limit, periods are seconds."""

    concurrency: int | None = None
    worker_concurrency: int | None = None
    """In each process."""
    rate: int | None = None
    """How many may begin in any `period`."""
    period: float | None = None
    partition_concurrency: int | None = None
    partition_rate: int | None = None
    partition_period: float | None = None


class QueueRow(Struct, frozen=True):
    """A queue as it stands."""

    name: str
    app: str
    """The app whose code declared it last."""
    limits: Limits
    seed: Limits
    """What the code declared."""
    paused: bool
    queued: int
    """How many wait: in line, delayed, or to be taken up again."""
    running: int


class Policy(Struct, frozen=True):
    """How long the records of a function's workflows are kept that ended so."""

    name: str
    status: Status
    keep: float
    """Seconds since they ended."""


class Swept(Struct, frozen=True):
    """What one sweep did, and where the next may go on."""

    gone: int
    policy: int = 0
    """The place, among the policies given, of the one it stopped at."""
    after: tuple[float, str] | None = None
    """The `ended_at` and `id` that it looked at last there; None: it has seen all."""


class Obstacle(Struct, frozen=True):
    """A workflow that must have ended before another may be deleted."""

    id: str
    status: Status


class Process(Struct, frozen=True):
    """What an executor tells of itself when it enlists."""

    app: str
    host: str
    pid: int
    born: str
    """Tells this process from a later one with the same pid: boot id and start time."""
    version: str
    ttl: float
    """Seconds until the lease ends unless it is renewed."""


class Peer(Struct, frozen=True):
    """Another executor whose lease has run out, or an executor in a listing."""

    id: int
    beat: int
    app: str
    host: str
    pid: int
    born: str
    alive: bool
    lease_until: float
    version: str


class Pulse(Struct, frozen=True):
    """The answer to a heartbeat: everything a process must know, in one statement."""

    alive: bool
    """False: this executor was declared dead; it must stop what it runs and enlist anew."""
    now: float
    running: int
    """Rows that the database says this executor runs."""
    expired: tuple[tuple[int, int], ...]
    """(id, beat) of living executors whose lease has run out."""
    due: float | None
    """Seconds until the next row is ready (at most zero: now); None when there is none."""
    stirred: bool
    """A wake-up was lost, and `Wake(None)` repeats it; or the dead still hold something: `TakeOver` repeats that."""
    lined: bool
    """A queue that is not paused has a line, and its concurrency lets more run; whether a rate does, a claim tells."""
    planned: float | None = None
    """Seconds until the next firing of a schedule that this process fires (at most zero: now)."""
    untidy: bool = False
    """Somebody's clean-up has not begun, or the executor that was at it died."""


def read_row(values: dict[str, Any]) -> WorkflowRow:
    """Make a workflow of its columns; what cannot be read is named in it, and breaks nothing."""
    damage: list[str] = []
    code, roles = values["status"], values["roles"]
    if not 0 <= code < len(STATUSES):
        damage.append(f"status {code!r} is none")
    try:
        names = decode(roles or "[]", type=tuple[str, ...])
    except MsgspecError:
        names = None
    if names is None:
        damage.append(f"roles {roles!r:.80} are no list of texts")
    values |= {
        "status": status_of(code),
        "roles": names or (),
        "erased": values["erased"] > 0,
        "damage": f"The row is damaged: its {', its '.join(damage)}." if damage else None,
    }
    return WorkflowRow(**values)


def first_row(new: NewWorkflow, now: float) -> WorkflowRow:
    """See a workflow as it stands when it has just been started, at this instant."""
    runs = new.executor is not None
    ends = (new.deadline, None if new.timeout is None else now + new.timeout)
    return WorkflowRow(
        id=new.id,
        name=new.name,
        status=Status.RUNNING if runs else Status.QUEUED,
        claim=before_claims(new.nonce) + int(runs),
        input=new.input,
        digest=new.digest,
        output=None,
        error=None,
        executor=new.executor,
        created_at=now,
        started_at=now if runs else None,
        ended_at=None,
        ready_at=None if runs or (new.queue is not None and new.delay <= 0) else now + new.delay,
        deadline=min((end for end in ends if end is not None), default=None),
        instance=new.instance,
        parent=new.parent.workflow_id if new.parent else None,
        root=new.root,
        user=new.user,
        roles=new.roles,
        request_id=new.request_id,
        traceparent=new.traceparent,
        version=new.version,
        pin=new.pin,
        attributes=new.attributes,
        takeovers=0,
        attempts=int(runs),
        nonce=new.nonce,
        queue=new.queue,
        partition=new.partition,
        priority=new.priority,
        dedupe=new.dedupe,
    )


def record_parameters(guard: Guard, entry: Entry) -> dict[str, str | int | float | None]:
    """Spell an entry as the parameters of a store's `record` statement."""
    return {
        "workflow_id": guard.workflow_id,
        "claim": guard.claim,
        "position": entry.position,
        "ordinal": entry.ordinal,
        "kind": entry.kind.value,
        "name": entry.name,
        "digest": entry.digest,
        "output": entry.output,
        "error": entry.error,
        "child": entry.child,
        "elapsed": entry.elapsed,
        "attempt": entry.attempt,
        "version": entry.version,
        "isolation": entry.isolation,
    }


def workflow_parameters(row: NewWorkflow) -> dict[str, str | int | float | None]:
    """Spell a new workflow as the parameters of a store's `join` and `settle` statements."""
    return {
        "id": row.id,
        "name": row.name,
        "input": row.input,
        "digest": row.digest,
        "nonce": row.nonce,
        "delay": row.delay,
        "timeout": row.timeout,
        "deadline": row.deadline,
        "instance": row.instance,
        "parent": row.parent.workflow_id if row.parent else None,
        "root": row.root,
        "user": row.user,
        "roles": json.dumps(row.roles) if row.roles else None,
        "request_id": row.request_id,
        "traceparent": row.traceparent,
        "version": row.version,
        "pin": row.pin,
        "attributes": row.attributes,
        "queue": row.queue,
        "partition": row.partition,
        "priority": row.priority,
        "dedupe": row.dedupe,
    }
