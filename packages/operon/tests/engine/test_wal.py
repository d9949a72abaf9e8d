"""How many bytes of WAL a workflow writes: what a disk, a standby and a backup have to take."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import operon
from counting import Till
from operon import Operon
from operon.embedded import Postgres

MANY, FEW = 50, 10
MOST = {0: 1170, 1: 1640, 10: 6070}
"""Bytes a workflow, by how many steps it has, 12 % above what was counted on Postgres 15. Without whole pages after a
checkpoint, which come to as many bytes as the checkpoints are rare."""
SLEEPER = 2740
"""Likewise, asleep once, parked, and claimed."""


@pytest.fixture(scope="module")
def till(counting_postgres: Postgres) -> Iterator[Till]:
    made = Till(counting_postgres, "wal")
    yield made
    made.close()


def test_a_workflow_writes_so_many_bytes_of_wal(till: Till) -> None:
    app = Operon("app", database=till.url, lease=3600.0)

    @app.step(name="one")
    def one(n: int) -> int:
        return n

    @app.workflow(name="flow")
    def flow(steps: int) -> int:
        return sum(one(n) for n in range(steps))

    def each(steps: int) -> float:
        before = till.wal()
        for _ in range(MANY):
            flow(steps)
        return (till.wal() - before) / MANY

    with app:
        flow(1)
        counted = {steps: each(steps) for steps in MOST}
    assert all(counted[steps] <= most for steps, most in MOST.items()), counted


def test_a_sleeper_writes_so_many_bytes_of_wal(till: Till) -> None:
    """Parked, made ready by the clock, claimed, replayed: a note in its journal, and three versions of its row."""
    app = Operon("sleepers", database=till.url, lease=3600.0, grace=0.01)

    @app.workflow(name="sleeper")
    def sleeper() -> None:
        operon.sleep(0.1)

    with app:
        till.ended(operon.start(sleeper).id)
        before = till.wal()
        for _ in range(FEW):
            till.ended(operon.start(sleeper).id)
        counted = (till.wal() - before) / FEW
    assert counted <= SLEEPER, counted
