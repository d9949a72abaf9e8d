"""How much of what was claimed is kept: a claim is bounded in bytes, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from operon.core.rows import WorkflowRow


def excess(rows: Iterable[WorkflowRow], weights: Mapping[str, int], room: int) -> list[WorkflowRow]:
    """Give those for whose journals there is no room behind the others'; the first one always has room.

    Args:
        rows: what was claimed, in the order in which it is to run.
        weights: bytes of the journals, by id.
        room: bytes.
    """
    over: list[WorkflowRow] = []
    before = 0
    for row in rows:
        if before and before >= room:
            over.append(row)
        before += weights.get(row.id, 0)
    return over
