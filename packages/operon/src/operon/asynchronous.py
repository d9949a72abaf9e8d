"""Whether code runs on an event loop; asyncio is imported by whoever asks first, and not with `import operon`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache


@cache
def _ask() -> Callable[[], object]:
    from asyncio import _get_running_loop

    return _get_running_loop


def on_loop() -> bool:
    """Whether an event loop runs on this thread."""
    return _ask()() is not None
