"""What the kernel asks of a store and of a driver: plain data, typed by its answer.

A verb is a generator that yields commands and is sent the answers (`Op`). It must not know who answers,
nor whether the caller blocks or awaits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

from msgspec import Struct, field

from operon.core.rows import (
    Advanced,
    Claimed,
    Entry,
    Filter,
    Guard,
    Limits,
    NewWorkflow,
    Obstacle,
    Outcome,
    Park,
    Peer,
    Policy,
    Process,
    Pulse,
    QueueRow,
    Started,
    Swept,
    WorkflowRow,
)
from operon.core.timetable import Agenda, Fired, Firing, ScheduleRow

T = TypeVar("T")


class Command(Struct, Generic[T], frozen=True):
    """One request; `T` is the type of its answer."""


Op: TypeAlias = Generator[Command[Any], Any, T]
"""An operation in progress: yields commands, is sent answers, returns a `T`."""


def ask(command: Command[T]) -> Op[T]:
    """Yield one command and return its answer, typed."""
    answer: T = yield command
    return answer


# ── To the store: writes that ride in lanes ──────────────────────────────────────────────────────────────────────────


class Start(Command[Started], frozen=True):
    """Insert a workflow, or say what already has its id."""

    row: NewWorkflow


class Advance(Command[Advanced], frozen=True):
    """Append entries to a workflow's journal and, in the same commit, end or park it; refused if the claim is not held.

    An outcome of `held` keeps the claim from being taken by anybody; `queued` hands the workflow back.
    """

    workflow_id: str
    claim: int
    entries: tuple[Entry, ...] = ()
    end: Outcome | Park | None = None


LaneCommand: TypeAlias = Start | Advance

# ── To the store: everything else ────────────────────────────────────────────────────────────────────────────────────


class Load(Command[tuple[Entry, ...]], frozen=True):
    """Read a workflow's whole journal, by ordinal."""

    workflow_id: str


class Awaited(Command[tuple[str, ...]], frozen=True):
    """List what a parked workflow waits for the end of, by id."""

    workflow_id: str


class Journal(Command[str], frozen=True):
    """Give the name under which other databases keep records that belong to this journal; no two have the same."""


class Standing(Command[Mapping[str, int]], frozen=True):
    """Say which of these workflows have their record, each with its nonce."""

    ids: tuple[str, ...]


class Claim(Command[tuple[Claimed, ...]], frozen=True):
    """Take up to `limit` ready workflows of these names: oldest ready first, each by exactly one claimer.

    Each comes with its journal, as it is once the claim has fenced whoever wrote it: nothing more is read to run it.

    A row is ready when it is queued or waiting and its `ready_at` has passed; `pin`ned rows only by their version.
    What has a queue gets in line there when it is ready, and is taken from it only if that is in `queues`, and as far
    as its limits allow at this instant: the partitions in turn, and in each the lowest rank first, which is the time of
    its creation less a minute for each level of priority.
    """

    executor: int
    names: tuple[str, ...]
    instances: tuple[str, ...]
    version: str
    limit: int
    queues: tuple[tuple[str, int], ...] = ()
    """The queues that this process runs, and how many more of each it has room for."""
    room: int = 2**40
    """Bytes of journals that it has room for; what is ready behind them stays ready."""


class Look(Command[Mapping[str, Outcome]], frozen=True):
    """Where some workflows stand, erased ones included; an unknown id is missing from the answer."""

    ids: tuple[str, ...]


class Find(Command[tuple[WorkflowRow, ...]], frozen=True):
    """The workflows that match, newest first; erased ones match nothing."""

    filter: Filter


class Count(Command[int], frozen=True):
    """How many workflows match, whatever the filter's limit."""

    filter: Filter


class Describe(Command[WorkflowRow | None], frozen=True):
    """One workflow as it stands, even if it is erased."""

    workflow_id: str


class Cancel(Command[tuple[Guard, ...]], frozen=True):
    """Cancel a workflow, with all that descends from it unless told otherwise; what has ended is left alone.

    Repeats until no live descendant is left. Answers the claims under which those may still be run that were cancelled,
    now or before. The clean-up of those that had begun is due: by the executor that runs it, or by any; see `CleanUp`.
    """

    workflow_id: str
    children: bool = True


