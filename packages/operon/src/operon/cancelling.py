"""A cancellation that comes while a task does what must not be cancelled is delivered afterwards."""

from __future__ import annotations

import asyncio
from typing import Any


def cancel_later(error: asyncio.CancelledError) -> None:
    """Cancel this task at its next await, as it was asked while it could not be; anyio knows its own by the message.

    A timeout that is left by then asks for nothing any more: it took back what it had asked for.
    """
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().call_soon(_cancel_again, task, *error.args[:1])


def _cancel_again(task: asyncio.Task[Any], message: object = None) -> None:
    if task.cancelling() and not task.done():
        task.uncancel()
        task.cancel(message)
