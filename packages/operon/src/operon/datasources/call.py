"""Operations that do nothing but call, so that one text serves blocking and awaited drivers alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from inspect import isawaitable
from math import inf
from typing import Any, TypeAlias, TypeVar, cast

from operon.cancelling import cancel_later
from operon.core.commands import Invoke, Op

T = TypeVar("T")
Ended: TypeAlias = tuple[T | None, BaseException | None]
"""What came of work: a value, or what it raised."""
AGAIN = 1.0
"""Seconds until a server is asked again to end what was cancelled: it may have been asked before it had that."""
TIMES = 15
"""So often; then a driver is cancelled again, which gives its connection up."""


def call(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Op[Any]:
    """Call a driver's function, and wait for what it gives if that is awaitable."""
    return (yield Invoke(fn, args, kwargs))


def _invoke(command: Any) -> Any:
    return command.fn(*command.args, **command.kwargs)


def complete(fn: Callable[[], Any], insist: Callable[[], None] = lambda: None) -> Op[Any]:
    """Call a driver's function and wait to its end, even if we are cancelled meanwhile: that is delivered after it.

    Args:
        fn: what is called.
        insist: called every second until what `fn` gives has ended: it may wait for a statement that was cancelled.
    """
    return call(lambda: _to_the_end(answer, insist) if isawaitable(answer := fn()) else answer)


async def cancelled_once(work: Awaitable[T], insist: Callable[[], None] = lambda: None) -> T:
    """Await what uses a connection; however often this is cancelled meanwhile, the work is told once, and ends.

    A driver that is cancelled tells its server, and waits for it. Cancelled once more, as anyio's scopes do in every
    turn of the loop, it would give the connection up, while the statement goes on at the server with its locks.

    Args:
        work: what is awaited.
        insist: called every second after that, until the work has ended.
    """
    (value, failure), cancelled = await _undisturbed(work, insist, told=True)
    if failure is not None:
        raise cancelled if cancelled is not None and isinstance(failure, asyncio.CancelledError) else failure
    return cast("T", value)


async def _to_the_end(work: Awaitable[T], insist: Callable[[], None]) -> T:
    (value, failure), cancelled = await _undisturbed(work, insist, told=False)
    if cancelled is not None:
        cancel_later(cancelled)
    if failure is not None:
        raise failure
    return cast("T", value)


async def _undisturbed(
    work: Awaitable[T], insist: Callable[[], None], *, told: bool
) -> tuple[Ended[T], asyncio.CancelledError | None]:
    """Await work to its end; answers that, and what has cancelled this meanwhile: the work is told once, or not."""
    task, clock = asyncio.ensure_future(_ended(work)), asyncio.get_running_loop().time
    cancelled: asyncio.CancelledError | None = None
    asked, times = inf if told else clock(), 0
    while not task.done():
        try:
            left = asked + AGAIN - clock()
            if left > 0:
                await asyncio.wait((task,), timeout=None if left == inf else left)
                continue
        except asyncio.CancelledError as error:
            if told and cancelled is None:
                task.cancel(*error.args[:1])
                asked = clock()
            cancelled = error if error.args or cancelled is None else cancelled
            continue
        asked, times = clock(), times + 1
        if told and times > TIMES:
            task.cancel()
        elif times <= TIMES:
            with suppress(Exception):
                insist()
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
