"""What the parts of an engine see of it: what a verb sees, and the parts that they share; not who they are."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Protocol

from operon.core.host import RunHost
from operon.core.journal import Branch, Run
from operon.core.rows import Outcome
from operon.core.starting import Execute
from operon.engine.loops import Loop
from operon.engine.recorder import Recorders
from operon.engine.runs import Runs
from operon.engine.settings import Settings
from operon.engine.timerthread import Timers
from operon.engine.waits import Waits


class Runtime(RunHost[Run, Branch], Protocol):
    """An engine as its parts see it; what only one of them needs beyond, it declares beside itself."""

    settings: Settings
    timers: Timers
    recorders: Recorders
    waits: Waits
    loop: Loop
    runs: Runs
    forked: bool
    """This is a child of the process that launched: nothing works here any more."""


class DrivingRuntime(Runtime, Protocol):
    """An engine as what drives operations sees it."""

    def execute(self, command: Execute) -> Outcome | None:
        """Run what was just started, for a blocking caller; inline, to its outcome."""
        ...

    async def aexecute(self, command: Execute) -> Outcome | None:
        """Run what was just started, for an awaiting caller; inline, to its outcome."""
        ...

    def abandoned(self, work: Future[Any]) -> None:
        """Count a thread that was left running."""
        ...
