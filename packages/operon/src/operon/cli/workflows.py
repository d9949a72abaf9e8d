"""`operon workflows`: look at workflows, start, cancel and delete them."""

from __future__ import annotations

import json as json_text
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from inspect import Signature
from typing import Annotated, Any, Final, Literal

from cyclopts import App as Commands
from cyclopts import Parameter

from operon.app.client import Client
from operon.app.declarations import Workflow
from operon.app.remote import named
from operon.cli.complaint import Complaint
from operon.cli.database import App, Database, Source, choose, connect
from operon.cli.screen import cell, dump, facts, jsonable, listing, plain, say
from operon.core.records import at
from operon.errors import NotDeserializable, WorkflowFailure
from operon.types import StepRecord, WorkflowRecord

State = Literal["queued", "running", "waiting", "held", "succeeded", "failed", "cancelled"]
AGO: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

command = Commands("workflows", help="Look at workflows, start, cancel and delete them.")


def instant(_: object, tokens: Sequence[Any]) -> datetime:
    """Read an instant: how long ago (`90s`, `2h`, `1d`), or a date and time, local where it says no zone."""
    text = tokens[0].value
    if match := AGO.fullmatch(text):
        return _ago(match[1], match[2])
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise ValueError("write how long ago, such as 90s, 2h or 1d, or a date such as 2026-01-31T12:00") from None


def _ago(number: str, unit: str) -> datetime:
    try:
        return datetime.now(UTC) - timedelta(**{UNITS[unit]: float(number)})
    except OverflowError:
        raise ValueError(f"{number}{unit} ago is before the year 1") from None


