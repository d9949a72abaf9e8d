"""The callbacks that a workflow's body gives to its loop: they are called before the body is given its next result.

`loop.call_soon`, and what is to be called when a future is done, runs in one of the next turns of the loop. How many
turns an operation takes is another number in each run; so a run that has given such a callback is given each result in
its turn, once all that was to be called has been. Must not know what a callback does.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from threading import get_ident
from typing import Any

from operon.core.context import place
from operon.engine.strays import collecting

CallSoon = Callable[..., asyncio.Handle]
STOOD_BEFORE = ("call_soon", "call_soon_threadsafe")


class BodyCallbacks:
    """Stands before `call_soon` and `call_soon_threadsafe` of the loop that an engine's bodies run on."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own: list[tuple[str, CallSoon, CallSoon]] = []
        """What is stood before: its name, what was there, and what stands before it."""

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stand before the loop's own."""
        self._loop = loop
        for name in STOOD_BEFORE:
            original = getattr(loop, name)
            self._own.append((name, original, _noting(original)))
            setattr(loop, name, self._own[-1][-1])

    def remove(self) -> None:
        """Give the loop its own back, unless somebody else has stood before it since."""
        for name, original, mine in self._own:
            if getattr(self._loop, name) is mine:
                setattr(self._loop, name, original)
        self._own.clear()


def _noting(call_soon: CallSoon) -> CallSoon:
    """Call something in one of the next turns of the loop as it would be; and note it, if it is code of a body.

    It is noted until what is called right behind it has been. The steps of a task are seen where that rests, and what a
    verb gives to the loop is not the body's code.
    """
    nobody = contextvars.Context()

    def noting(
        callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        if context is None and collecting and get_ident() in collecting:  # it finalizes somebody's async generator
            context = contextvars.Context()
        handle = call_soon(callback, *args, context=context)
        here = place.get() if context is None else context.get(place)
        if here is None or here.branch is None:
            return handle
        run, its_own = here.branch.run, not here.driving and here.step is None and here.transaction is None
        if its_own and run.dead is None and not isinstance(getattr(callback, "__self__", None), asyncio.Task):
            mark = object()
            if run.calls is None:
                run.calls = {}
            run.calls[mark] = None
            call_soon(run.calls.pop, mark, None, context=nobody)
        return handle

    return noting
