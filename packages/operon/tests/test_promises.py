"""A promise is a future: whoever waits or is to be called learns of its end, once, however the two race."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, InvalidStateError

import pytest

from children import PATIENCE, joined
from operon.promises import Promise


def test_it_is_completed_once() -> None:
    promise = Promise[int]()
    assert isinstance(promise, Future)
    assert (promise.done(), promise.cancel()) == (False, False)
    promise.set_result(1)
    assert (promise.done(), promise.result(0), promise.exception(0)) == (True, 1, None)
    with pytest.raises(InvalidStateError):
        promise.set_exception(ValueError())
    assert promise.result(0) == 1


def test_its_error_is_raised_to_all() -> None:
    promise, error = Promise[int](), ValueError("no")
    promise.set_exception(error)
    assert promise.exception(0) is error
    for _ in range(2):
        with pytest.raises(ValueError, match="no") as caught:
            promise.result(0)
        assert caught.value is error


def test_a_wait_has_an_end() -> None:
    with pytest.raises(TimeoutError):
        Promise[int]().result(0.01)
    with pytest.raises(TimeoutError):
        Promise[int]().exception(0.01)


def test_whoever_waits_on_a_thread_is_told() -> None:
    promise, told = Promise[int](), list[int]()
    threads = [threading.Thread(target=lambda: told.append(promise.result(PATIENCE))) for _ in range(8)]
    for thread in threads:
        thread.start()
    promise.set_result(7)
    for thread in threads:
        joined(thread)
    assert told == [7] * 8


def test_calls_are_made_in_their_order_and_one_that_fails_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    promise, called = Promise[int](), list[str]()

    def fail(_: Future[int]) -> None:
        raise ValueError("no")

    promise.add_done_callback(lambda it: called.append(f"first {it.result(0)}"))
    promise.add_done_callback(fail)
    promise.add_done_callback(lambda it: called.append(f"second {it.result(0)}"))
    promise.set_result(1)
    promise.add_done_callback(lambda it: called.append(f"late {it.result(0)}"))
    assert called == ["first 1", "second 1", "late 1"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_call_that_is_added_as_it_is_completed_is_made_once() -> None:
    for _ in range(2000):
        promise, called, ready = Promise[int](), list[int](), threading.Barrier(2)

        def add(promise: Promise[int] = promise, called: list[int] = called, ready: threading.Barrier = ready) -> None:
            ready.wait(PATIENCE)
            for n in range(3):
                promise.add_done_callback(lambda _, n=n: called.append(n))  # type: ignore[misc]

        thread = threading.Thread(target=add)
        thread.start()
        ready.wait(PATIENCE)
        promise.set_result(1)
        joined(thread)
        assert sorted(called) == [0, 1, 2]
