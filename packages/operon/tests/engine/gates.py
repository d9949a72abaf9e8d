"""A wait after which a body is surely replayed: it goes on once the test has seen it leave, however slow all this is.

A short sleep would do on a fast machine only: where it is nearly over before the run can be parked, the run stays.
"""

from __future__ import annotations

import threading

import operon
from children import PATIENCE, eventually
from operon import Operon, aio


class Gate:
    """A workflow that bodies wait for: it ends when it is told to."""

    def __init__(self, app: Operon) -> None:
        self._opened = threading.Event()

        @app.step(name="wait at the gate")
        def wait() -> None:
            assert self._opened.wait(PATIENCE)

        @app.workflow(name="gate")
        def gate() -> None:
            wait()

        self._workflow = gate

    def shut(self) -> None:
        """Begin it, before any body comes to it."""
        operon.start(self._workflow.using(key="gate"))

    def pass_through(self) -> None:
        """Wait for it, in a body."""
        operon.retrieve("gate").result()

    async def apass_through(self) -> None:
        """Wait for it, in an async body."""
        await (await aio.retrieve("gate"))

    def open(self) -> None:
        """Let all go on."""
        self._opened.set()

    def open_behind(self, *ids: str) -> None:
        """Wait until these workflows have left their bodies, and let them go on: each is replayed."""
        for workflow_id in ids:
            eventually(lambda it=workflow_id: operon.describe(it).status == "waiting", f"{workflow_id} never left")
        self.open()
