"""Queues as the core knows them: which limits can be meant, and what a queue hands out next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import zip_longest
from typing import Any, TypeAlias, TypeVar

from msgspec import json
from msgspec.structs import replace

from operon.core import context
from operon.core.codec.signature import digest
from operon.core.commands import Op, Queues, SetQueue, StartMany, ask
from operon.core.function import Declared, Using
from operon.core.given import MOST, seconds, shown
from operon.core.host import Host
from operon.core.once import once
from operon.core.results import Handle
from operon.core.results import start as start_one
from operon.core.rows import Limits, QueueRow
from operon.core.starting import compare, known, new_row, tell
from operon.errors import BadValue, NotFound

T = TypeVar("T")
Rate: TypeAlias = tuple[int, float | timedelta]
AGEING = 60.0
"""Seconds of waiting that a level of priority is worth."""


def limits(
    *,
    concurrency: int | None = None,
    worker_concurrency: int | None = None,
    rate: Rate | None = None,
    partition_concurrency: int | None = None,
    partition_rate: Rate | None = None,
) -> Limits:
    """Make limits of what a user wrote.

    Raises:
        BadValue: a limit below one, no whole number, or a rate whose period is not above zero.
    """
    many, period = _rate("rate", rate)
    partition_many, partition_period = _rate("partition_rate", partition_rate)
    return Limits(
        _whole("concurrency", concurrency),
        _whole("worker_concurrency", worker_concurrency),
        many,
        period,
        _whole("partition_concurrency", partition_concurrency),
        partition_many,
        partition_period,
    )


def _whole(what: str, value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 < value <= MOST:
        raise BadValue(f"{what}={shown(value)} must be a whole number of at least 1, or None for no limit.")
    return value


def _rate(what: str, rate: Any) -> tuple[int | None, float | None]:
    if rate is None:
        return None, None
    try:
        many, period = rate
    except (TypeError, ValueError):
        raise BadValue(f"{what}={shown(rate)} must be a pair: how many, and in what time: (100, 60).") from None
    length = seconds(period, f"The period of {what}=")
    if length == 0:
        raise BadValue(f"{what}={shown(rate)}: its period must be above 0 seconds.")
    return _whole(f"{what}[0]", many), length


def in_turn(lines: Sequence[Sequence[T]], room: int) -> list[T]:
    """Serve partitions in turn: the first of each, then the second of each, as far as there is room."""
    missing = object()
    rounds = (each for turn in zip_longest(*lines, fillvalue=missing) for each in turn if each is not missing)
    return [each for each, _ in zip(rounds, range(room), strict=False)]  # type: ignore[misc] # the fill was left out


# ── Verbs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def enqueue(
    host: Host, queue: str, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Op[Handle[Any]]:
    """Start a workflow in a queue.

    Raises:
        NotFound: there is no such queue; nothing was recorded.
    """
    return (yield from start_one(host, queued(declared, queue), args, kwargs))


def enqueue_many(
    host: Host, queue: str, calls: Sequence[tuple[Declared, tuple[Any, ...], dict[str, Any]]]
) -> Op[list[Handle[Any]]]:
    """Start workflows in a queue, all in one commit; in a workflow or a transaction one after the other.

    Raises:
        NotFound: there is no such queue; nothing was recorded.
        BadValue: one of them says on_duplicate="replace".
    """
    plain = [(queued(declared, queue), args, kwargs) for declared, args, kwargs in calls]
    if any(declared.options.on_duplicate == "replace" for declared, _, _ in plain):
        raise BadValue('on_duplicate="replace" is for enqueue(), one at a time.')
    around = context.current() is not None or context.transaction() is not None
    if around or any(declared.options.within is not None for declared, _, _ in plain):
        handles: list[Handle[Any]] = []
        for declared, args, kwargs in plain:
            handles.append((yield from start_one(host, declared, args, kwargs)))
        return handles
    yield from known(host, queue)
    rows = [new_row(host, declared, args, kwargs) for declared, args, kwargs in plain]
    answers = (yield from ask(StartMany(tuple(rows)))) if rows else ()
    tell(host, *((declared.function, row) for (declared, _, _), row in zip(plain, rows, strict=True)))
    for (declared, _, _), row, answer in zip(plain, rows, answers, strict=True):
        compare(declared, row, answer)
    return [
        Handle(host, answer.id or row.id, declared.function)
        for (declared, _, _), row, answer in zip(plain, rows, answers, strict=True)
    ]


class Queued:
    """A declaration, and options that name a queue."""

    def __init__(self, declared: Declared, options: Using) -> None:
        self.function = declared.function
        self.instance = declared.instance
        self.options = options


def queued(declared: Declared, queue: str) -> Queued:
    """Say of a call that it goes through a queue."""
    return Queued(declared, replace(declared.options, queue=queue))


def change(host: Host, command: SetQueue) -> Op[None]:
    """Change a queue, and have it looked at anew.

    Raises:
        NotFound: there is none of this name.
    """

    def work(_: str) -> Op[None]:
        if not (yield from ask(command)):
            raise NotFound(f"There is no queue {command.name!r}: an app declares it with app.queue({command.name!r}).")
        host.nudge()

    yield from once(host, "queue", digest(json.encode(command).decode()), type(None), work)


def named(host: Host, queue: str) -> Op[QueueRow]:
    """Read one queue.

    Raises:
        NotFound: there is none of this name.
    """
    yield from known(host, queue)
    return next(row for row in (yield from ask(Queues())) if row.name == queue)


def spelled(row: QueueRow) -> Mapping[str, Any]:
    """Spell a queue for people and programs."""
    it = row.limits
    return {
        "name": row.name,
        "paused": row.paused,
        "queued": row.queued,
        "running": row.running,
        "concurrency": it.concurrency,
        "worker_concurrency": it.worker_concurrency,
        "rate": None if it.rate is None else [it.rate, it.period],
        "partition_concurrency": it.partition_concurrency,
        "partition_rate": None if it.partition_rate is None else [it.partition_rate, it.partition_period],
        "edited": row.limits != row.seed,
        "app": row.app,
    }
