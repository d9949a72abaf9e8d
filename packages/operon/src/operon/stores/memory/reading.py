"""What the commands that only read mean, in plain Python."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from operon.core import commands as c
    from operon.core.rows import Entry, Filter, Outcome, WorkflowRow
    from operon.stores.memory.tables import Tables


def load(tables: Tables, command: c.Load) -> tuple[Entry, ...]:
    """Give the journal in completion order."""
    workflow = tables.workflows.get(command.workflow_id)
    return workflow.history if workflow else ()


def look(tables: Tables, command: c.Look) -> Mapping[str, Outcome]:
    """Leave out what is unknown."""
    known = (tables.workflows[key] for key in command.ids if key in tables.workflows)
    return {it.row.id: it.outcome for it in known}


def find(tables: Tables, command: c.Find) -> tuple[WorkflowRow, ...]:
    """Newest first, ids breaking ties."""
    found = sorted(_matching(tables, command.filter), key=lambda row: (row.created_at, row.id), reverse=True)
    return tuple(found[: command.filter.limit])


def count(tables: Tables, command: c.Count) -> int:
    """Count across all pages."""
    return sum(1 for _ in _matching(tables, replace(command.filter, after=None)))


def describe(tables: Tables, command: c.Describe) -> WorkflowRow | None:
    """One row."""
    workflow = tables.workflows.get(command.workflow_id)
    return workflow.row if workflow else None


def _matching(tables: Tables, wanted: Filter) -> Iterator[WorkflowRow]:
    return (w.row for w in tables.workflows.values() if _matches(w.row, wanted))


def _matches(row: WorkflowRow, wanted: Filter) -> bool:
    labels: dict[str, Any] = json.loads(row.attributes or "{}")
    return (
        not row.erased
        and (wanted.name is None or row.name == wanted.name)
        and (wanted.status is None or row.status in wanted.status)
        and (wanted.parent is None or row.parent == wanted.parent)
        and (wanted.user is None or row.user == wanted.user)
        and (wanted.queue is None or row.queue == wanted.queue)
        and (wanted.since is None or row.created_at >= wanted.since)
        and (wanted.until is None or row.created_at < wanted.until)
        and all(label in labels and labels[label] == json.loads(text) for label, text in wanted.attributes)
        and (wanted.after is None or (row.created_at, row.id) < wanted.after)
    )
