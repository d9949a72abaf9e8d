"""Whoever finds nobody at work does the work of all, and nobody's command is forgotten."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from children import PATIENCE
from operon.core.commands import Command
from operon.errors import StoreError
from operon.stores.sqlite import combiner
from operon.stores.sqlite.combiner import Combiner, Job

if TYPE_CHECKING:
    from collections.abc import Sequence


class Echo(Command[int], frozen=True):
    """Answered with its own number."""

    number: int


class Work:
    """Answers each command with its number, and can be stopped in the middle of a batch."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.threads: list[threading.Thread] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.interrupts = 0

    def __call__(self, jobs: Sequence[Job]) -> None:
        self.batches.append(len(jobs))
        self.threads.append(threading.current_thread())
        self.entered.release()
        assert self.gate.wait(PATIENCE)
        if self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt
        for job in jobs:
            command: Any = job.command
            job.future.set_result(command.number)


def test_alone_the_work_is_done_by_who_asks() -> None:
    work = Work()
    assert Combiner(work, "test").ask(Echo(1)) == 1
    assert work.threads == [threading.current_thread()]


def test_what_is_submitted_is_done_behind_the_callers_back() -> None:
    work, me = Work(), threading.current_thread()
    future = Combiner(work, "test").submit(Echo(1))
    assert future.result(PATIENCE) == 1
    assert me not in work.threads


def test_what_comes_meanwhile_is_one_batch() -> None:
    work = Work()
    work.gate.clear()
    combined = Combiner(work, "test")
    futures = [combined.submit(Echo(0))]
    assert work.entered.acquire(timeout=PATIENCE)
    futures += [combined.submit(Echo(n)) for n in range(1, 10)]
    work.gate.set()
    assert [future.result(PATIENCE) for future in futures] == [*range(10)]
    assert work.batches == [1, 9]


def test_no_batch_is_larger_than_the_limit() -> None:
    work = Work()
    work.gate.clear()
    combined = Combiner(work, "test")
    futures = [combined.submit(Echo(0))]
    assert work.entered.acquire(timeout=PATIENCE)
    futures += [combined.submit(Echo(n)) for n in range(1, combiner.BATCH + 2)]
    work.gate.set()
    assert [future.result(PATIENCE) for future in futures] == [*range(combiner.BATCH + 2)]
    assert work.batches == [1, combiner.BATCH, 1]


def test_who_asks_does_one_batch_and_leaves_the_rest_to_the_thread() -> None:
    """Nobody works for others without end."""
    work = Work()
    work.gate.clear()
    combined = Combiner(work, "test")
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(combined.ask, Echo(0))
        assert work.entered.acquire(timeout=PATIENCE)
        future = combined.submit(Echo(1))
        work.gate.set()
        assert (asked.result(PATIENCE), future.result(PATIENCE)) == (0, 1)
    assert work.threads[0] is not work.threads[1]


def test_an_interrupt_of_who_works_for_others_harms_only_its_own_wait() -> None:
    """Ctrl-C falls on the main thread, which may have the commands of others in hand."""
    work = Work()
    work.interrupts = 1
    combined = Combiner(work, "test")
    with pytest.raises(KeyboardInterrupt):
        combined.ask(Echo(0))
    assert combined.ask(Echo(1)) == 1
    combined.close()
    assert sum(work.batches) == 3  # the interrupted job was done too, by the thread


def test_a_full_inbox_makes_callers_wait_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combiner, "ROOM", 2)
    work = Work()
    work.gate.clear()
    combined = Combiner(work, "test")
    first = combined.submit(Echo(0))
    assert work.entered.acquire(timeout=PATIENCE)
    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(combined.ask, Echo(n)) for n in range(1, 9)]
        work.gate.set()
        assert [future.result(PATIENCE) for future in futures] == [*range(1, 9)]
    assert first.result(PATIENCE) == 0
    assert max(work.batches) <= 2


def test_closing_waits_for_what_was_accepted_and_refuses_the_rest() -> None:
    work = Work()
    work.gate.clear()
    combined = Combiner(work, "test")
    futures = [combined.submit(Echo(n)) for n in range(5)]
    assert work.entered.acquire(timeout=PATIENCE)
    with ThreadPoolExecutor(2) as threads:
        closings = [threads.submit(combined.close) for _ in range(2)]
        work.gate.set()
        for closing in closings:
            closing.result(PATIENCE)
    assert all(future.done() for future in futures)
    with pytest.raises(StoreError, match="closed"):
        combined.ask(Echo(9))


def test_closing_waits_for_a_caller_at_work() -> None:
    work = Work()
    work.gate.clear()
    combined = Combiner(work, "test")
    with ThreadPoolExecutor(2) as threads:
        asked = threads.submit(combined.ask, Echo(1))
        assert work.entered.acquire(timeout=PATIENCE)
        closing = threads.submit(combined.close)
        with pytest.raises(TimeoutError):
            closing.result(timeout=0.05)
        work.gate.set()
        closing.result(PATIENCE)
        assert asked.result(PATIENCE) == 1


def test_who_waits_for_room_is_refused_when_the_store_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combiner, "ROOM", 0)
    combined = Combiner(Work(), "test")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(combined.ask, Echo(0))
        combined.close()
        with pytest.raises(StoreError, match="closed"):
            waiting.result(PATIENCE)
