"""Number the tasks of a workflow by where they are created, so that a replay finds each branch's own records."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Any

from operon.core import context
from operon.core.journal import Branch
from operon.errors import Cancelled, Suspended

AnyCoroutine = Coroutine[Any, Any, Any] | Generator[Any, Any, Any]


class BranchingFactory:
    """A task factory that opens a branch for each task that a workflow's body creates; others pass untouched."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._inner = loop.get_task_factory()

    def install(self) -> None:
        """Put this factory in front of the loop's own."""
        self._loop.set_task_factory(self)

    def remove(self) -> None:
        """Give the loop its own factory back, unless somebody has put another in front since."""
        if self._loop.get_task_factory() is self:
            self._loop.set_task_factory(self._inner)

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: AnyCoroutine, **options: Any) -> asyncio.Future[Any]:
        """Create a task, in a branch of its own if a workflow's body creates it."""
        given: contextvars.Context | None = options.pop("context", None)
        around = contextvars.copy_context() if given is None else given  # an empty one is false, and meant
        here = around.run(context.current)
        if here is None:
            return self._create(loop, coro, around, options)
        around = around.copy()
        branch = here.fork()
        around.run(context.branch.set, branch)
        task = self._create(loop, coro, around, options)
        here.run.tasks[task] = None
        task.add_done_callback(partial(_ended, branch))
        return task

    def _create(
        self, loop: asyncio.AbstractEventLoop, coro: AnyCoroutine, around: contextvars.Context, options: dict[str, Any]
    ) -> asyncio.Future[Any]:
        if self._inner is not None:
            inner: Any = self._inner
            task: asyncio.Future[Any] = inner(loop, coro, context=around, **options)
            return task
        return asyncio.Task(coro, loop=loop, context=around, **options)


def _ended(branch: Branch, task: asyncio.Future[Any]) -> None:
    """Note that a branch asks for nothing more; that its run was left is nobody's to retrieve."""
    branch.ended(task)
    left = None if task.cancelled() else task._exception  # noqa: SLF001 - `exception()` retrieves it
    if isinstance(left, Suspended | Cancelled):
        task.exception()
