"""`operon schedules`: look at schedules, pause and resume them, run them now or for a time that has passed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import App as Commands
from cyclopts import Parameter

from operon.app.client import Client
from operon.cli.database import App, Database, choose, connect
from operon.cli.screen import dump, listing, say
from operon.cli.workflows import instant
from operon.core.results import Handle
from operon.types import ScheduleRecord

command = Commands("schedules", help="Look at schedules, pause and resume them, run them now or for a time gone by.")

Instant = Annotated[datetime, Parameter(converter=instant, n_tokens=1)]


@command.command(name="list")
def list_(*, database: Database = None, app: App = None, json: bool = False) -> None:
    """List schedules: when each comes next, what it started last, and how often it was left out.

    Args:
        json: Print JSON.
    """
    with connect(choose(database, app)) as client:
        rows = client.schedules.list()
    if json:
        dump(rows)
        return
    listing(
        "schedules",
        ("name", "status", "cron", "zone", "function", "next", "last", "skipped"),
        [
            (
                row.name,
                "paused" if row.paused else "open",
                row.cron,
                row.tz,
                row.function,
                _spelled(row.next_at),
                _spelled(row.last_at),
                row.skipped,
            )
            for row in rows
        ],
    )


@command.command
def pause(schedule: str, /, *more: str, database: Database = None, app: App = None, json: bool = False) -> None:
    """Let a schedule start nothing more; what runs goes on.

    Args:
        schedule: Its name.
        more: Further names.
        json: Print JSON.
    """
    _change((schedule, *more), lambda client, name: client.schedules.pause(name), database, app, json=json)


@command.command
def resume(schedule: str, /, *more: str, database: Database = None, app: App = None, json: bool = False) -> None:
    """End a pause; nothing of the time between is caught up.

    Args:
        schedule: Its name.
        more: Further names.
        json: Print JSON.
    """
    _change((schedule, *more), lambda client, name: client.schedules.resume(name), database, app, json=json)


@command.command
def trigger(schedule: str, /, *, database: Database = None, app: App = None, json: bool = False) -> None:
    """Run a schedule now, whatever its time, its pause and its last run.

    Args:
        schedule: Its name.
        json: Print JSON.
    """
    with connect(choose(database, app)) as client:
        _started([client.schedules.trigger(schedule)], json=json)


@command.command
def backfill(
    schedule: str,
    /,
    *,
    since: Instant,
    until: Instant | None = None,
    database: Database = None,
    app: App = None,
    json: bool = False,
) -> None:
    """Run a schedule for each planned instant of a time that has passed; what was run is not run again.

    Args:
        schedule: Its name.
        since: From then on: 2h, 1d, or 2026-01-31T12:00.
        until: Before then; else up to now.
        json: Print JSON.
    """
    with connect(choose(database, app)) as client:
        end = datetime.fromtimestamp(client.host.now(), UTC) if until is None else until
        _started(client.schedules.backfill(schedule, since, end), json=json)


@command.command
def delete(schedule: str, /, *more: str, database: Database = None, app: App = None) -> None:
    """Delete a schedule; what it started goes on. One that code declares is there again at the next launch.

    Args:
        schedule: Its name.
        more: Further names.
    """
    with connect(choose(database, app)) as client:
        for name in (schedule, *more):
            client.schedules.delete(name)
            say(f"{name} is deleted.")


def _change(
    names: Iterable[str], change: Callable[[Client, str], None], database: str | None, app: str | None, *, json: bool
) -> None:
    rows: list[ScheduleRecord] = []
    with connect(choose(database, app)) as client:
        for name in names:
            change(client, name)
            rows.append(client.schedules.describe(name))
    if json:
        dump(rows)
        return
    for row in rows:
        say(f"{row.name} is {'paused' if row.paused else f'open; next {_spelled(row.next_at)}'}.")


def _started(handles: Iterable[Handle[Any]], *, json: bool) -> None:
    ids = [handle.id for handle in handles]
    if json:
        dump(ids)
        return
    for key in ids:
        say(key)


def _spelled(at: datetime | None) -> str:
    """Show an instant by the schedule's own wall clock, whose offset tells apart what comes twice."""
    return "—" if at is None else f"{at:%Y-%m-%d %H:%M:%S %z}"
