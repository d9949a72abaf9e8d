"""From a store's thread back to an event loop: answers of one commit land together, and wake the loop once."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar
from weakref import ref

T = TypeVar("T")
_local = threading.local()


class Pad:
    """Where answers for one loop land."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = ref(loop)  # which may be over long before its thread is
        self._thread = threading.get_ident()
        self._landed: deque[asyncio.Future[None]] = deque()
        self._called = False

    def land(self, waiter: asyncio.Future[None]) -> None:
        """Wake a waiter on its loop, from any thread."""
        if threading.get_ident() == self._thread:
            _wake(waiter)
            return
        self._landed.append(waiter)
        if not self._called and (loop := self.loop()) is not None:
            self._called = True
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                loop.call_soon_threadsafe(self._unload)

    def _unload(self) -> None:
        self._called = False
        while self._landed:
            _wake(self._landed.popleft())


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _pad(loop: asyncio.AbstractEventLoop) -> Pad:
    """Give the place of this thread's loop."""
    pad: Pad | None = getattr(_local, "pad", None)
    if pad is None or pad.loop() is not loop:
        pad = _local.pad = Pad(loop)
    return pad


async def arrived(future: Future[Any]) -> None:
    """Wait until a future of another thread is done; a cancellation ends the wait, and leaves the future alone."""
    if future.done():
        return
    loop = asyncio.get_running_loop()
    pad = _pad(loop)
    waiter: asyncio.Future[None] = loop.create_future()
    future.add_done_callback(lambda _: pad.land(waiter))
    await waiter


async def settled(future: Future[T]) -> T:
    """Await a commit to its end; a cancellation that hits meanwhile is delivered at the next await, not lost."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await arrived(future)
        except asyncio.CancelledError as error:
            cancelled = error if error.args or cancelled is None else cancelled
    if cancelled is not None:
        cancel_later(cancelled)
    return future.result()


def cancel_later(error: asyncio.CancelledError) -> None:
    """Cancel this task at its next await, as it was asked while it could not be; anyio knows its own by the message.

    A timeout that is left by then asks for nothing any more: it took back what it had asked for.
    """
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().call_soon(_cancel_again, task, *error.args[:1])


def _cancel_again(task: asyncio.Task[Any], message: object = None) -> None:
    if task.cancelling() and not task.done():
        task.uncancel()
        task.cancel(message)
