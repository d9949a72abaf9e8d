"""Runs whose event loop was closed under them: they never go on here, so another process is to have them."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

from operon.core.function import Function
from operon.core.rows import Claimed, Guard, Outcome
from operon.errors import Suspended

if TYPE_CHECKING:
    from operon.engine.engine import Engine


def leave(engine: Engine, it: Claimed, function: Function, done: Future[Outcome | None]) -> Guard:
    """Leave a claim whose body was to run on a loop that is closed, or did; answers what is to be handed back."""
    guard = Guard(it.row.id, it.row.claim)
    run = engine.runs.get(guard.workflow_id)
    if run is not None and run.guard != guard:
        run = None
    if run is not None:
        engine.kill(run, Suspended(f"{run.id} was left: its event loop was closed."))
    engine.leave(it.row, run, function, None)
    done.set_result(None)
    return guard
