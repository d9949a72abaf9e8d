"""Operations that do nothing but call, so that one text serves blocking and awaited drivers alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from inspect import isawaitable
from typing import Any, TypeAlias, TypeVar, cast

from operon.cancelling import cancel_later
from operon.core.commands import Invoke, Op

T = TypeVar("T")
Ended: TypeAlias = tuple[T | None, BaseException | None]
"""What came of work: a value, or what it raised."""
ENDING = 15.0
"""Seconds that a driver is given to end what was cancelled, before it is cancelled again."""


def call(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Op[Any]:
    """Call a driver's function, and wait for what it gives if that is awaitable."""
    return (yield Invoke(fn, args, kwargs))


def _invoke(command: Any) -> Any:
    return command.fn(*command.args, **command.kwargs)


def complete(fn: Callable[[], Any]) -> Op[Any]:
    """Call a driver's function and wait to its end, even if we are cancelled meanwhile: that is delivered after it."""
    return call(lambda: _to_the_end(answer) if isawaitable(answer := fn()) else answer)


async def cancelled_once(work: Awaitable[T]) -> T:
    """Await what uses a connection; however often this is cancelled meanwhile, the work is told once, and ends.

    A driver that is cancelled tells its server, and waits for it. Cancelled once more, as anyio's scopes do in every
    turn of the loop, it would give the connection up, while the statement goes on at the server with its locks.
    """
    (value, failure), cancelled = await _undisturbed(work, told=True)
    if failure is not None:
        raise cancelled if cancelled is not None and isinstance(failure, asyncio.CancelledError) else failure
    return cast("T", value)


async def _to_the_end(work: Awaitable[T]) -> T:
    (value, failure), cancelled = await _undisturbed(work, told=False)
    if cancelled is not None:
        cancel_later(cancelled)
    if failure is not None:
        raise failure
    return cast("T", value)


async def _undisturbed(work: Awaitable[T], *, told: bool) -> tuple[Ended[T], asyncio.CancelledError | None]:
    """Await work to its end; answers that, and what has cancelled this meanwhile: the work is told once, or not."""
    task = asyncio.ensure_future(_ended(work))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            done, _ = await asyncio.wait((task,), timeout=None if cancelled is None or not told else ENDING)
            if not done:
                task.cancel()
        except asyncio.CancelledError as error:
            if told and cancelled is None:
                task.cancel(*error.args[:1])
            cancelled = error if error.args or cancelled is None else cancelled
    return task.result(), cancelled


async def _ended(work: Awaitable[T]) -> Ended[T]:
    """Say how it ended: what is no `Exception` would end the loop of the task."""
    try:
        return await work, None
    except BaseException as error:
        return None, error


def block(op: Op[T], answer: Callable[[Any], Any] = _invoke) -> T:
    """Perform an operation of blocking calls."""
    step: Callable[[], Any] = partial(next, op)
    while True:
        try:
            command = step()
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # what the generator returned is a T
        try:
            step = partial(op.send, answer(command))
        except BaseException as error:
            step = partial(op.throw, error)


async def wait(op: Op[T], answer: Callable[[Any], Any] = _invoke) -> T:
    """Perform an operation some of whose calls are awaitable."""
    step: Callable[[], Any] = partial(next, op)
    while True:
        try:
            command = step()
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # what the generator returned is a T
        try:
            given = answer(command)
            step = partial(op.send, await given if isawaitable(given) else given)
        except BaseException as error:
            step = partial(op.throw, error)
