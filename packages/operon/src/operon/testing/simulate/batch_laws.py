"""The laws of batches: each item is in one, none is larger than it may be, and its end is that of its items."""

from __future__ import annotations

from operon.core.batches import MARK, items, outcomes
from operon.core.rows import Kind
from operon.core.states import Status
from operon.stores.memory import Tables
from operon.testing.simulate.verdicts import LawBroken

SIZE = 3
"""Items that are in a batch at most."""


class BatchLaws:
    """Compares the batches of one database with their items, when all has ended."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def concluded(self) -> None:
        """Hold each batch against its items, and each item against its batch."""
        packed: dict[str, str] = {}
        for key, workflow in self._tables.workflows.items():
            if workflow.row.name.endswith(MARK):
                self._judge(key, packed)
        for key, workflow in self._tables.workflows.items():
            batches = [it.child for it in workflow.journal.values() if it.kind is Kind.START and it.name.endswith(MARK)]
            if batches != ([packed[key]] if key in packed else []):
                raise LawBroken(f"{key} is in {packed.get(key)}, and its journal says {batches}.")

    def _judge(self, batch: str, packed: dict[str, str]) -> None:
        row = self._tables.workflows[batch].row
        packing = items(row.input)
        if len(packing) > SIZE:
            raise LawBroken(f"{len(packing)} items are in the batch {batch}.")
        said = outcomes(row.output, len(packing)) if row.status is Status.SUCCEEDED else None
        for place, item in enumerate(packing):
            if item.id in packed:
                raise LawBroken(f"{item.id} is in the batches {packed[item.id]} and {batch}.")
            packed[item.id] = batch
            end = self._tables.workflows[item.id].row
            if end.status is not Status.CANCELLED and (
                end.status is not row.status
                if said is None
                else (end.status, end.output) != (said[place].status, said[place].output)
            ):
                raise LawBroken(
                    f"{item.id} ended {end.status}, {end.output}, and its batch {batch} {row.status}, {said}."
                )
