"""Calling blocking declarations from async code."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from operon.core import context
from operon.core.commands import Invoke, Op, ask

P = ParamSpec("P")
R = TypeVar("R")


async def call(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a blocking workflow, transaction, step or function on a thread, awaited.

    In an async workflow what it records is a branch of its own, numbered where this line stands; so this is how a
    workflow uses threads. If the caller is cancelled, the thread is left to end by itself.

    Raises:
        Exception: whatever the function raises.
    """
    from concurrent.futures import Future

    from operon.engine.landing import arrived

    here = context.current()
    host = None if here is None else here.run.host
    around = context.copied()
    if here is not None:
        around.run(context.branch.set, here.fork())
    done: Future[R] = Future()

    def body() -> R:
        return fn(*args, **kwargs) if host is None else host.drive(_whole(lambda: fn(*args, **kwargs)))

    def run() -> None:
        try:
            done.set_result(around.run(body))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name=f"operon-call-{getattr(fn, '__name__', 'fn')}", daemon=True).start()
    await arrived(done)
    return done.result()


def _whole(fn: Callable[[], R]) -> Op[R]:
    """Run a function as the body of its branch, so that the engine knows when it waits and when it works."""
    return (yield from ask(Invoke[R](fn, body=True)))
