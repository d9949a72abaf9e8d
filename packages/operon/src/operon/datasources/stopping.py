"""Stopping the statement that a thread executes for a run that is over; it must not know any driver."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from typing import TYPE_CHECKING

from operon.core import context

if TYPE_CHECKING:
    from operon.datasources.opened import Transaction

AGAIN = 1.0
"""Seconds until it is tried again: the code may have been between two statements."""
TIMES = 10
"""So often; a server that has taken none of them, being frozen or away, does not keep the thread."""


class Stop:
    """Cancels what an open transaction executes, from a thread of its own, until that ends; at last breaks its line."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._begun = False

    def __call__(self) -> None:
        """Begin, without waiting for anything."""
        with self._lock:
            if self._begun or self._over.is_set():
                return
            self._begun = True
        threading.Thread(target=self._insist, name="operon-stop", daemon=True).start()

    def _insist(self) -> None:
        for stop in chain(repeat(self._tx.interrupt, TIMES), repeat(self._tx.sever)):
            with self._lock, suppress(Exception):
                if not self._over.is_set():
                    stop()
            if self._over.wait(AGAIN):
                return

    def end(self) -> None:
        """Wait until no cancellation is on its way: it would hit whoever has the connection next."""
        self._over.set()
        with self._lock:
            pass


@contextmanager
def stoppable(tx: Transaction) -> Generator[None]:
    """Have the statements of a transaction cancelled once its run is over; not those of a clean-up."""
    here = context.branch()
    if here is None or here.told or not tx.stoppable:
        yield
        return
    run, stop = here.run, Stop(tx)
    run.stops[stop] = None
    if run.dead is not None:
        stop()
    try:
        yield
    finally:
        del run.stops[stop]
        stop.end()
