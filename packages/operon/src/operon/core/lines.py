"""The lines of a body that threads follow: which of them are executing its code now, and which of them rest.

The engine gives a monitor that keeps threads apart, for the core knows none.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from types import TracebackType


class Monitor(Protocol):
    """What keeps the threads of one run apart, and tells those who wait that something has changed."""

    def __enter__(self) -> bool:
        """Let nobody else in; whoever is in already may come in again."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None, /
    ) -> bool | None:
        """Let others in."""
        ...

    def notify_all(self) -> None:
        """Have everybody look again."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Let others in until there is something to look at."""
        ...


class Alone:
    """The monitor of a run that one thread has to itself."""

    def __enter__(self) -> bool:
        """Come in."""
        return True

    def __exit__(self, *failure: object) -> None:
        """Leave."""

    def notify_all(self) -> None:
        """Nobody waits."""

    def wait(self, timeout: float | None = None) -> bool:
        """Nobody would end it."""
        del timeout
        return False


class Lines:
    """The branches of one run that threads follow, and what the body has given to pools."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.threaded = False
        """Something was given to a pool."""
        self.pieces: dict[Any, None] = {}
        """What was, and has not ended; in the order in which it was given."""
        self.endings: tuple[Callable[[], None], ...] = ()
        """To be called when all have ended."""
        self._awake: dict[Hashable, None] = {}
        """Whose code a thread is executing, not waiting in a verb or for another thread."""
        self._restless: dict[Hashable, None] = {}
        """Those of them that are no longer waited for."""
        self._attendants: tuple[Callable[[], None], ...] = ()

    def wakes(self, *lines: Hashable) -> None:
        """Note that threads execute the code of these branches."""
        with self._monitor:
            self._awake.update(dict.fromkeys(lines))

    def sleeps(self, line: Hashable) -> None:
        """Note that none does: it waits in a verb or for another thread, or has ended."""
        with self._monitor:
            self._awake.pop(line, None)
            self._restless.pop(line, None)
            calls = self._rested()
        for call in calls:
            call()

    def at_rest(self) -> bool:
        """Whether no thread is executing code of the body, of those that are waited for."""
        return not self._awake or self._awake.keys() <= self._restless.keys()

    def overlook(self) -> None:
        """Wait no longer for the threads that are awake, until they come to a verb."""
        with self._monitor:
            self._restless.update(self._awake)
            calls = self._rested()
        for call in calls:
            call()

    def once_at_rest(self, call: Callable[[], None]) -> None:
        """Call this when no thread executes code of the body."""
        with self._monitor:
            if not self.at_rest():
                self._attendants = (*self._attendants, call)
                return
        call()

    def _rested(self) -> tuple[Callable[[], None], ...]:
        calls: tuple[Callable[[], None], ...] = ()
        if self.at_rest():
            calls, self._attendants = self._attendants, calls
        self._monitor.notify_all()
        return calls
