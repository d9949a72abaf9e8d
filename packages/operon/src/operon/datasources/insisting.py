"""Cancelling again what an async driver executes: a request that comes before its statement is lost at the server."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from operon.datasources.postgres import CANCELLING

_asking: set[asyncio.Task[None]] = set()


def insist(driver: Any) -> None:
    """Ask the server once more, on a connection of its own; waits for nothing."""
    if hasattr(driver, "_cancel_current_command"):  # asyncpg's, which has no public word for it
        driver._cancel_current_command(asyncio.get_running_loop().create_future())  # noqa: SLF001
    elif hasattr(driver, "cancel_safe"):
        task = asyncio.ensure_future(_ask(driver))
        _asking.add(task)
        task.add_done_callback(_asking.discard)


async def _ask(driver: Any) -> None:
    with suppress(Exception):  # it is asked again
        await driver.cancel_safe(timeout=CANCELLING)
