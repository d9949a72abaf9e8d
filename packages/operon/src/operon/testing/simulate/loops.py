"""An event loop without a thread: the world calls what is ready on it, one callback at a time, whenever it likes."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from operon.testing.simulate.schedule import Schedule


class SimulatedLoop(asyncio.AbstractEventLoop):
    """Callbacks in the order in which they came, as asyncio calls them; time is its process's."""

    def __init__(self, schedule: Schedule, clock: Callable[[], float]) -> None:
        self._schedule = schedule
        self._clock = clock
        self.ready: deque[asyncio.Handle] = deque()
        """What is to be called, in this order."""
        self._factory: Any = None
        self.tasks: list[asyncio.Task[Any]] = []

    def step(self) -> None:
        """Call what came first."""
        handle = self.ready.popleft()
        if handle.cancelled():
            return
        asyncio._set_running_loop(self)  # noqa: SLF001 - the way a loop says that it runs
        try:
            handle._run()  # noqa: SLF001 - likewise
        finally:
            asyncio._set_running_loop(None)  # noqa: SLF001

    def end(self) -> None:
        """Take all tasks down where they stand; what they do on their way out counts no more."""
        for task in self.tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - it is known, and meant
                _abandon(task.get_coro())
        self.ready.clear()
        self.tasks.clear()

    # ── What asyncio asks of a loop ──────────────────────────────────────────────────────────────────────────────────

    def time(self) -> float:
        """The process's clock."""
        return self._clock()

    def get_debug(self) -> bool:
        """Never."""
        return False

    def is_closed(self) -> bool:
        """Never; a process that dies is called no more."""
        return False

    def is_running(self) -> bool:
        """Always: others may hand it work."""
        return True

    def call_soon(  # type: ignore[override] # any callback: nobody calls it but asyncio
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call this after all that was said before."""
        handle = asyncio.Handle(callback, args, self, context)
        self.ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override] # likewise
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call this after all that was said before; there is one thread."""
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override] # likewise
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call this in so many seconds."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override] # likewise
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call this at an instant of this loop's clock."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._schedule.after(when - self.time(), lambda: self.ready.append(handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing: a cancelled handle is passed over when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None, **_: Any) -> asyncio.Task[Any]:
        """A task of this loop, by its factory if it has one."""
        options = {} if context is None else {"context": context}
        task: asyncio.Task[Any]
        if self._factory is None:
            task = asyncio.Task(coro, loop=self, name=name, **options)
        else:
            task = self._factory(self, coro, **options)
        self.tasks.append(task)
        return task

    def set_task_factory(self, factory: Any) -> None:
        """Let this make the tasks."""
        self._factory = factory

    def get_task_factory(self) -> Any:
        """What makes the tasks."""
        return self._factory

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A callback must not fail; what becomes of tasks that nobody asks for is their owner's affair."""
        if "handle" in context:
            raise context["exception"]


def _abandon(coro: Any) -> None:
    """Close a coroutine that nobody will ever resume."""
    for _ in range(10):
        try:
            coro.close()
        except RuntimeError:
            continue  # it caught the end, and waits for something else
        except BaseException:
            return
        return


Body = Callable[[], Coroutine[Any, Any, Any]]
