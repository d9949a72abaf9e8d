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
    Limits,
    NewWorkflow,
    Outcome,
    Park,
    Peer,
    Process,
    Pulse,
    QueueRow,
    Started,
    WorkflowRow,
)

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


class Look(Command[Mapping[str, Outcome]], frozen=True):
    """Where some workflows stand; an unknown id is missing from the answer."""

    ids: tuple[str, ...]


class Find(Command[tuple[WorkflowRow, ...]], frozen=True):
    """The workflows that match, newest first."""

    filter: Filter


class Count(Command[int], frozen=True):
    """How many workflows match, whatever the filter's limit."""

    filter: Filter


class Describe(Command[WorkflowRow | None], frozen=True):
    """One workflow as it stands."""

    workflow_id: str


class Cancel(Command[int], frozen=True):
    """Cancel a workflow, with all that descends from it unless told otherwise; answers how many were cancelled.

    Repeats until no live descendant is left. What has ended is left alone.
    """

    workflow_id: str
    children: bool = True


class Wake(Command[int], frozen=True):
    """Make ready the parked workflows that await one of these; with None, all whose awaited workflow has ended."""

    targets: tuple[str, ...] | None


class Enlist(Command[int], frozen=True):
    """Enter this process as a new executor with a fresh id and a lease."""

    process: Process


class Beat(Command[Pulse], frozen=True):
    """Renew the lease; see what is expired, due and mine."""

    executor: int
    ttl: float


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
    """Return workflows of this executor to the queue, ready at once; `ids=None` means all it has."""

    executor: int
    ids: tuple[str, ...] | None = None


class Retire(Command[None], frozen=True):
    """Leave: hand back what is still held and end the lease."""

    executor: int


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
