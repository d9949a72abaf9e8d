"""Threads that are made when they are needed: daemons, so that nothing that never ends keeps the process alive."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import BuiltinFunctionType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger("operon")
GREEN = (
    "gevent or eventlet has replaced the threads of this process, and no event loop can run beside them: no async "
    "workflow runs here, and no aio.call. Make it blocking, or run it in a process that is not patched, and launch "
    "this one with run=False."
)


def are_green() -> bool:
    """Whether gevent or eventlet has put greenlets in the place of threads: they share one thread, and its loop."""
    return not isinstance(threading.get_ident, BuiltinFunctionType)


class Threads:
    """At most `limit` threads, made when they are needed and kept."""

    def __init__(self, limit: int, name: str) -> None:
        self.limit = limit
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._backlog = 0

    def submit(self, work: Callable[[], None]) -> None:
        """Run this on a free thread, or as soon as one is free; it must not raise."""
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            elif len(self._threads) == self.limit or not self._grow():
                self._backlog += 1
        self._work.put(work)

    def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call this on a free thread, or as soon as one is free; what comes of it is the future's."""
        future: Future[T] = Future()

        def work() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

        self.submit(work)
        return future

    def offer(self, work: Callable[[], None], waiting: int) -> bool:
        """Run this as `submit` does, unless so many wait for a thread already; answers whether it was taken."""
        with self._lock:
            full = self._idle == 0 and len(self._threads) == self.limit and self._backlog >= waiting
        if not full:
            self.submit(work)
        return not full

    def _grow(self) -> bool:
        """Make one more thread; where the machine has no more to give, those that there are must do."""
        thread = threading.Thread(target=self._loop, name=f"{self._name}-{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise
            log.warning("No more than %d of %d threads can be started here.", len(self._threads), self.limit)
            return False
        self._threads.append(thread)
        return True

    def _loop(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work
            with self._lock:
                if self._backlog > 0:
                    self._backlog -= 1
                else:
                    self._idle += 1

    def close(self) -> int:
        """Let the threads end that have nothing to do; answers how many are still busy."""
        with self._lock:
            busy = len(self._threads) - self._idle
            for _ in self._threads:
                self._work.put(None)
        return max(0, busy)

    def finish(self) -> None:
        """Let the threads end once all that was submitted is done, and wait for that."""
        self.close()
        for thread in self._threads:
            thread.join()
