"""Calling blocking declarations from async code."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

from operon.asynchronous import running
from operon.core import context
from operon.errors import Cancelled

P = ParamSpec("P")
R = TypeVar("R")


async def call(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a blocking workflow, transaction, step or function on a thread, awaited.

    In an async workflow what it records is a branch of its own, numbered where this line stands; so this is how a
    workflow uses threads. If the caller is cancelled, the thread is left to end by itself.

    Raises:
        Exception: whatever the function raises.
        WrongColour: no event loop of asyncio runs here, as under trio; the function is not called.
    """
    from concurrent.futures import Future, InvalidStateError

    from operon.engine.bridge import bridged
    from operon.engine.hearing import hears
    from operon.engine.pieces import Piece
    from operon.engine.strays import own_threads

    running()
    here, around, done = context.body(), context.copied(), Future[R]()
    work: Callable[[], R] = partial(fn, *args, **kwargs)
    if here is not None:
        piece = Piece[R](here, work)
        piece.take()
        piece.give(done)
        work = piece

    def run() -> None:
        with suppress(InvalidStateError):  # of `done`, which nobody awaits any more
            try:
                value = around.run(work)
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(value)

    thread = threading.Thread(target=run, name=f"operon-call-{getattr(fn, '__name__', 'fn')}", daemon=True)
    with own_threads():
        thread.start()
    try:
        return await bridged(done)
    except BaseException as error:
        its_own = Future[R].done(done) and not done.cancelled() and Future[R].exception(done) is error
        done.cancel()
        if its_own and here is not None and isinstance(error, Cancelled):
            await hears(here)
        raise
