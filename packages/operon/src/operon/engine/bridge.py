"""The bridge from a store's thread to an event loop: the answers of one commit wake the loop once, all together."""

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


class Delivery:
    """Delivers answers to the tasks of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = ref(loop)  # which may be over long before its thread is
        self._thread = threading.get_ident()
        self._answered: deque[Bridged[Any]] = deque()
        self._called = False

    def deliver(self, answered: Bridged[Any]) -> None:
        """Have a task go on, on its loop; from any thread."""
        self._answered.append(answered)
        if not self._called and (loop := self.loop()) is not None:
            self._called = True
            here = threading.get_ident() == self._thread
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                (loop.call_soon if here else loop.call_soon_threadsafe)(self._wake)

    def _wake(self) -> None:
        """Let the tasks run whose answers have come by now, each from its await to its next one."""
        self._called = False
        answered = self._answered
        try:
            for _ in range(len(answered)):  # what comes meanwhile has the next turn of the loop, as others have
                answered.popleft().go_on()
        finally:
            if answered and not self._called and (loop := self.loop()) is not None:  # the process is interrupted
                self._called = True
                loop.call_soon(self._wake)


class Bridged(Generic[T]):
    """What a task awaits until a future of another thread is done; the task sees one of asyncio's own.

    But it is cheaper, and all whose answers come together go on in one turn of the loop.
    """

    __slots__ = (
        "_asyncio_future_blocking", "_call", "_cancelled", "_context", "_delivery", "_firm", "_future", "_known",
    )  # fmt: skip

    def __init__(self, future: Future[T] | None = None, *, firm: bool, delivery: Delivery | None = None) -> None:
        """Prepare to await it.

        Args:
            future: comes from any thread; without one, what is to call this when it is done, see `of`.
            firm: whether it is awaited to its end, as a commit is: a cancellation that hits meanwhile is delivered at
                the next await, and not lost.
            delivery: of the loop that runs here, if that is known.
        """
        self._asyncio_future_blocking = False
        self._future: Future[T]
        self._known = future is None
        """The future will call this."""
        if future is not None:
            self._future = future
        self._firm = firm
        self._delivery = delivery or here()
        self._call: Callable[[Bridged[T]], object] | None = None
        self._context: Context | None = None
        self._cancelled: asyncio.CancelledError | None = None

    def __call__(self, future: Future[T]) -> None:
        """Have the task go on: the future is done."""
        del future
        self._delivery.deliver(self)

    def of(self, future: Future[T]) -> Bridged[T]:
        """Await this future, which calls it."""
        self._future = future
        return self

    def __await__(self) -> Generator[Bridged[T], None, T]:
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

    def add_done_callback(self, call: Callable[[Bridged[T]], object], *, context: Context) -> None:
        """Have the task woken by this call, in its context."""
        self._call, self._context = call, context
        if not self._known:
            self._known = True
            self._future.add_done_callback(self)

    def go_on(self) -> None:
        """Wake the task, if it waits."""
        call, self._call = self._call, None
        if call is not None and self._context is not None:
            self._context.run(call, self)

    def get_loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop of the task."""
        return self._delivery.loop()

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
        self._delivery.deliver(self)
        return True


class OfThread(threading.local):
    """The delivery to the loop that runs on a thread."""

    delivery: Delivery | None = None


_local = OfThread()


def here() -> Delivery:
    """Give the delivery to the loop that runs here."""
    loop = asyncio.get_running_loop()
    delivery = _local.delivery
    if delivery is None or delivery.loop() is not loop:
        delivery = _local.delivery = Delivery(loop)
    return delivery


async def bridged(future: Future[T]) -> T:
    """Await a future of another thread; a cancellation ends the wait, and leaves the future alone."""
    return await Bridged(future, firm=False)
