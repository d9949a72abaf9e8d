"""Entering from an event loop what blocks: on a thread, which a cancellation does not stop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from operon.app.closing import regardless

if TYPE_CHECKING:
    import asyncio

PAUSE = 0.05
"""Seconds between two interruptions of what is being entered: it may not have begun what can be interrupted."""


async def entered(enter: Callable[[], None], interrupt: Callable[[], None], leave: Callable[[], None]) -> None:
    """Call `enter` on a thread. If this is cancelled, wait for the thread, and leave what it has entered.

    Args:
        enter: blocks; may raise, and has entered nothing then.
        interrupt: makes `enter` end soon, if it can; called on this loop, any number of times.
        leave: blocks.

    Raises:
        Exception: whatever `enter` raises.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    entering = loop.run_in_executor(None, enter)
    try:
        await asyncio.shield(entering)
    except asyncio.CancelledError:
        await _end(entering, interrupt)
        if not entering.cancelled() and entering.exception() is None:
            leaving = loop.run_in_executor(None, leave)
            await _end(leaving, lambda: None)
            with regardless("What was cancelled while it was entered"):
                leaving.result()
        raise


async def _end(work: asyncio.Future[None], interrupt: Callable[[], None]) -> None:
    """Wait for the end of some work, however often this task is cancelled meanwhile."""
    import asyncio

    while not work.done():
        interrupt()
        with suppress(asyncio.CancelledError):
            await asyncio.wait({work}, timeout=PAUSE)
