"""What the kernel asks of a store and of a driver: plain data, typed by its answer.

A verb is a generator that yields commands and is sent the answers (`Op`). It must not know who answers,
nor whether the caller blocks or awaits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from operon.core.rows import (
    Advanced,
    Entry,
    Filter,
    NewWorkflow,
    Outcome,
    Park,
    Peer,
    Process,
    Pulse,
    Started,
    WorkflowRow,
)

T = TypeVar("T")


class Command(Generic[T]):
    """One request; `T` is the type of its answer."""

    __slots__ = ()


Op: TypeAlias = Generator[Command[Any], Any, T]
"""An operation in progress: yields commands, is sent answers, returns a `T`."""


def ask(command: Command[T]) -> Op[T]:
    """Yield one command and return its answer, typed."""
    answer: T = yield command
    return answer


# ── To the store: writes that ride in lanes ──────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Start(Command[Started]):
    """Insert a workflow, or say what already has its id."""

    row: NewWorkflow


@dataclass(frozen=True, slots=True)
class Advance(Command[Advanced]):
    """Append entries to a workflow's journal and, in the same commit, end or park it; refused if the claim is not held.

    An outcome of `held` keeps the claim from being taken by anybody; `queued` hands the workflow back.
    """

    workflow_id: str
    claim: int
    entries: tuple[Entry, ...] = ()
    end: Outcome | Park | None = None


LaneCommand: TypeAlias = Start | Advance

# ── To the store: everything else ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Load(Command[tuple[Entry, ...]]):
    """Read a workflow's whole journal, by ordinal."""

    workflow_id: str


@dataclass(frozen=True, slots=True)
class Claim(Command[tuple[WorkflowRow, ...]]):
    """Take up to `limit` ready workflows of these names: oldest ready first, each by exactly one claimer.

    A row is ready when it is queued or waiting and its `ready_at` has passed; `pin`ned rows only by their version.
    """

    executor: int
    names: tuple[str, ...]
    instances: tuple[str, ...]
    version: str
    limit: int


@dataclass(frozen=True, slots=True)
class Look(Command[Mapping[str, Outcome]]):
    """Where some workflows stand; an unknown id is missing from the answer."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Find(Command[tuple[WorkflowRow, ...]]):
    """The workflows that match, newest first."""

    filter: Filter


@dataclass(frozen=True, slots=True)
class Count(Command[int]):
    """How many workflows match, whatever the filter's limit."""

    filter: Filter


@dataclass(frozen=True, slots=True)
class Describe(Command[WorkflowRow | None]):
    """One workflow as it stands."""

    workflow_id: str


@dataclass(frozen=True, slots=True)
class Cancel(Command[int]):
    """Cancel a workflow, with all that descends from it unless told otherwise; answers how many were cancelled.

    Repeats until no live descendant is left. What has ended is left alone.
    """

    workflow_id: str
    children: bool = True


@dataclass(frozen=True, slots=True)
class Wake(Command[int]):
    """Make ready the parked workflows that await one of these; with None, all whose awaited workflow has ended."""

    targets: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Enlist(Command[int]):
    """Enter this process as a new executor with a fresh id and a lease."""

    process: Process


@dataclass(frozen=True, slots=True)
class Beat(Command[Pulse]):
    """Renew the lease; see what is expired, due and mine."""

    executor: int
    ttl: float


@dataclass(frozen=True, slots=True)
class Executors(Command[tuple[Peer, ...]]):
    """Every executor known, living ones first."""


@dataclass(frozen=True, slots=True)
class Bury(Command[int]):
    """Declare executors dead, each only if its beat still is what the observer saw; answers how many.

    With `proven`, the lease is not waited for: the caller knows that the process is gone.
    """

    seen: tuple[tuple[int, int], ...]
    proven: bool = False


@dataclass(frozen=True, slots=True)
class TakeOver(Command[int]):
    """Requeue up to `limit` rows that dead executors hold; answers how many. Repeat while it answers `limit`.

    After `poison` takeovers a workflow is held instead, `error` saying why; before, its delay grows.
    """

    limit: int
    poison: int
    error: str


@dataclass(frozen=True, slots=True)
class Running(Command[tuple[WorkflowRow, ...]]):
    """The rows that the database says this executor runs: for reconciliation."""

    executor: int


@dataclass(frozen=True, slots=True)
class HandBack(Command[int]):
    """Return workflows of this executor to the queue, ready at once; `ids=None` means all it has."""

    executor: int
    ids: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Retire(Command[None]):
    """Leave: hand back what is still held and end the lease."""

    executor: int


# ── To the driver ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Invoke(Command[T]):
    """Call the user's code, or a datasource's: blocking, or awaited if it gives an awaitable."""

    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    timeout: float | None = None
    body: bool = False
    """A workflow's own body, which may leave for a long wait; nothing else is left in the middle."""


@dataclass(frozen=True, slots=True)
class Pause(Command[None]):
    """Wait some seconds by the local clock, holding on to everything."""

    seconds: float
