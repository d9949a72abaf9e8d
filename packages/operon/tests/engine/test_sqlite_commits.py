"""What a workflow costs on SQLite, counted: each commit is a wait for the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import operon
from engine.stepping import stepping
from operon import Operon


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("steps", [0, 1, 10])
def test_a_workflow_of_n_steps_is_n_plus_1_commits(sqlite_path: Path, steps: int, colour: str) -> None:
    """As on Postgres: its start, each step, and its end with the last of them."""
    app = Operon("app", database=f"sqlite:///{sqlite_path}", lease=3600.0)
    flow = stepping(app, colour)

    with app:
        engine: Any = app._engine
        executed: list[str] = []

        def counted() -> int:
            executed.clear()
            operon.start(flow, steps).result(60)
            return executed.count("commit")

        counted()
        engine.store._connection.set_trace_callback(executed.append)
        commits = min(counted() for _ in range(5))
    assert commits == max(2, steps + 1)