Instant = Annotated[datetime | None, Parameter(converter=instant, n_tokens=1)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which workflows."""

    name: str | None = None
    "Of this function, by its recorded name."
    status: Annotated[list[State] | None, Parameter(negative=())] = None
    "In this state; may be repeated."
    user: str | None = None
    "On whose behalf."
    parent: str | None = None
    "Started by this workflow."
    since: Instant = None
    "Created then or later: 90s, 2h, 1d, or a date."
    until: Instant = None
    "Created before then."
    attribute: Annotated[list[str] | None, Parameter(negative=())] = None
    "A label it has, as name=value; may be repeated."
    limit: int = 50
    "How many at most, newest first."


@command.command(name="list")
def list_(
    wanted: Wanted = Wanted(),
    *,
    database: Database = None,
    app: App = None,
    json: bool = False,
) -> None:
    """List workflows, newest first.

    Args:
        json: Print JSON.
    """
    with connect(choose(database, app)) as client:
        found = client.find(
            name=wanted.name,
            status=wanted.status,
            user=wanted.user,
            parent=wanted.parent,
            since=wanted.since,
            until=wanted.until,
            attributes=_arguments(wanted.attribute or ()),
            limit=wanted.limit,
        )
    if json:
        dump(found)
        return
    listing("workflows", ("id", "name", "status", "created", "took", "result"), [_line(each) for each in found])


@command.command
def show(workflow: str, /, *, database: Database = None, app: App = None, json: bool = False) -> None:
    """Show a workflow and its steps.

    Args:
        workflow: Its id.
        json: Print JSON.
    """
    with connect(choose(database, app)) as client:
        record, steps = client.describe(workflow), client.steps(workflow)
    if json:
        dump({**jsonable(record), "steps": steps})
        return
    facts(_facts(record))
    listing("steps", ("", "step", "status", "took", "attempts", "result"), [_step(step) for step in steps])


@command.command
def start(
    name: str,
    /,
    *arguments: str,
    key: str | None = None,
    wait: Annotated[float | None, Parameter(name="--wait")] = None,
    database: Database = None,
    app: App = None,
) -> None:
    """Start a workflow and print its id.

    Args:
        name: Its recorded name.
        arguments: name=value, where a value is JSON or else text; or one JSON object.
        key: Once and only once per key; it becomes the id.
        wait: Wait so many seconds for the result, and print it.
    """
    source = choose(database, app)
    with connect(source) as client:
        handle = _start(client, source, name, _arguments(arguments), key)
        if wait is None:
            print(handle.id)
            return
        try:
            print(plain(handle.result(timeout=wait)))
        except WorkflowFailure:
            raise
        except TimeoutError as error:
            raise Complaint(str(error), 1) from None
        except Exception as error:
            raise Complaint(f"{handle.id} failed: {type(error).__name__}: {error}", 1) from None


@command.command
def cancel(workflow: str, /, *more: str, children: bool = True, database: Database = None, app: App = None) -> None:
    """Cancel workflows; what has ended is left as it is.

    Args:
        workflow: The id.
        more: Further ids.
        children: Cancel what they started, too.
    """
    with connect(choose(database, app)) as client:
        for each in (workflow, *more):
            client.cancel(each, children=children)
            say(f"{each} is {client.describe(each).status}.")


@command.command
def delete(workflow: str, /, *more: str, database: Database = None, app: App = None) -> None:
    """Delete workflows that have ended or are held, and what they started; their keys are free then.

    Args:
        workflow: The id.
        more: Further ids.
    """
    with connect(choose(database, app)) as client:
        for each in (workflow, *more):
            client.delete(each)
            say(f"{each} is deleted.")


def _start(client: Client, source: Source, name: str, arguments: dict[str, Any], key: str | None) -> Any:
    if source.app is None:
        return client.start(named(name, arguments).using(key=key), **arguments)
    function = source.app.functions.get(name)
    if function is None or function.kind == "step":
        known = ", ".join(sorted(each for each, it in source.app.functions.items() if it.kind != "step"))
        raise Complaint(f"{source.app.name} has no workflow {name!r}; there is {known or 'none'}.")
    declared: Workflow[..., Any] = Workflow(function)
    if misfit := _misfit(declared.__signature__, arguments.keys()):
        raise Complaint(f"{name}{declared.__signature__} {misfit}.")
    try:
        args, kwargs = function.signature.decode(json_text.dumps(arguments))
    except NotDeserializable as error:
        raise Complaint(str(error)) from None
    return client.start(declared.using(key=key), *args, **kwargs)


def _misfit(signature: Signature, given: AbstractSet[str]) -> str | None:
    """Say which argument is one too many, or one too few."""
    taken = signature.parameters.values()
    if any(it.kind in {it.VAR_KEYWORD, it.VAR_POSITIONAL} for it in taken):
        return None
    if unknown := min(given - signature.parameters.keys(), default=None):
        return f"takes no {unknown!r}"
    missing = next((it.name for it in taken if it.name not in given and it.default is it.empty), None)
    return missing and f"needs {missing}="


def _arguments(given: Sequence[str]) -> dict[str, Any]:
    if len(given) == 1 and given[0].lstrip().startswith("{"):
        try:
            return dict(json_text.loads(given[0]))
        except ValueError as error:
            raise Complaint(f"The arguments are no JSON object: {error}.") from None
    pairs = [each.partition("=") for each in given]
    if wrong := next((name for name, equals, _ in pairs if not (equals and name)), None):
        raise Complaint(f"{wrong!r} is no argument: write name=value, or one JSON object.")
    return {name: _value(text) for name, _, text in pairs}


def _value(text: str) -> Any:
    try:
        return json_text.loads(text)
    except ValueError:
        return text


# ── Showing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _line(record: WorkflowRecord) -> tuple[object, ...]:
    return (record.id, record.name, record.status, record.created_at, _took(record), _result(record))


def _facts(record: WorkflowRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "name": record.name,
        "status": record.status,
        "input": record.input,
        "output": None if record.status != "succeeded" else plain(record.output),
        "error": _result(record) if record.error else None,
        "created": record.created_at,
        "took": _took(record),
        "ready": record.ready_at,
        "deadline": record.deadline,
        "claimed": f"{record.attempts} times" if record.attempts != 1 else "once",
        "executor": record.executor if record.host is None else f"{record.executor} ({record.host}, pid {record.pid})",
        "version": record.version,
        "pin": record.pin,
        "parent": record.parent,
        "user": record.user,
        "attributes": record.attributes,
    }


def _step(step: StepRecord) -> tuple[object, ...]:
    depth = "  " * step.position.count("/")
    name = f"{step.name} → {step.child}" if step.child else step.name
    instant = step.kind in {"sleep", "now"} and isinstance(step.output, float | int)
    result = at(step.output) if instant else _result(step)
    if step.ended_at is None and step.ready_at is not None and not instant:
        result = f"{result}; again at {cell(step.ready_at)}"
    return (f"{depth}{step.position}", cell(f"{depth}{name}"), step.status, _took(step), step.attempt, result)


def _took(record: WorkflowRecord | StepRecord) -> timedelta | None:
    return record.ended_at - record.started_at if record.started_at and record.ended_at else None


def _result(record: WorkflowRecord | StepRecord) -> object:
    if record.error is not None:
        return f"{type(record.error).__name__}: {record.error}"
    return plain(record.output) if record.status == "succeeded" else None
