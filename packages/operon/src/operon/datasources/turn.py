"""Whose turn it is to write, where a database has one writer; must not know which database."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TYPE_CHECKING

from operon.datasources.call import call
from operon.errors import StoreUnavailable
from operon.threads import Threads

if TYPE_CHECKING:
    from operon.core.commands import Op
    from operon.core.store import Lock

PATIENCE = 60.0


class Turn:
    """Takes the writer's lock for a transaction, in its own colour."""

    def __init__(self, lock: Lock) -> None:
        self.lock = lock
        # One thread waits for all awaiting transactions; a thread for each could take every one that the holder needs.
        self._waiting = Threads(1, "operon-writer")

    def take(self, *, asynchronous: bool) -> Op[None]:
        """Wait until nobody else writes.

        Raises:
            StoreUnavailable: somebody has been writing for a minute.
        """
        if self.lock.acquire(blocking=False):
            return
        taken = yield from (call(self._queued) if asynchronous else call(self.lock.acquire, timeout=PATIENCE))
        if not taken:
            raise StoreUnavailable(
                f"Another transaction has been open for {PATIENCE:.0f} seconds, and SQLite has one writer: "
                "do what is slow before or after a transaction."
            )

    def give(self) -> None:
        """Let the next one write."""
        self.lock.release()

    def close(self) -> None:
        """Let the thread end that waits."""
        self._waiting.close()

    async def _queued(self) -> bool:
        place = self._waiting.call(self.lock.acquire, timeout=PATIENCE)
        try:
            return await asyncio.shield(asyncio.wrap_future(place))
        except asyncio.CancelledError:
            if not place.cancel():
                place.add_done_callback(self._unwanted)
            raise

    def _unwanted(self, place: Future[bool]) -> None:
        if place.result():
            self.lock.release()
