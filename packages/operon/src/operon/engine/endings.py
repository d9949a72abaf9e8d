"""What is told when a workflow has ended here: whoever waits for it, in this process or in the store."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future

from operon.core.commands import Look, Wake
from operon.core.rows import Outcome, WorkflowRow
from operon.core.timetable import PREFIX
from operon.engine.runtime import Runtime


def tell(engine: Runtime, row: WorkflowRow, outcome: Outcome) -> None:
    """Tell all who wait for a workflow how it ended."""
    engine.loop.left.discard(row.id)
    engine.waits.ended(row.id, outcome)
    if outcome.shares:
        _share(engine, tuple(share.item.workflow_id for share in outcome.shares))
    parent = None if row.parent is None else engine.runs.get(row.parent)
    behind = row.id.startswith(PREFIX)  # the schedule's next run may be waiting for this one
    if behind or (row.parent is not None and (parent is None or parent.parking)):
        engine.store.submit(Wake((row.id,))).add_done_callback(lambda _: engine.nudge())


def _share(engine: Runtime, ids: tuple[str, ...]) -> None:
    """Tell who waits for the items of a batch how they have ended, those that have."""

    def looked(answer: Future[Mapping[str, Outcome]]) -> None:
        outcomes: Mapping[str, Outcome] = {} if answer.exception() else answer.result()
        for workflow_id, outcome in outcomes.items():
            if outcome.status.ended:
                engine.waits.ended(workflow_id, outcome)

    engine.store.submit(Look(ids)).add_done_callback(looked)
    engine.store.submit(Wake(ids)).add_done_callback(lambda _: engine.nudge())
