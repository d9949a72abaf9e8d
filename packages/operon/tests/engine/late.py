"""A store whose answers come late, from a thread of its own, and in an order of chance."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from random import Random
from typing import TypeVar

from children import PATIENCE
from operon.core.commands import Command
from operon.promises import Promise
from operon.stores.memory import Clock, MemoryStore

T = TypeVar("T")
SPELLS = (0, 1, 10, 100, 300)
"""Turns of the loop that an answer takes: from a moment to as many milliseconds as the deadlines of tests have."""


class LateStore(MemoryStore):
    """What is submitted waits in no line: a thread answers any of it next, and takes its time. Blocking calls do not.

    Args:
        clock: the store's.
        seed: decides the order, and how late an answer is.
        spells: the turns of the loop that an answer may take.
    """

    def __init__(self, clock: Clock, seed: int, spells: tuple[int, ...] = SPELLS) -> None:
        super().__init__(clock)
        self._rng = Random(seed)
        self._spells = spells
        self._changed = threading.Condition()
        self._asked: list[Callable[[], None]] = []
        self._over = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._answer, daemon=True)

    def open(self, *, migrate: bool = True, adopt: bool = False) -> None:
        """Begin to answer."""
        super().open(migrate=migrate, adopt=adopt)
        if not self._thread.is_alive():
            self._thread.start()

    def submit(self, command: Command[T], then: Callable[[Future[T]], object] | None = None) -> Future[T]:
        """Answer some time."""
        promise: Promise[T] = Promise(then)
        with self._changed:
            self._loop = asyncio._get_running_loop() or self._loop
            if not self._over:
                self._asked.append(partial(self._give, command, promise))
                self._changed.notify()
                return promise
        self._give(command, promise)
        return promise

    def close(self) -> None:
        """Answer what was asked, and then at once."""
        with self._changed:
            self._over = True
            self._changed.notify()
        super().close()

    def _answer(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked or self._over)
                if not self._asked:
                    return
                give = self._asked.pop(self._rng.randrange(len(self._asked)))
            self._be_late(self._rng.choice(self._spells))
            give()

    def _be_late(self, turns: int) -> None:
        turned = threading.Lock()  # an event costs twice as much, and there are half a million turns
        turned.acquire(timeout=PATIENCE)
        for _ in range(turns):
            if self._over or self._loop is None or self._loop.is_closed():
                return
            try:
                self._loop.call_soon_threadsafe(turned.release)
            except RuntimeError:  # it was closed this moment
                return
            turned.acquire(timeout=PATIENCE)

    def _give(self, command: Command[T], promise: Promise[T]) -> None:
        try:
            promise.set_result(self.ask(command))
        except Exception as error:  # the future carries it
            promise.set_exception(error)
