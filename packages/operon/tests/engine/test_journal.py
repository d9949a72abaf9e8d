"""The journal of a run: who is given what when, at a cost that does not grow with what is recorded."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest

from operon.core.commands import Start
from operon.core.journal import Run
from operon.core.recording import note
from operon.core.rows import Entry, Kind, NewWorkflow
from operon.stores.memory import MemoryStore


def run_with(entries: int) -> Run:
    store = MemoryStore()
    store.ask(Start(NewWorkflow("w", "flow", "{}", "", 1, executor=1)))
    row = store.tables.workflows["w"].row
    return Run(cast("Any", None), row, [Entry(str(n), n, Kind.STEP, "step") for n in range(1, entries + 1)])


def test_a_replay_is_linear() -> None:
    """Fifty thousand records are given out one after the other in no time; quadratic, it took minutes."""
    run, begun = run_with(50_000), time.thread_time()
    for ordinal in range(1, 50_001):
        assert run.its_turn(ordinal)
        run.given(ordinal)
    assert time.thread_time() - begun < 5, "seconds of processor time, whatever else the machine does"
    assert run.first() == run.number() == 50_001


def test_turns_come_in_order_whatever_was_given_before() -> None:
    run = run_with(4)
    called: list[int] = []
    run.turns[3] = lambda: called.append(3)
    run.given(2)
    assert (run.first(), called) == (1, [])
    run.given(1)
    assert (run.first(), called) == (3, [3])


def test_a_record_whose_reader_was_cancelled_holds_up_nobody() -> None:
    """What is cancelled while it waits for its turn gives the turn on."""
    run = run_with(1)
    later = note(run, Entry("2", run.number(), Kind.STEP, "step"))
    next(later)
    with pytest.raises(asyncio.CancelledError):
        later.throw(asyncio.CancelledError())
    run.given(1)
    assert run.its_turn(run.number())
