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
SetFactory = Callable[[Any], object]
SETS = "set_task_factory"
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

    There is one for all apps on a loop: each task of a body is one branch. Where the program sets a factory of its own
    after the launch, another of ours stands in front of that.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, first: BranchingFactory | None = None) -> None:
        self._loop = loop
        self._inner = loop.get_task_factory()
        self._first = first or self
        """The one that the apps share, which was installed."""
        self._apps = 0
        self._set: SetFactory
        self._before: SetFactory | None = None
        """What the loop had in the place of its class's `set_task_factory`."""

    @classmethod
    def install(cls, loop: asyncio.AbstractEventLoop) -> BranchingFactory:
        """Put one in front of the loop's own factory, unless one is there; each app removes it once."""
        there = loop.get_task_factory()
        factory = there._first if isinstance(there, BranchingFactory) else cls(loop)  # noqa: SLF001 - of this class
        factory._apps += 1  # noqa: SLF001 - likewise
        if factory._apps == 1:  # noqa: SLF001 - likewise
            factory._stand()  # noqa: SLF001 - likewise
        return factory

    def _stand(self) -> None:
        """Make the loop's tasks from now on, and stand before what would set another factory."""
        loop: Any = self._loop
        self._before, self._set = vars(self._loop).get(SETS), loop.set_task_factory
        self._set(self)
        loop.set_task_factory = self._set_behind

    def _set_behind(self, factory: Any) -> None:
        """Set the factory that the program wants, and stand in front of it; a body's own makes tasks of no branch."""
        self._set(factory)
        ours = isinstance(factory, BranchingFactory) and factory._first is self  # noqa: SLF001 - of this class
        if not ours and context.current() is None:
            self._set(BranchingFactory(self._loop, self))

    def remove(self) -> None:
        """Give the loop its own factory back with the last app, unless somebody has put another in front since."""
        self._apps -= 1
        loop: Any = self._loop
        if self._apps:
            return
        if vars(self._loop).get(SETS) == self._set_behind:
            delattr(loop, SETS) if self._before is None else setattr(loop, SETS, self._before)
        there = loop.get_task_factory()
        if isinstance(there, BranchingFactory) and there._first is self:  # noqa: SLF001 - of this class
            self._set(there._inner)  # noqa: SLF001 - likewise

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
