"""Operations that do nothing but call, so that one text serves blocking and awaited drivers alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import isawaitable
from typing import Any, TypeVar

from operon.core.commands import Invoke, Op

T = TypeVar("T")


def call(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Op[Any]:
    """Call a driver's function, and wait for what it gives if that is awaitable."""
    return (yield Invoke(fn, args, kwargs))


def block(op: Op[T]) -> T:
    """Perform an operation of blocking calls."""
    step: Callable[[], Any] = partial(next, op)
    while True:
        try:
            command = step()
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # what the generator returned is a T
        try:
            step = partial(op.send, command.fn(*command.args, **command.kwargs))
        except BaseException as error:
            step = partial(op.throw, error)


async def wait(op: Op[T]) -> T:
    """Perform an operation some of whose calls are awaitable."""
    step: Callable[[], Any] = partial(next, op)
    while True:
        try:
            command = step()
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # what the generator returned is a T
        try:
            answer = command.fn(*command.args, **command.kwargs)
            step = partial(op.send, await answer if isawaitable(answer) else answer)
        except BaseException as error:
            step = partial(op.throw, error)
