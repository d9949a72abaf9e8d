"""Public data: frozen records of what the database knows; must not know where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """Where a workflow, or one of its operations, is; it is a text: `record.status == "running"`."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    HELD = "held"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def code(self) -> int:
        """The number that stands for this state in the database."""
        return CODES[self]

    @property
    def ended(self) -> bool:
        """Whether nothing will ever change the outcome again."""
        return self in ENDED


CODES: dict[Status, int] = {status: code for code, status in enumerate(Status)}
ENDED = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})


@dataclass(frozen=True, slots=True)
class User:
    """Who makes a request, and in which roles."""

    name: str
    roles: tuple[str, ...] | list[str] = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands where a record cannot be read, because somebody else wrote or damaged it."""

    text: str
    """What is there."""
    why: str


@dataclass(frozen=True, slots=True)
class WorkflowRecord:
    """A workflow as it stood when it was asked for; instants are aware, by the database's clock."""

    id: str
    name: str
    status: Status
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    ready_at: datetime | None
    deadline: datetime | None
    input: Mapping[str, Any]
    output: Any
    error: BaseException | None
    attempts: int
    """How often it was claimed: to begin, after each wait that left the process, and after each takeover."""
    executor: int | None
    """Who runs it, or ran it last when it ended; None while nobody does."""
    version: str
    parent: str | None
    root: str | None
    user: str | None
    roles: tuple[str, ...]
    request_id: str | None
    attributes: Mapping[str, Any]
    queue: str | None = None
    partition: str = ""
    priority: int = 0
    dedupe: str | None = None
    pin: str | None = None
    """The only code version that may run it."""
    host: str | None = None
    """Of the executor, as long as that is known; `describe()` tells it, `find()` does not."""
    pid: int | None = None
    """Likewise."""


@dataclass(frozen=True, slots=True)
class ScheduleRecord:
    """A schedule as it stood when it was asked for; instants are aware, in the schedule's time zone."""

    name: str
    cron: str
    tz: str
    function: str
    """The recorded name of what it starts."""
    input: Mapping[str, Any]
    """The arguments, without the planned time."""
    queue: str | None
    catch_up: str
    overlap: str
    paused: bool
    declared: bool
    """It is in an app's code; else it was made at run time."""
    app: str
    next_at: datetime | None
    """The next planned instant; None while it is paused, or if there is none any more."""
    last: str | None
    """The id of the workflow that was started last, and at which planned instant."""
    last_at: datetime | None
    skipped: int
    """How many firings were left out because the one before had not ended, and the latest of them."""
    skipped_at: datetime | None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One recorded operation of a workflow."""

    position: str
    """Where in the code: `"3"`, or `"2/3"` in the second concurrent branch."""
    kind: str
    name: str
    status: Status
    """What goes on is running, or waiting: a sleep, or a step between two attempts."""
    output: Any
    """What it gave; None for a child, whose own record has its result."""
    error: BaseException | None
    """Its error; while it goes on, that of the attempt before."""
    started_at: datetime | None
    ended_at: datetime | None
    """None while it goes on."""
    attempt: int
    """Which try of a step this is, from 1 on."""
    child: str | None
    version: str
    ready_at: datetime | None = None
    """When it goes on: a sleep's end, or a step's next attempt."""


@dataclass(frozen=True, slots=True)
class Context:
    """Where this code runs."""

    workflow_id: str | None
    step: str | None
    attempt: int
    """Which try of a step this is, from 1 on; always 1 in a body, and in a transaction, however often that is run."""
    idempotency_key: str
    """The same at every attempt of a step: give it to the service that you call."""
    user: str | None
    roles: tuple[str, ...]
