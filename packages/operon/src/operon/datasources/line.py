"""Who waits for a connection of a pool of ours, in the order of arrival; it must not know which pool."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from operon.datasources.call import call

if TYPE_CHECKING:
    from operon.core.commands import Op

PATIENCE = 60.0


class Line:
    """As many places as the pool has connections: so a pool that keeps somebody waiting has a database that is away."""

    def __init__(self, size: int, *, asynchronous: bool) -> None:
        self._asynchronous = asynchronous
        self._places: Any = asyncio.Semaphore(size) if asynchronous else threading.Semaphore(size)

    def take(self) -> Op[None]:
        """Wait for a place.

        Raises:
            TimeoutError: nobody has given one back for a minute.
        """
        taken = yield from (call(self._awaited) if self._asynchronous else call(self._places.acquire, timeout=PATIENCE))
        if not taken:
            raise TimeoutError(f"No connection of the pool has been free for {PATIENCE:.0f} seconds.")

    def give(self) -> None:
        """Let the next one have it."""
        self._places.release()

    async def _awaited(self) -> bool:
        async with asyncio.timeout(PATIENCE):
            return bool(await self._places.acquire())
