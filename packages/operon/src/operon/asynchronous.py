"""Whether code runs on an event loop; asyncio is imported by whoever asks first, and not with `import operon`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from operon.errors import WrongColour

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


@cache
def _ask() -> Callable[[], AbstractEventLoop | None]:
    from asyncio import _get_running_loop

    return _get_running_loop


def on_loop() -> bool:
    """Whether an event loop runs on this thread."""
    return _ask()() is not None


def running() -> AbstractEventLoop:
    """Give the event loop that runs on this thread.

    Raises:
        WrongColour: asyncio runs none, as under trio; nothing has been done.
    """
    loop = _ask()()
    if loop is None:
        raise WrongColour(
            "No event loop of asyncio runs here, and what is awaited from Operon needs one. Under trio or curio, "
            "launch with `with app:`, and call blocking functions and verbs on a thread: trio.to_thread.run_sync(...)."
        )
    return loop
