"""Where a workflow's body sends code and nothing of it can be recorded: verbs are refused there, and only verbs."""

from __future__ import annotations

import sys
import threading
from asyncio import current_task
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Generic, ParamSpec, TypeVar

from operon.core import context
from operon.core.codec.foreign import refuse_verbs
from operon.core.context import Stray
from operon.core.journal import Branch
from operon.errors import NotInWorkflow

P = ParamSpec("P")
R = TypeVar("R")


class OfThread(threading.local):
    """What is known of a thread, whatever context was taken along to it."""

    stray: Stray | None = None
    own = False
    """What it starts is not the body's, though it is the body that has it started."""
    initialized = False
    """But the body has it initialized."""


_local = OfThread()
ROOM = 150
"""Frames that a verb may need, down to the driver's."""
FINALIZING = (
    "Python's garbage collector has called this, from a `__del__` or the `finally` of a generator that was left: it "
    "may do so in the middle of any code, another workflow's too. Close what you open where you open it, by `with`."
)
collecting: set[int] = set()
"""The threads on which the collector is at work."""


def collects(phase: str, _info: object) -> None:
    """Note when the collector begins and ends, on this thread: what it calls is nobody's code."""
    if phase == "start":
        collecting.add(threading.get_ident())
    else:
        collecting.discard(threading.get_ident())


def admit(line: Branch | None) -> None:
    """Refuse verbs where a workflow's body sent its code and nothing of it can be recorded.

    And where one could not come to its end: no lock is taken, and no position claimed, on a stack that has no room.

    Args:
        line: the branch whose body this is, if it is one.

    Raises:
        NotInWorkflow: this is such a place, whatever context was taken along; a finalizer that the collector runs; or
            code that is called to record or read a value.
        RecursionError: this code has called itself too often.
    """
    if collecting and threading.get_ident() in collecting:
        raise NotInWorkflow(FINALIZING)
    refuse_verbs()
    try:
        sys._getframe(sys.getrecursionlimit() - ROOM)  # noqa: SLF001 - there is no public name
    except ValueError:
        pass  # the stack is not as deep
    else:
        raise RecursionError(f"maximum recursion depth exceeded: a verb of Operon needs {ROOM} frames")
    if line is None:
        context.admit()
    if _local.stray is not None and (line is not None or context.step() is None):
        context.refuse(_local.stray)


def admit_task(here: Branch) -> None:
    """Refuse what a body does in a task that it made past the loop's factory: it has no place in the history.

    Raises:
        NotInWorkflow: this is such a task.
    """
    task = None if here.run.dead is not None else current_task()
    if task is None or task is here.task or task in here.run.tasks:
        return
    if not here.begins:
        context.refuse(Stray("in a task that asyncio.create_task() did not make", here.run))
    here.run.tasks[task] = here
    here.task = task


class Elsewhere(Generic[R]):
    """A function that runs where verbs are refused; it can be sent to another process."""

    def __init__(self, fn: Callable[..., R], stray: Stray) -> None:
        self._fn = fn
        self._stray = stray

    def __reduce__(self) -> tuple[type[Elsewhere[R]], tuple[Callable[..., R], Stray]]:
        """Leave the run behind."""
        return Elsewhere, (self._fn, Stray(self._stray.where))

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Run it."""
        stray = context.stray.set(self._stray)
        try:
            with context.within(None):
                return self._fn(*args, **kwargs)
        finally:
            context.stray.reset(stray)


class StrayFuture(Future[R]):
    """The future of what a body has sent to another process."""

    def add_done_callback(self, fn: Callable[[Future[R]], object]) -> None:
        """Call this at the end, on whatever thread; it is no part of the workflow."""
        here = context.current()
        where = "in a callback of a future"
        super().add_done_callback(fn if here is None else Elsewhere(fn, Stray(where, here.run)))


@contextmanager
def own_threads(*, initialized: bool = False) -> Generator[None]:
    """Start threads that are not the body's, though it is the body that has them started; but `initialized` by it."""
    before = _local.own, _local.initialized
    _local.own, _local.initialized = True, initialized
    try:
        yield
    finally:
        _local.own, _local.initialized = before


def ordinary(fn: Callable[P, R]) -> Callable[P, R]:
    """Run what no body has submitted, on a thread that may have been started for one."""

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        token = context.stray.set(None)
        try:
            return fn(*args, **kwargs)
        finally:
            context.stray.reset(token)

    return run


def about_to_start(thread: threading.Thread) -> None:
    """Look at a thread that is being started: if a body starts it, or another stray, verbs are refused on it."""
    if thread.name.startswith("operon-"):  # ours, begun when first needed, by whoever that is
        return
    here, stray = context.body(), context.stray.get() or _local.stray
    if here is not None:
        stray = Stray("on a thread that its body started", here.run)
    own = _local.own
    initialized = own and _local.initialized
    # anyio's threads are for everybody, and work in the context and in the place of the task that waits for them.
    if stray is not None and (initialized or not own) and not type(thread).__module__.startswith("anyio."):
        _lead_astray(thread, stray, whole=not initialized)


def _lead_astray(thread: threading.Thread, stray: Stray, *, whole: bool) -> None:
    """Have verbs refused on a thread: in the `whole` of it, or only where nothing else is known."""
    run = thread.run

    def stray_run() -> None:
        vars(thread).pop("run", None)
        context.stray.set(stray)
        _local.stray = stray if whole else None
        run()

    thread.run = stray_run  # type: ignore[method-assign]  # of this one only
