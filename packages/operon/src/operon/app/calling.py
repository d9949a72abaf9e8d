"""Calling blocking declarations from async code."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from operon.core import context

P = ParamSpec("P")
R = TypeVar("R")


async def call(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a blocking workflow, transaction, step or function on a thread, awaited.

    In an async workflow what it records is a branch of its own, numbered where this line stands; so this is how a
    workflow uses threads. If the caller is cancelled, the thread is left to end by itself.

    Raises:
        Exception: whatever the function raises.
    """
    import asyncio
    from concurrent.futures import Future

    here = context.current()
    around = context.copied()
    if here is not None:
        around.run(context.branch.set, here.fork())
    done: Future[R] = Future()

    def run() -> None:
        try:
            done.set_result(around.run(fn, *args, **kwargs))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name=f"operon-call-{getattr(fn, '__name__', 'fn')}", daemon=True).start()
    return await asyncio.wrap_future(done)
