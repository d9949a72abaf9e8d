"""The callbacks that a workflow's body gives to its loop: they are called before the body is given its next result.

`loop.call_soon`, and what is to be called when a future is done, runs in one of the next turns of the loop. How many
turns an operation takes is another number in each run; so a run that has given such a callback is given each result in
its turn, once all that was to be called has been. Must not know what a callback does.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

from operon.core.context import Place, place


class BodyCallbacks:
    """Stands before `call_soon` and `call_soon_threadsafe` of the loop that an engine's bodies run on."""

    def __init__(self) -> None:
        self._loop: Any = None
        self._nobody = contextvars.Context()
        """What is called in it is no part of a body."""
        self._call_soon: Callable[..., asyncio.Handle]
        self._call_soon_threadsafe: Callable[..., asyncio.Handle]

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stand before the loop's own."""
        self._loop, self._call_soon, self._call_soon_threadsafe = loop, loop.call_soon, loop.call_soon_threadsafe
        self._loop.call_soon, self._loop.call_soon_threadsafe = self.call_soon, self.call_soon_threadsafe

    def remove(self) -> None:
        """Give the loop its own back, unless somebody else has stood before it since."""
        if self._loop is not None and self._loop.call_soon == self.call_soon:
            self._loop.call_soon, self._loop.call_soon_threadsafe = self._call_soon, self._call_soon_threadsafe

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call this in the next turn of the loop; noted, if it is code of a body."""
        handle = self._call_soon(callback, *args, context=context)
        here = place.get() if context is None else context.get(place)
        if here is not None and here.branch is not None:
            self._note(here, callback, self._call_soon)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Likewise, from any thread."""
        handle = self._call_soon_threadsafe(callback, *args, context=context)
        here = place.get() if context is None else context.get(place)
        if here is not None and here.branch is not None:
            self._note(here, callback, self._call_soon_threadsafe)
        return handle

    def _note(self, here: Place, callback: Callable[..., object], call_soon: Callable[..., asyncio.Handle]) -> None:
        """Note that a body's callback is to be called, until what is called right behind it has been.

        The steps of a task are seen where that rests, and what a verb gives to the loop is not the body's code.
        """
        if here.branch is None or here.driving or here.step is not None or here.transaction is not None:
            return
        run, mark = here.branch.run, object()
        if run.dead is None and not isinstance(getattr(callback, "__self__", None), asyncio.Task):
            if run.calls is None:
                run.calls = {}
            run.calls[mark] = None
            call_soon(run.calls.pop, mark, None, context=self._nobody)
