"""The app that is measured: workflows of n steps that do nothing, in both colours, and a queue."""

from __future__ import annotations

import time
from typing import Any

from operon import Operon


class App:
    """Declare what the workloads run."""

    def __init__(self, url: str, **options: Any) -> None:
        self.app = Operon("bench", database=url, **options)
        self.line = self.app.queue("line")

        @self.app.step
        def step(n: int) -> int:
            return n

        @self.app.step
        async def astep(n: int) -> int:
            return n

        @self.app.workflow(name="flow")
        def flow(steps: int) -> int:
            return sum(step(n) for n in range(steps))

        @self.app.workflow(name="aflow")
        async def aflow(steps: int) -> int:
            total = 0
            for n in range(steps):
                total += await astep(n)
            return total

        @self.app.workflow(name="begun")
        def begun() -> float:
            return time.time()

        self.step, self.astep, self.flow, self.aflow, self.begun = step, astep, flow, aflow, begun
