"""Number the tasks of a workflow by where they are created, so that a replay finds each branch's own records.

asyncio keeps tasks in sets: those of a body have the same order in a set in each run.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import zlib
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

from msgspec.structs import replace

from operon.core import context
from operon.core.journal import Branch
from operon.engine.hearing import Hearing
from operon.errors import BadValue, Cancelled, Suspended

AnyCoroutine = Coroutine[Any, Any, Any] | Generator[Any, Any, Any]
_SETS = {"as_completed", "_AsCompletedIterator.__init__"}
"""What begins the members of a set in asyncio, in any Python; at most so many frames above the task factory."""
_FRAMES_UP = 4


class BodyTask(asyncio.Task[Any]):
    """A task of a workflow's body; its place in a set is the same in each run."""

    def __init__(self, coro: Any, branch: Branch, **options: Any) -> None:
        self._hash = zlib.crc32(f"{branch.run.id}/{branch.path}".encode())
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._hash


class BranchingFactory:
    """A task factory that opens a branch for each task that a workflow's body creates; others pass untouched.

    There is one for all apps on a loop: each task of a body is one branch.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._inner = loop.get_task_factory()
        self._apps = 0

    @classmethod
    def install(cls, loop: asyncio.AbstractEventLoop) -> BranchingFactory:
        """Put one in front of the loop's own factory, unless one is there; each app removes it once."""
        there = loop.get_task_factory()
        factory = there if isinstance(there, BranchingFactory) else cls(loop)
        factory._apps += 1  # noqa: SLF001 - of this class
        loop.set_task_factory(factory)
        return factory

    def remove(self) -> None:
        """Give the loop its own factory back with the last app, unless somebody has put another in front since."""
        self._apps -= 1
        if not self._apps and self._loop.get_task_factory() is self:
            self._loop.set_task_factory(self._inner)

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: AnyCoroutine, **options: Any) -> asyncio.Future[Any]:
        """Create a task, in a branch of its own if a workflow's body creates it."""
        given: contextvars.Context | None = options.pop("context", None)
        around = contextvars.copy_context() if given is None else given  # an empty one is false, and meant
        here = around.run(context.current)
        if here is None or here.begins:  # one of ours that stands in front of another's has opened the branch
            return self._create(loop, coro, here, context=around, **options)
        _refuse_disorder()
        around = around.copy()
        branch = here.fork()
        around.run(context.place.set, replace(around.run(context.place.get), branch=branch))
        branch.begins = True
        task = self._create(loop, Hearing.of(coro, branch), branch, context=around, **options)
        branch.begins = False
        here.run.tasks[task] = branch
        branch.task = task
        task.add_done_callback(partial(_ended, branch))
        return task

    def _create(
        self, loop: asyncio.AbstractEventLoop, coro: AnyCoroutine, branch: Branch | None, **options: Any
    ) -> asyncio.Future[Any]:
        if self._inner is not None:
            inner: Any = self._inner
            task: asyncio.Future[Any] = inner(loop, coro, **options)
            return task
        if branch is None:
            return asyncio.Task(coro, loop=loop, **options)
        return BodyTask(coro, branch, loop=loop, **options)


def in_order(original: Callable[..., Any]) -> Callable[..., Any]:
    """Let `as_completed` begin in a body what it is given in the order in which it is given, not in that of a set."""

    def as_completed(fs: Any, *, timeout: float | None = None) -> Any:
        if context.current() is not None and hasattr(fs, "__iter__"):
            fs = [asyncio.ensure_future(it) for it in dict.fromkeys(fs)]
        return original(fs, timeout=timeout)

    return as_completed


def _refuse_disorder() -> None:
    """Refuse to create a task for `as_completed` itself: it was imported by its name before it was stood before.

    Raises:
        BadValue: it is.
    """
    frame = sys._getframe(2)  # noqa: SLF001 - there is no public name
    for _ in range(_FRAMES_UP):
        if frame.f_back is None:
            return
        frame = frame.f_back
        if frame.f_code.co_qualname in _SETS and frame.f_code.co_filename == asyncio.tasks.__file__:
            raise BadValue(
                "as_completed() would begin these coroutines in the order of a set, which no replay can repeat: write "
                "asyncio.as_completed(...), with the module's name, or give it tasks."
            )


def _ended(branch: Branch, task: asyncio.Future[Any]) -> None:
    """Note that a branch asks for nothing more; that its run was left is nobody's to retrieve."""
    branch.ended(task)
    left: BaseException | None = None if task.cancelled() else task._exception  # noqa: SLF001 - `exception()` retrieves it
    if left is not None and BaseExceptionGroup("", [left]).split((Suspended, Cancelled))[1] is None:
        task.exception()
