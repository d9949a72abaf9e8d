"""The event loop that async bodies run on: the caller's, or one on a thread of our own."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from operon.core.context import Stray
from operon.core.journal import Branch, Run
from operon.core.rows import Guard
from operon.engine.branches import BranchingFactory
from operon.engine.bridge import Delivery, here
from operon.engine.callbacks import BodyCallbacks
from operon.engine.nested import NestedRuns
from operon.engine.strays import Elsewhere
from operon.engine.timers import BodyTimers
from operon.errors import NotLaunched, WrongColour
from operon.promises import Promise
from operon.threads import GREEN, are_green

T = TypeVar("T")
log = logging.getLogger("operon")
TURNS = 8
"""Turns of the loop that a body's own task is given to tell those that it awaits."""
PATIENCE = 5.0
"""Seconds that what was told to end is waited for."""
LEAVING = 0.4
"""Seconds after which a body is told once more to end: a driver of its may still be telling a server."""


Leave = Callable[[], Guard | None]
"""Leaves a run whose loop is closed, before its code is; answers what is to be handed back."""


class Life:
    """A run that is to end on the loop, its task once it has one, and how it is left if the loop is closed before."""

    __slots__ = ("leave", "task")

    def __init__(self, leave: Leave) -> None:
        self.leave = leave
        self.task: asyncio.Task[Any] | None = None


