"""Whom a turn waits for: a thread that comes to rest, however late; not one that computes, or never does."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import pytest

import operon
from children import PATIENCE
from operon import Operon
from operon.core.lines import Lines
from operon.engine import turns
from operon.stores.memory import Clock, MemoryStore


@pytest.mark.parametrize(
    ("takes", "waits"),
    [
        pytest.param(turns.SLICE, turns.PATIENCE / turns.SLICE, id="as long as it was to"),
        pytest.param(turns.SLICE / 10, 10 * turns.PATIENCE / turns.SLICE, id="ended by news"),
        pytest.param(0.1, turns.STARVED * turns.PATIENCE / turns.SLICE, id="much longer"),
        pytest.param(3600.0, turns.STARVED * turns.PATIENCE / turns.SLICE, id="as where the machine stood still"),
    ],
)
def test_patience_is_measured_by_the_chances_that_a_thread_had(takes: float, waits: float) -> None:
    now, count = [0.0], 0
    patience = turns.Patience(lambda: now[0])

    def wait(_: float) -> None:
        now[0] += takes

    while patience:
        patience.wait(wait)
        count += 1
    assert count == pytest.approx(waits, abs=1.01)


def test_a_thread_that_gets_no_chance_to_come_to_rest_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Something else in the process computes, and has the interpreter for longer at a time than a turn is patient."""
    overlook, overlooked, over = Lines.overlook, list[Lines](), threading.Event()
    computing = threading.Event()
    app = Operon("app", database=MemoryStore(Clock(time.time)))

    def noted(lines: Lines) -> None:
        overlooked.append(lines)
        overlook(lines)

    monkeypatch.setattr(Lines, "overlook", noted)

    @app.step
    def work(n: int) -> int:
        return n

    def piece(n: int) -> int:
        return work(n) + work(n)

    @app.workflow
    def flow() -> int:
        with ThreadPoolExecutor(3) as pool:
            left = {pool.submit(piece, n) for n in range(3)}
            total = 0
            while left:
                done, left = wait(left, return_when=FIRST_COMPLETED)
                total += sum(each.result() for each in done)
        return total

    def compute() -> None:
        computing.set()
        while not over.is_set():
            sum(range(1000))

    with app, ThreadPoolExecutor(1) as hog:
        interval = sys.getswitchinterval()
        hogging: Any = hog.submit(compute)
        assert computing.wait(PATIENCE)
        sys.setswitchinterval(2 * turns.PATIENCE)
        try:
            assert operon.start(flow).result(PATIENCE) == 6
        finally:
            sys.setswitchinterval(interval)
            over.set()
            hogging.result(PATIENCE)
    assert not overlooked
