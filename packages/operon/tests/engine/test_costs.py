"""What a step costs, in what does not depend on the machine: calls of Python functions, and of C's."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import operon
from engine.conftest import MakeApp
from engine.stepping import stepping

CALLS = {
    "memory-sync": 99,
    "memory-async": 124,
    "sqlite-sync": 180,
    "sqlite-async": 154,
    "postgres-sync": 182,
    "postgres-async": 155,
}
"""As counted with Python 3.11 on the thread of the body; who needs fewer writes it down here."""


class Calls:
    """Counts the calls on the thread that begins and ends it."""

    def __init__(self) -> None:
        self.count = 0

    def begin(self) -> None:
        """Count from here on."""
        self.count = 0
        sys.setprofile(self._called)

    def end(self) -> int:
        """Count no more."""
        sys.setprofile(None)
        return self.count

    def _called(self, _frame: Any, event: str, _arg: Any) -> None:
        self.count += event in {"call", "c_call"}


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_step_is_so_many_calls(make: MakeApp, colour: str, request: pytest.FixtureRequest) -> None:
    app, calls = make(lease=60), Calls()
    flow = stepping(app, colour, calls.begin, calls.end)

    def counted(steps: int) -> int:
        return min(int(operon.start(flow, steps).result(60)) for _ in range(5))

    with app:
        counted(1)
        each = (counted(110) - counted(10)) / 100
    assert each < 1.1 * CALLS[request.node.callspec.id], f"{each} calls a step"
