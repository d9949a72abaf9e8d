"""The threads of blocking bodies: as many as allowed, or as the machine gives."""

from __future__ import annotations

import threading

import pytest

from children import PATIENCE
from operon.threads import Threads


def test_without_more_threads_those_that_are_there_do_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that gives one thread of four: nothing that was submitted is forgotten."""
    threads = Threads(4, "test")
    gate, done, all_done = threading.Event(), [0], threading.Event()

    def work() -> None:
        assert gate.wait(PATIENCE)
        done[0] += 1
        if done[0] == 3:
            all_done.set()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads.submit(work)
    with monkeypatch.context() as poor:
        poor.setattr(threading.Thread, "start", refuse)
        threads.submit(work)
        threads.submit(work)
    gate.set()
    assert all_done.wait(PATIENCE)
    threads.close()


def test_without_any_thread_the_caller_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError):
        Threads(4, "test").submit(lambda: None)
