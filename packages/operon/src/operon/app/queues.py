"""Queues as the user has them: a declaration with limits, and the verbs that put work in line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ParamSpec, Protocol, TypeVar

from operon.app.declarations import Call, Durable, startable
from operon.core import queues as core
from operon.core.commands import Op, SetQueue
from operon.core.host import Host
from operon.core.queues import Rate
from operon.core.results import Handle
from operon.core.rows import Limits
from operon.errors import NotLaunched

P = ParamSpec("P")
R = TypeVar("R")


class Launchable(Protocol):
    """The app that a queue is declared on."""

    name: str
    host: Host | None


class Queue:
    """A line in which workflows wait until its limits let them run; the limits hold over all processes.

    `app.queue(...)` makes one. Its methods change the queue in the database, for every process and at once, and block.
    """

    def __init__(self, app: Launchable, name: str, limits: Limits) -> None:
        self.app = app
        self.name = name
        self.limits = limits

    def __repr__(self) -> str:
        return f"<Queue {self.name!r}>"

    @property
    def host(self) -> Host | None:
        """The launched app that this belongs to."""
        return self.app.host

    def set(
        self,
        *,
        concurrency: int | None = None,
        worker_concurrency: int | None = None,
        rate: Rate | None = None,
        partition_concurrency: int | None = None,
        partition_rate: Rate | None = None,
    ) -> None:
        """Replace all limits; they hold, whatever the code says, until `reset`. What is not given is not limited.

        Raises:
            BadValue: a limit below one, or a rate without a period.
        """
        limits = core.limits(
            concurrency=concurrency,
            worker_concurrency=worker_concurrency,
            rate=rate,
            partition_concurrency=partition_concurrency,
            partition_rate=partition_rate,
        )
        self._change(SetQueue(self.name, limits))

    def pause(self) -> None:
        """Let nothing more of it begin, anywhere; what runs goes on."""
        self._change(SetQueue(self.name, paused=True))

    def resume(self) -> None:
        """End a pause."""
        self._change(SetQueue(self.name, paused=False))

    def reset(self) -> None:
        """Take the limits that the code declares, now and from now on."""
        self._change(SetQueue(self.name, reset=True))

    def _change(self, command: SetQueue) -> None:
        if self.host is None:
            raise NotLaunched(f"{self.app.name} is not launched: change the queue {self.name!r} within `with app:`.")
        self.host.drive(core.change(self.host, command))


def enqueue(
    host: Host, queue: Queue | str, workflow: Durable[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> Op[Handle[R]]:
    """Put a workflow in line: once this returns, it will run when the queue's limits let it, and it will end.

    In a workflow it becomes a child; in a transaction it is in line when that commits.

    Args:
        queue: the queue, or its name.
        workflow: what to run; `.using(priority=, delay=, dedupe=, partition=)` says how.
        args: its arguments.
        kwargs: its arguments.

    Raises:
        NotFound: there is no such queue.
        KeyConflict, Duplicate: as `start`.
        NotSerializable: an argument cannot be recorded.
        DeclarationError: a step, or a function that is not declared.
    """
    startable("enqueue", workflow)
    return core.enqueue(host, _name(queue), workflow, args, kwargs)


def enqueue_many(host: Host, queue: Queue | str, calls: Iterable[Call[R]], /) -> Op[list[Handle[R]]]:
    """Put calls in line, `[send.bind(1), send.using(key="b").bind(2)]`, all in one commit.

    Raises:
        NotFound: there is no such queue.
        KeyConflict, Duplicate: as `start`; the others are in line all the same.
    """
    return core.enqueue_many(host, _name(queue), [(call.declared, call.args, call.kwargs) for call in calls])


def _name(queue: Queue | str) -> str:
    return queue.name if isinstance(queue, Queue) else queue