class Loop:
    """One loop, its task factory, and the tasks of the runs on it."""

    def __init__(self, timers: BodyTimers) -> None:
        self._timers = timers
        self._callbacks = BodyCallbacks()
        self._nested = NestedRuns(timers.host)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own: asyncio.AbstractEventLoop | None = None
        """The loop, if it is one of our own."""
        self._thread: threading.Thread | None = None
        self._factory: BranchingFactory | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._lives: dict[Life, None] = {}
        self._ident = 0
        """The thread that the loop runs on."""
        self.delivery: Delivery | None = None
        """Delivers answers to it."""
        self.left: set[str] = set()
        """Workflows whose body was cancelled, and not by the engine."""

    def use(self, loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
        """Use this loop, and none of our own."""
        self._loop = loop
        self._factory = BranchingFactory.install(loop)
        self._timers.install(loop)
        self._callbacks.install(loop)
        self._nested.install(loop)
        return loop

    def running(self) -> asyncio.AbstractEventLoop:
        """Give the loop; without one, run our own on a thread.

        Raises:
            NotLaunched: it is closed.
            WrongColour: threads are greenlets here, and a loop on one of them would be that of all others.
        """
        with self._lock:
            if self._closed:
                raise NotLaunched("The app is closed, and so is the loop of its async workflows.")
            if self._loop is not None:
                return self._loop
            if are_green():
                raise WrongColour(GREEN)
            self._own = loop = asyncio.new_event_loop()
            self.use(loop)
            serve = partial(contextvars.Context().run, _serve, loop)  # in some Pythons threads take a context along
            self._thread = threading.Thread(target=serve, name="operon-loop", daemon=True)
            self._thread.start()
            return loop

    @property
    def alive(self) -> bool:
        """Whether there is a loop to run anything on, or can be."""
        return not (self._closed or are_green()) if self._loop is None else not self._loop.is_closed()

    def refuse_standing(self) -> None:
        """Refuse to run on the caller's loop what is asked for on another one, if that loop does not run.

        Raises:
            NotLaunched: it stands still, or is closed: whoever awaited the workflow's end would wait for ever.
            WrongColour: there is none, and none of ours can run.
        """
        if self._loop is None and are_green():
            raise WrongColour(GREEN)
        loop, asking = self._loop, asyncio._get_running_loop()  # noqa: SLF001 - as above
        if loop is None or asking is None or asking is loop or self._thread is not None or loop.is_running():
            return
        raise NotLaunched(
            f"The app was launched on another event loop, which {'is closed' if loop.is_closed() else 'does not run'}: "
            "its async workflows run there. Enter it with `async with app:` on the loop that uses it, as in a fixture "
            "of the same scope, or with `with app:`, which gives them a loop of its own."
        )

    def executes(self, line: Branch) -> bool:
        """Whether it is this line's own task that is executing, here and now, and not another loop that it runs."""
        task, loop = line.task, asyncio._get_running_loop()  # noqa: SLF001 - as above
        return task is not None and loop is not None and loop is self._loop and asyncio.current_task(loop) is task

    def admit(self, line: Branch | None) -> Branch | None:
        """Let a body await here; or only make a coroutine, where no loop runs.

        Raises:
            WrongColour: it is another loop that runs on this thread.
        """
        running = asyncio._get_running_loop()  # noqa: SLF001 - the cheap spelling of get_running_loop
        if line is not None and not (running is self._loop or running is None or self._closed):
            raise WrongColour(
                "A workflow's body awaits on an event loop of its own, where tasks are not numbered and a replay would "
                "find others: make the workflow async instead of calling asyncio.run() in it, or do it all in one step."
            )
        return line

    def spawn(
        self,
        body: Callable[[], Coroutine[Any, Any, T]],
        leave: Leave,
        done: Promise[T] | None = None,
    ) -> None:
        """Run a body as a task in a context of its own, and tell who waits for its end; from any thread.

        Args:
            body: what is to run.
            leave: called if the loop is closed before that has ended.
            done: is told how it ends.
        """
        loop, life = self.running(), Life(leave)
        self._lives[life] = None
        if asyncio._get_running_loop() is loop:  # noqa: SLF001 - the cheap spelling of get_running_loop
            self._begin(loop, body, life, done)
            return
        with suppress(RuntimeError):  # it was closed this moment
            loop.call_soon_threadsafe(self._begin, loop, body, life, done)

    def lost(self) -> tuple[Guard, ...]:
        """Leave what was to end on the caller's loop, if that is closed; answers what nobody runs any more."""
        loop, lost = self._loop, tuple[Guard, ...]()
        while loop is not None and loop.is_closed() and self._lives:
            life, _ = self._lives.popitem()
            if (guard := life.leave()) is not None:
                lost = (*lost, guard)
            if life.task is not None:
                _close(life.task)
        return lost

    def kept_waiting(self) -> int:
        """How many bodies have not begun because the caller's loop does not run, though it is not closed."""
        loop = self._loop
        if loop is None or self._thread is not None or loop.is_running() or loop.is_closed():
            return 0
        return sum(life.task is None for life in tuple(self._lives))

    def _begin(
        self,
        loop: asyncio.AbstractEventLoop,
        body: Callable[[], Coroutine[Any, Any, T]],
        life: Life,
        done: Promise[T] | None,
    ) -> None:
        if self._ident != threading.get_ident():
            self._ident = threading.get_ident()
            self.delivery = here()
        life.task = task = loop.create_task(body(), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(partial(self._finish, life, done))

    def _finish(self, life: Life, done: Promise[T] | None, task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        self._lives.pop(life, None)
        if done is None:
            return
        if task.cancelled():
            done.set_exception(CancelledError())
        elif (error := task.exception()) is not None:
            done.set_exception(error)
        else:
            done.set_result(task.result())

    def between(self, call: Callable[[], None]) -> None:
        """Call this on the loop, so while none of its tasks is executing; never, where there is no loop any more."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(call)

    def cancel(self, run: Run | None) -> None:
        """Cancel the tasks of a run that has ended; what they wait for outside our verbs will not come."""
        loop = self._loop
        if loop is None or run is None or not run.tasks:
            return
        tasks = tuple(run.tasks)
        if loop.is_closed():
            for task in tasks:
                _close(task)
            return

        def cancel() -> None:
            for task in tasks:
                if not task.done():
                    task.cancel()

        with suppress(RuntimeError):  # it was closed this moment
            loop.call_soon_threadsafe(loop.call_soon, cancel)

    def interrupt(self, run: Run) -> bool:
        """Tell a body that it is cancelled: its own task first, which tells those it awaits, then all others.

        Answers whether there is anybody to be told here.
        """
        loop, tasks = self._loop, tuple(run.tasks.items())
        if loop is None or not tasks or loop.is_closed():
            return False

        def tell(those: tuple[tuple[asyncio.Task[Any], Branch], ...]) -> None:
            here = asyncio.current_task(loop)  # it asked for this, and is told by its verb
            for task, branch in those:
                if not (task.done() or task.cancelling() or branch.told or task is here):
                    task.cancel()

        def first() -> None:
            tell(tasks[:1])
            later(TURNS)

        def later(turns: int) -> None:
            if turns:
                loop.call_soon(later, turns - 1)
            else:
                tell(tuple(run.tasks.items()))

        if asyncio._get_running_loop() is loop:  # noqa: SLF001 - as above
            first()
            return True
        try:
            loop.call_soon_threadsafe(first)
        except RuntimeError:  # it was closed this moment
            return False
        return True

    def went_down(self, run: Run) -> bool:
        """Whether it may be the loop that cancelled a body: that goes down once; a body cancels itself each time."""
        before = run.id in self.left
        self.left.add(run.id)
        return not before

    def quiet(self) -> None:
        """Have the bodies end that are left on a loop of our own, while what they use is still open."""
        loop = self._loop
        if loop is not None and self._thread is not None and self._tasks:
            asyncio.run_coroutine_threadsafe(self._quieted(), loop).result()

    async def _quieted(self) -> None:
        for unhurried in (True, False):
            tasks = tuple(self._tasks)
            for task in tasks:
                if not (unhurried and task.cancelling()):
                    task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=LEAVING)

    def close(self) -> None:
        """Give the loop back as it was; stop our own."""
        self.lost()
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
            own, self._own = self._own, None
        if loop is not None:
            self._timers.remove()
            self._callbacks.remove()
            self._nested.remove()
        if own is None:
            if loop is not None and self._factory is not None:
                self._factory.remove()
            return
        if self._thread is None or self._thread.ident is None:  # the launch was interrupted before that began
            own.close()
            return
        own.call_soon_threadsafe(own.stop)
        self._thread.join(2 * PATIENCE)
        if self._thread.is_alive():
            log.warning("An async body blocks the event loop, which is closed when that has ended.")


def _close(task: asyncio.Task[Any]) -> None:
    """Close what a task of a closed loop was executing: here, in nobody's name, and not when it is collected.

    That may be in the body of another workflow, in whose name its code would act as it is closed.
    """
    work: Any = task.get_coro()
    try:
        contextvars.Context().run(Elsewhere(work.close, Stray("after its event loop was closed")))
    except Exception:
        log.warning("What an async workflow did as its event loop was closed has failed.", exc_info=True)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped, and close it."""
    loop.run_forever()
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=PATIENCE))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
