"""A workflow that does nothing but steps, for tests that count what those cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from operon import Operon


def nothing() -> int:
    """Count nothing."""
    return 0


def stepping(app: Operon, colour: str, begin: Callable[[], object] = nothing, end: Callable[[], int] = nothing) -> Any:
    """Declare a workflow of as many steps as it is told; `begin` and `end` are called around them, in its body."""

    @app.step
    def one(n: int) -> int:
        return n

    @app.step
    async def aone(n: int) -> int:
        return n

    @app.workflow(name="sync")
    def flow(steps: int) -> int:
        begin()
        for n in range(steps):
            one(n)
        return end()

    @app.workflow(name="async")
    async def aflow(steps: int) -> int:
        begin()
        for n in range(steps):
            await aone(n)
        return end()

    return flow if colour == "sync" else aflow
