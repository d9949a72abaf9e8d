"""The laws of transactions: what has committed is what is recorded, once; what was refused has left nothing."""

from __future__ import annotations

from operon.core.rows import Entry, Kind
from operon.core.states import Status
from operon.stores.memory import Tables
from operon.testing.simulate.user_tables import UserTables
from operon.testing.simulate.verdicts import LawBroken

FINAL = ("is empty", "foreign key")
"""Why a transaction fails."""


class TransactionLaws:
    """Compares what transactions did, in the journal's database and in another one, with what is recorded of them."""

    def __init__(self, tables: Tables, here: UserTables, elsewhere: UserTables) -> None:
        self._memory = tables
        self._here = here
        self._tables = {"pay": here, "remit": elsewhere}

    def concluded(self) -> None:
        """Hold all that was spent against all that is recorded."""
        for workflow_id, workflow in self._memory.workflows.items():
            for position, entry in workflow.journal.items():
                if entry.kind is Kind.TRANSACTION and entry.name in self._tables:
                    self._judge(f"{workflow_id}:{position}", entry)
        for tables in self._tables.values():
            for key in tables.spent:
                self._recorded(key, tables)

    def _judge(self, key: str, entry: Entry) -> None:
        if entry.error is not None and not any(final in entry.error for final in FINAL):
            raise LawBroken(f"{key} could have been tried again, and failed: {entry.error}.")
        value = self._tables[entry.name].spent.get(key)
        if entry.output != (None if value is None else f'"{value}"'):
            raise LawBroken(f"{key} spent for {value}, and recorded is {entry.output or entry.error}.")

    def _recorded(self, key: str, tables: UserTables) -> None:
        """In another database the record is a second commit: a cancellation may come between the two."""
        workflow_id, _, position = key.partition(":")
        workflow = self._memory.workflows.get(workflow_id)
        entry = workflow.journal.get(position) if workflow else None
        if entry is not None and entry.kind is Kind.TRANSACTION:
            return
        cut = workflow is not None and (entry is not None or workflow.row.status in {Status.CANCELLED, Status.FAILED})
        if tables is self._here or not cut:
            raise LawBroken(f"{key} spent for {tables.spent[key]}, and recorded is {entry}.")