class CleanUp(Command[tuple[Claimed, ...]], frozen=True):
    """Take the clean-up of up to `limit` workflows of these names whose end their body has not heard of.

    Nobody ran them when they ended, or their executor died at it; or it is this one, and they are not what it has
    `here`. Each comes with its journal, is taken three times at most, and within an hour of the end; `Cleaned` says
    that it is done. What has ended stays as it has ended.
    """

    executor: int
    names: tuple[str, ...]
    instances: tuple[str, ...]
    version: str
    limit: int
    here: tuple[str, ...] = ()


class Cleaned(Command[None], frozen=True):
    """Note that this executor has done a clean-up: one that was its own, or that nobody has taken yet.

    It is nobody's where the workflow was cancelled just after it had been parked, and its body had not left by then.
    """

    executor: int
    workflow_id: str
    claim: int | None = None
    """The claim under which the body ran that was cancelled here; None if it had been taken."""


class Wake(Command[int], frozen=True):
    """Make ready the parked workflows that await one of these; with None, all whose awaited workflow has ended."""

    targets: tuple[str, ...] | None


class Fires(Struct, frozen=True):
    """Which schedules a process fires: those that its code declares, and those made at run time for its functions."""

    schedules: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()

    def includes(self, row: ScheduleRow) -> bool:
        """Whether this one is among them."""
        return row.plan.name in self.schedules if row.declared else row.plan.call.name in self.functions


class Enlist(Command[int], frozen=True):
    """Enter this process as a new executor with a fresh id and a lease."""

    process: Process


class Beat(Command[Pulse], frozen=True):
    """Renew the lease; see what is expired, due and mine."""

    executor: int
    ttl: float
    fires: Fires = Fires()


class Executors(Command[tuple[Peer, ...]], frozen=True):
    """Every executor known, living ones first."""


class Bury(Command[int], frozen=True):
    """Declare executors dead, each only if its beat still is what the observer saw; answers how many.

    With `proven`, the lease is not waited for: the caller knows that the process is gone.
    """

    seen: tuple[tuple[int, int], ...]
    proven: bool = False


class TakeOver(Command[int], frozen=True):
    """Requeue up to `limit` rows that dead executors hold; answers how many. Repeat while it answers `limit`.

    After `poison` takeovers a workflow is held instead, `error` saying why; before, its delay grows.
    """

    limit: int
    poison: int
    error: str


class Running(Command[tuple[WorkflowRow, ...]], frozen=True):
    """The rows that the database says this executor runs: for reconciliation."""

    executor: int


class HandBack(Command[int], frozen=True):
    """Return workflows of this executor to the queue, ready at once; `None` means all it has.

    Each only under the claim that is given up: a statement that comes late takes nothing from who claimed it since.
    """

    executor: int
    guards: tuple[Guard, ...] | None = None
    unbegun: bool = False
    """None of them has begun under this claim: it counts as no attempt."""


class Rewind(Command[None], frozen=True):
    """Go on where the store's clock was put back, by at most so many seconds; done twice, it is as if done once.

    What was ready is ready. Leases that were given before last for `ttl` more, or as long as they were meant to. Who
    was admitted by a rate was admitted by now.
    """

    back: float
    ttl: float


class Retire(Command[None], frozen=True):
    """Leave: hand back what is still held and end the lease."""

    executor: int


# ── To the store: retention ──────────────────────────────────────────────────────────────────────────────────────────


class Delete(Command[int | Obstacle], frozen=True):
    """Delete a workflow that has ended or is held, its journal, and all that descends from it; answers how many.

    Then nothing is left of them, and their ids are free. Answers 0 if there is no such workflow. If something below it
    has not ended, or its parent has not, which may still read its result, that is answered, and nothing is deleted.
    """

    workflow_id: str


class Sweep(Command[Swept], frozen=True):
    """Look at up to `limit` workflows that ended longer ago than their policy says, oldest first, and shrink them.

    With `keys` False, a whole record becomes its key: who has the id joins a run that is over. Kept are those whose
    parent has its record, and those that somebody awaits. With `keys` True it is such keys that are deleted, and their
    ids free; but not before all that descends from them. What another transaction has locked is left alone.
    """

    policies: tuple[Policy, ...]
    limit: int
    after: tuple[float, str] | None = None
    """Where the last sweep stopped, within the first of the policies."""
    keys: bool = False


