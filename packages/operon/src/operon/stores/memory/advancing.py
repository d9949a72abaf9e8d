"""What a write to a journal means, in plain Python: all of it, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from operon.core.rows import Advanced, Entry, Guard, Outcome, Park
from operon.core.states import Status
from operon.stores.memory import batches

if TYPE_CHECKING:
    from operon.core import commands as c
    from operon.stores.memory.tables import Tables, Workflow


def advance(tables: Tables, command: c.Advance) -> Advanced:
    """Write all entries and the end, or nothing: the claim must be held, and every position be free or mine."""
    if not tables.holds(Guard(command.workflow_id, command.claim)):
        return Advanced(written=False)
    workflow, now = tables.workflows[command.workflow_id], tables.clock()
    if not all(_is_free(workflow, entry, command.claim) for entry in command.entries):
        return Advanced(written=False)
    for entry in command.entries:
        workflow.journal.setdefault(entry.position, _recorded(entry, now))
        workflow.claims[entry.position] = command.claim
    parked = isinstance(command.end, Park) and _park(tables, workflow, command.end)
    if isinstance(command.end, Outcome):
        workflow.end(command.end, now)
        batches.settle(tables, command.end, now)
    delayed = (entry.position for entry in command.entries if entry.after is not None)
    instants = tuple(float(workflow.journal[position].output or 0) for position in delayed)
    return Advanced(written=True, parked=parked, instants=instants)


def _park(tables: Tables, workflow: Workflow, park: Park) -> bool:
    """Go to sleep, unless what is awaited is over already: then the run goes on."""
    if any(map(tables.is_over, park.awaits)):
        return False
    asleep = replace(workflow.row, status=Status.WAITING, executor=None, ready_at=park.ready_at, takeovers=0)
    workflow.row = asleep
    workflow.awaits, workflow.quiet = park.awaits, park.quiet
    return True


def _recorded(entry: Entry, now: float) -> Entry:
    """An entry as it will be read: its instants are the store's."""
    output = entry.output if entry.after is None else repr(now + entry.after)
    return replace(entry, output=output, after=None, started_at=now - entry.elapsed, ended_at=now)


def _is_free(workflow: Workflow, entry: Entry, claim: int) -> bool:
    """Whether a position is unwritten, or was written by this very claim and says the same."""
    there = workflow.journal.get(entry.position)
    return there is None or (
        workflow.claims[entry.position] == claim
        and (there.ordinal, there.kind, there.name, there.digest)
        == (entry.ordinal, entry.kind, entry.name, entry.digest)
        and (entry.after is not None or there.output == entry.output)
        and there.error == entry.error
    )
