"""How the code of a body hears, once, that its workflow is cancelled or past its deadline."""

from __future__ import annotations

from asyncio import CancelledError, current_task, get_running_loop
from collections.abc import Coroutine, Generator
from contextlib import suppress
from inspect import iscoroutine
from typing import Any

from operon.core import context
from operon.core.journal import Branch
from operon.errors import Cancelled


def told(branch: Branch) -> None:
    """Note that a branch was told that its run is cancelled: what its task was asked for is done."""
    if branch.told or not isinstance(branch.run.dead, Cancelled):
        return
    branch.told = True
    with suppress(RuntimeError):  # this thread has no loop
        task = current_task()
        if task is not None and task.cancelling():
            task.uncancel()


async def told_in_turn(branch: Branch) -> None:
    """Let whoever awaits the task of a branch be told first: a task group would cancel the clean-up of its tasks."""
    if branch.told or branch is branch.run.root:
        return
    task = current_task()
    if isinstance(branch.run.dead, Cancelled) and task is not None and not task.cancelling():
        with suppress(CancelledError):
            await get_running_loop().create_future()


async def hears(branch: Branch) -> None:
    """Let a branch hear, by a verb of its own, that its run is cancelled."""
    await told_in_turn(branch)
    told(branch)


class Hearing:
    """A coroutine of a body; the first cancellation of its task, once the run is cancelled, is raised as `Cancelled`.

    So a body hears the same whatever it awaits: a verb, a future, a task group.
    """

    __slots__ = ("_branch", "_coro", "close", "send")

    def __init__(self, coro: Coroutine[Any, Any, Any], branch: Branch) -> None:
        self._coro = coro
        self._branch = branch
        self.send = coro.send
        self.close = coro.close

    @classmethod
    def of(cls, work: Any, branch: Branch) -> Any:
        """Have a coroutine hear; another awaitable is left as it is."""
        return cls(work, branch) if iscoroutine(work) else work

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coro, name)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    def __iter__(self) -> Hearing:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def throw(self, error: Any, *legacy: Any) -> Any:
        """Raise this where the coroutine waits, or what it means there."""
        if legacy or not isinstance(error, CancelledError):
            return self._coro.throw(error, *legacy)
        return self._coro.throw(self._heard(error))

    def _heard(self, error: CancelledError) -> BaseException:
        dead = self._branch.run.dead
        if self._branch.told or not isinstance(dead, Cancelled):
            return error
        if not context.place.get().driving:  # a verb may have something to finish first
            told(self._branch)
        return dead
