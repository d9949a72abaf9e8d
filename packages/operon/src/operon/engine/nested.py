"""A workflow's body must not run the event loop that it is on: what ran in there would have no place in its history.

asyncio refuses that itself, until something makes its loops run again from inside, as nest_asyncio does. In a body the
loop would then be shown the body's time, which stands still, and no timer of the process would ever be due. Steps,
transactions and whatever is no body may run it. Must not know why a body would.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from inspect import iscoroutine
from typing import Any

from operon.core import context
from operon.core.host import RunHost
from operon.core.journal import Branch, Run
from operon.errors import WrongColour

Runs = Callable[..., Any]
STOOD_BEFORE = ("run_until_complete", "run_forever")
TURN = "_run_once"
"""The function of asyncio's loops, and of what stands before it, that does one turn and asks for the time."""
NESTED = (
    "A workflow's body runs its event loop again from inside (loop.run_until_complete(), or asyncio.run() under "
    "nest_asyncio), where a replay would find other things done: await it instead, or do it all in one step."
)


class NestedRuns:
    """Stands before what runs the loop that an engine's bodies run on."""

    def __init__(self, host: RunHost[Run, Branch]) -> None:
        self._host = host
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own: list[tuple[str, Runs | None, Runs]] = []
        """What is stood before: its name, what the loop had in the place of its class's, and what stands before it."""

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stand before the loop's own."""
        self._loop = loop
        for name in STOOD_BEFORE:
            before: Runs | None = vars(loop).get(name)
            self._own.append((name, before, partial(self._run, name, before)))
            setattr(loop, name, self._own[-1][-1])

    def remove(self) -> None:
        """Give the loop its own back, unless somebody else has stood before it since."""
        for name, before, mine in self._own:
            if vars(self._loop).get(name) is not mine:
                continue
            delattr(self._loop, name) if before is None else setattr(self._loop, name, before)
        self._own.clear()

    def _run(self, name: str, before: Runs | None, *args: Any, **kwargs: Any) -> Any:
        """Run the loop, unless it is a body that asks; the class's own may have been replaced since.

        Raises:
            WrongColour: it is a body.
        """
        here = context.current()
        if here is None or here.run.host is not self._host:
            run: Runs = before or partial(getattr(type(self._loop), name), self._loop)
            return run(*args, **kwargs)
        check: Callable[[], None] | None = getattr(self._loop, "_check_running", None)
        if check is not None:
            check()  # where nothing lets the loop run again it is asyncio that refuses, in its own words
        for work in filter(iscoroutine, args):
            work.close()
        raise WrongColour(NESTED)


def refuse_turn() -> None:
    """Refuse to tell a body's time to whoever asked for it, if that is the loop itself, in a turn that the body does.

    Raises:
        WrongColour: it is.
    """
    if sys._getframe(2).f_code.co_name == TURN:  # noqa: SLF001 - there is no public name
        raise WrongColour(NESTED)