class Strip(Command[int], frozen=True):
    """Remove up to `limit` journal entries of workflows whose record is erased; answers how many."""

    limit: int


class Prune(Command[int], frozen=True):
    """Forget up to `limit` executors dead for so many seconds that hold nothing, and admissions out of any window."""

    limit: int
    older: float


# ── To the store: queues ─────────────────────────────────────────────────────────────────────────────────────────────


class StartMany(Command[tuple[Started, ...]], frozen=True):
    """Insert workflows in one commit, or say of each what already has its id; none of them has `replace`."""

    rows: tuple[NewWorkflow, ...]


class Seed(Command[str | None], frozen=True):
    """Declare a queue: create it, or give it the code's new limits, unless somebody has changed those it had.

    Answers the name of the app, alive in some process, that declares it otherwise; then nothing has changed.
    """

    name: str
    limits: Limits
    app: str


class SetQueue(Command[bool], frozen=True):
    """Change a queue's limits, pause or resume it, from the next claim on; None leaves as it is. False: there is none.

    With `reset`, its limits are again what the code declared, and follow the code.
    """

    name: str
    limits: Limits | None = None
    paused: bool | None = None
    reset: bool = False


class Queues(Command[tuple[QueueRow, ...]], frozen=True):
    """Every queue, by name, and how many workflows wait and run there."""


class Opening(Command[float | None], frozen=True):
    """In how many seconds a rate, full by now, lets one more of these queues begin; None: no rate is in the way."""

    queues: tuple[str, ...]


class Ripen(Command[int], frozen=True):
    """Let items begin of which there are enough for a batch, before their wait is over: one for each batch.

    Those that wait for company are queued, and ready within the wait of their function's batches. Who has begun, and
    is in no batch yet, will take as many of them as a batch has room for: these are no company for others.
    """

    queues: tuple[str, ...]
    batches: tuple[tuple[str, int, float], ...]
    """The names of functions, and the size and the wait of their batches."""


class Form(Command[str | None], frozen=True):
    """Put a running item, and those that wait in its queue and partition, into a batch; answers the batch's input.

    In one commit, fenced on the leader: the batch is started, and each of its items awaits it, with an entry that says
    so. None: the leader has lost its claim, and nothing was done.
    """

    leader: Guard
    name: str
    """Of the items."""
    batch: NewWorkflow
    """Without its input, which is that of the items."""
    size: int
    wait: float
    room: int
    """How many characters the items' inputs may have together; the leader's may have more."""


# ── To the store: schedules ──────────────────────────────────────────────────────────────────────────────────────────


class Schedules(Command[tuple[ScheduleRow, ...]], frozen=True):
    """Every schedule, by name; or the one of this name."""

    name: str | None = None


class KeepSchedule(Command[bool], frozen=True):
    """Write a schedule, new or as a whole, if it still stands at the turn before this row's; else answer False."""

    row: ScheduleRow


class ForgetSchedule(Command[bool], frozen=True):
    """Delete a schedule; its workflows stay. False: there is none."""

    name: str


class Due(Command[Agenda], frozen=True):
    """The schedules of these that are due, those longest due first; and the time."""

    fires: Fires
    limit: int


class Fire(Command[Fired | None], frozen=True):
    """Start what a schedule planned, and plan its next instant, in one commit; None if it is not at this turn any more.

    Each firing in order: with a predecessor that is queued, running or waiting, "skip" leaves it out, "queue" parks it
    until that one has ended, and "replace" cancels that one, and one that is held, with what descends from it.
    """

    name: str
    turn: int
    next_at: float | None
    firings: tuple[Firing, ...]


# ── To the driver ────────────────────────────────────────────────────────────────────────────────────────────────────


class Invoke(Command[T], frozen=True):
    """Call the user's code, or a datasource's: blocking, or awaited if it gives an awaitable."""

    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    timeout: float | None = None
    body: bool = False
    """A workflow's own body, which may leave for a long wait; nothing else is left in the middle."""


class Pause(Command[None], frozen=True):
    """Wait some seconds by the local clock, holding on to everything."""

    seconds: float
