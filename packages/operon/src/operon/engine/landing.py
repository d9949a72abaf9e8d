"""From a store's thread back to an event loop: answers of one commit land together, and wake the loop once."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import ref

from operon.cancelling import cancel_later

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextvars import Context

T = TypeVar("T")


class Pad:
    """Where answers for one loop land."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = ref(loop)  # which may be over long before its thread is
        self._thread = threading.get_ident()
        self._landed: deque[Landing[Any]] = deque()
        self._called = False

    def land(self, landing: Landing[Any]) -> None:
        """Have a task go on, on its loop; from any thread."""
        self._landed.append(landing)
        if not self._called and (loop := self.loop()) is not None:
            self._called = True
            here = threading.get_ident() == self._thread
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                (loop.call_soon if here else loop.call_soon_threadsafe)(self._unload)

    def _unload(self) -> None:
        """Have those go on that have landed by now, each from its await to its next one."""
        self._called = False
        landed = self._landed
        try:
            for _ in range(len(landed)):  # who lands meanwhile has the next turn of the loop, as others have
                landed.popleft().go_on()
        finally:
            if landed and not self._called and (loop := self.loop()) is not None:  # the process is interrupted
                self._called = True
                loop.call_soon(self._unload)


class Landing(Generic[T]):
    """What a task awaits until a future of another thread is done; the task sees one of asyncio's own.

    But it is cheaper, and all that land together go on in one turn of the loop.
    """

    __slots__ = ("_asyncio_future_blocking", "_call", "_cancelled", "_context", "_firm", "_future", "_pad")

    def __init__(self, future: Future[T], *, firm: bool) -> None:
        """Prepare to await it.

        Args:
            future: comes from any thread.
            firm: whether it is awaited to its end, as a commit is: a cancellation that hits meanwhile is delivered at
                the next await, and not lost.
        """
        loop = asyncio.get_running_loop()
        pad = _local.pad
        if pad is None or pad.loop() is not loop:
            pad = _local.pad = Pad(loop)
        self._asyncio_future_blocking = False
        self._future = future
        self._firm = firm
        self._pad = pad
        self._call: Callable[[Landing[T]], object] | None = None
        self._context: Context | None = None
        self._cancelled: asyncio.CancelledError | None = None

    def __await__(self) -> Generator[Landing[T], None, T]:
        cancelled: asyncio.CancelledError | None = None
        future = self._future
        while not future.done():
            self._asyncio_future_blocking = True
            try:
                yield self
            except asyncio.CancelledError as error:
                if not self._firm:
                    raise
                cancelled = error if error.args or cancelled is None else cancelled
        if cancelled is not None:
            cancel_later(cancelled)
        return future.result()

    def add_done_callback(self, call: Callable[[Landing[T]], object], *, context: Context) -> None:
        """Have the task woken by this call, in its context."""
        self._call, self._context = call, context
        self._future.add_done_callback(self._come)

    def _come(self, _: Future[Any]) -> None:
        self._pad.land(self)

    def go_on(self) -> None:
        """Wake the task, if it waits."""
        call, self._call = self._call, None
        if call is not None and self._context is not None:
            self._context.run(call, self)

    def get_loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop of the task."""
        return self._pad.loop()

    def done(self) -> bool:
        """Whether the task is about to go on."""
        return self._cancelled is not None or self._future.done()

    def result(self) -> None:
        """Let the task go on, or raise that it was cancelled."""
        if self._cancelled is not None:
            raise self._cancelled

    def cancel(self, msg: object = None) -> bool:
        """Wake the task; unless it is firm, and is cancelled when it goes on."""
        if self._firm or self._call is None or self.done():
            return False
        self._cancelled = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        self._pad.land(self)
        return True


class OfThread(threading.local):
    """The pad of the loop that runs on a thread."""

    pad: Pad | None = None


_local = OfThread()


async def arrived(future: Future[T]) -> T:
    """Await a future of another thread; a cancellation ends the wait, and leaves the future alone."""
    return await Landing(future, firm=False)
