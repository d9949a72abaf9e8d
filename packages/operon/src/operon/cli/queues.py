"""`operon queues`: look at queues, pause and resume them, change their limits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from cyclopts import App as Commands
from cyclopts import Parameter

from operon.cli.database import App, Database, choose, connect
from operon.cli.screen import dump, listing, say
from operon.core import queues
from operon.core.commands import Queues, SetQueue
from operon.core.queues import Rate
from operon.core.rows import Limits

RATE: Final = re.compile(r"(\d+)/(\d*\.?\d+)?\s*([smhd])?")
UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

command = Commands("queues", help="Look at queues, pause and resume them, change their limits.")


def rate(_: object, tokens: Sequence[Any]) -> Rate:
    """Read a rate: `100/m`, `5/10s`, or `1/0.5`, in seconds."""
    match = RATE.fullmatch(tokens[0].value)
    if not match or not (match[2] or match[3]):
        raise ValueError("write how many in what time, such as 100/m, 5/10s or 1/0.5")
    return int(match[1]), float(match[2] or 1) * UNITS[match[3] or "s"]


RateOption = Annotated[Rate | None, Parameter(converter=rate, n_tokens=1)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The limits; those that are not given are lifted."""

    concurrency: int | None = None
    "How many may run."
    worker_concurrency: int | None = None
    "How many may run in each process."
    rate: RateOption = None
    "How many may begin in any period: 100/m, 5/10s."
    partition_concurrency: int | None = None
    "How many of each partition may run."
    partition_rate: RateOption = None
    "How many of each partition may begin in any period."


@command.command(name="list")
def list_(*, database: Database = None, app: App = None, json: bool = False) -> None:
    """List queues, their limits, and how many workflows wait and run there.

    Args:
        json: Print JSON.
    """
    with connect(choose(database, app)) as client:
        rows = client.host.store.ask(Queues())
    if json:
        dump([queues.spelled(row) for row in rows])
        return
    listing(
        "queues",
        ("name", "status", "queued", "running", "limits", "app"),
        [
            (
                row.name,
                "paused" if row.paused else "open",
                row.queued,
                row.running,
                _limits(row.limits, row.seed),
                row.app,
            )
            for row in rows
        ],
    )


@command.command
def pause(queue: str, /, *more: str, database: Database = None, app: App = None, json: bool = False) -> None:
    """Let nothing more of a queue begin; what runs goes on.

    Args:
        queue: Its name.
        more: Further names.
        json: Print JSON.
    """
    _change([SetQueue(name, paused=True) for name in (queue, *more)], database, app, json=json)


@command.command
def resume(queue: str, /, *more: str, database: Database = None, app: App = None, json: bool = False) -> None:
    """End a pause.

    Args:
        queue: Its name.
        more: Further names.
        json: Print JSON.
    """
    _change([SetQueue(name, paused=False) for name in (queue, *more)], database, app, json=json)


@command.command(name="set")
def set_(
    queue: str, /, wanted: Wanted = Wanted(), *, database: Database = None, app: App = None, json: bool = False
) -> None:
    """Replace a queue's limits, whatever the code says, until they are reset.

    Args:
        queue: Its name.
        json: Print JSON.
    """
    limits = queues.limits(
        concurrency=wanted.concurrency,
        worker_concurrency=wanted.worker_concurrency,
        rate=wanted.rate,
        partition_concurrency=wanted.partition_concurrency,
        partition_rate=wanted.partition_rate,
    )
    _change([SetQueue(queue, limits)], database, app, json=json)


@command.command
def reset(queue: str, /, *more: str, database: Database = None, app: App = None, json: bool = False) -> None:
    """Take the limits that the code declares, now and from now on.

    Args:
        queue: Its name.
        more: Further names.
        json: Print JSON.
    """
    _change([SetQueue(name, reset=True) for name in (queue, *more)], database, app, json=json)


def _change(commands: Sequence[SetQueue], database: str | None, app: str | None, *, json: bool) -> None:
    names = {each.name for each in commands}
    with connect(choose(database, app)) as client:
        for each in commands:
            client.host.drive(queues.change(client.host, each))
        rows = [row for row in client.host.store.ask(Queues()) if row.name in names]
    if json:
        dump([queues.spelled(row) for row in rows])
        return
    for row in rows:
        say(f"{row.name} is {'paused' if row.paused else 'open'}; {_limits(row.limits, row.seed)}.")


def _limits(limits: Limits, seed: Limits) -> str:
    spelled = (
        (limits.concurrency, "{} at a time"),
        (limits.worker_concurrency, "{} in a process"),
        (limits.rate, f"{{}} in {limits.period or 0:g} s"),
        (limits.partition_concurrency, "{} of a partition"),
        (limits.partition_rate, f"{{}} of a partition in {limits.partition_period or 0:g} s"),
    )
    text = ", ".join(words.format(limit) for limit, words in spelled if limit is not None) or "no limit"
    return text if limits == seed else f"{text} (changed)"
