"""What the commands that start and cancel workflows mean, in plain Python."""

from __future__ import annotations

from msgspec.structs import replace

from operon.core import commands as c
from operon.core.rows import Guard, Outcome, Started, first_row
from operon.core.states import Status
from operon.stores.memory import cleaning
from operon.stores.memory.tables import Tables, Workflow


def start(tables: Tables, command: c.Start) -> Started:
    """Insert unless the id is taken or the parent has lost its claim; my own nonce is an insert of mine."""
    new = command.row
    there = tables.workflows.get(new.id)
    if there is None:
        if new.parent and not tables.holds(new.parent):
            return Started(created=False, outcome=Outcome(Status.CANCELLED), name="", digest="", refused=True)
        if (holder := _holder(tables, new.dedupe)) and not new.replace:
            row = holder.row
            return Started(created=False, outcome=holder.outcome, name=row.name, digest=row.digest, id=row.id)
        replaced = cancel(tables, c.Cancel(holder.row.id)) if holder else ()
        there = tables.workflows[new.id] = Workflow(first_row(new, tables.clock()))
        if new.parent:
            tables.children[new.parent.workflow_id].append(new.id)
        return Started(created=True, outcome=there.outcome, name=new.name, digest=new.digest, replaced=replaced)
    row = there.row
    return Started(row.nonce == new.nonce, there.outcome, row.name, row.digest)


def start_many(tables: Tables, command: c.StartMany) -> tuple[Started, ...]:
    """One after the other; nobody sees some of them without the others."""
    return tuple(start(tables, c.Start(row)) for row in command.rows)


def cancel(tables: Tables, command: c.Cancel) -> tuple[Guard, ...]:
    """Cancel what lives, of the workflow and of all below it, even below one that has ended; fence its owner."""
    tree = [command.workflow_id]
    for key in tree if command.children else ():
        tree += tables.children.get(key, ())
    there = [tables.workflows[key] for key in tree if key in tables.workflows]
    now = tables.clock()
    for workflow in there:
        if not workflow.row.status.ended:
            cleaning.note(workflow, now)
            workflow.end(Outcome(Status.CANCELLED), now)
            workflow.row = replace(workflow.row, claim=workflow.row.claim + 1)
    guards = (Guard(it.row.id, it.row.claim - 1) for it in there if it.row.status is Status.CANCELLED)
    return tuple(sorted(guards, key=lambda guard: guard.workflow_id))


def _holder(tables: Tables, dedupe: str | None) -> Workflow | None:
    alive = (w for w in tables.workflows.values() if not w.row.status.ended)
    return None if dedupe is None else next((w for w in alive if w.row.dedupe == dedupe), None)
