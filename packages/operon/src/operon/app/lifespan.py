"""What is entered before an app claims anything and left after its drain; must not know what it opens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

from operon.errors import DeclarationError, WrongColour

if TYPE_CHECKING:
    import asyncio

Manager: TypeAlias = AbstractContextManager[Any] | AbstractAsyncContextManager[Any]


class Lifespan:
    """One entering and leaving of a context manager; an async one lives in one task of the loop of the async bodies."""

    def __init__(self, manager: Manager | None) -> None:
        self._manager = manager
        self._leave: Callable[[float], object] | None = None
        self._task: asyncio.Task[Any] | None = None
        """An async one lives in it."""
        self._interrupted = False
        self.asynchronous = hasattr(manager, "__aenter__") and not hasattr(manager, "__enter__")
        if manager is not None and not self.asynchronous and not hasattr(manager, "__enter__"):
            raise DeclarationError(
                f"lifespan= gave a {type(manager).__name__}, which cannot be entered; "
                "decorate it with contextlib.contextmanager or contextlib.asynccontextmanager."
            )

    def enter(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Enter it.

        Raises:
            Exception: whatever it raises: then it was not entered.
        """
        if isinstance(self._manager, AbstractContextManager):
            manager = self._manager
            manager.__enter__()
            self._leave = lambda _: manager.__exit__(None, None, None)
        elif self._manager is not None and loop is not None:
            self._leave = _live(self._manager, loop, self._begun)

    def leave(self, seconds: float) -> None:
        """Leave it, if it was entered; raises what it raises. One that has not left its loop by then is left behind."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave(seconds)

    def interrupt(self) -> None:
        """Cancel an async one that is being entered, once; on its loop."""
        if self._task is not None and self._leave is None and not self._interrupted:
            self._interrupted = True
            self._task.cancel()

    def _begun(self, task: asyncio.Task[Any] | None) -> None:
        self._task = task


def _live(
    manager: AbstractAsyncContextManager[Any],
    loop: asyncio.AbstractEventLoop,
    begun: Callable[[asyncio.Task[Any] | None], None],
) -> Callable[[float], object]:
    """Enter on the loop, and stay in one task to the end, for what is opened may belong to its task."""
    import asyncio
    from concurrent.futures import FIRST_COMPLETED, Future, wait

    entered: Future[None] = Future()
    over = asyncio.Event()

    async def live() -> None:
        begun(asyncio.current_task())
        async with manager:
            entered.set_result(None)
            await over.wait()

    def leave(seconds: float) -> None:
        if asyncio._get_running_loop() is loop:  # noqa: SLF001 - the cheap spelling of get_running_loop
            raise WrongColour("close() blocks the loop that the lifespan lives on; await asyncio.to_thread(app.close).")
        loop.call_soon_threadsafe(over.set)
        if wait((living,), seconds).done:
            living.result()
        else:
            import logging

            said = "The lifespan does not leave its loop; the app is closed without it."
            logging.getLogger("operon").warning(said)

    living = asyncio.run_coroutine_threadsafe(live(), loop)
    wait((entered, living), return_when=FIRST_COMPLETED)
    if not entered.done():
        living.result()
    return leave
