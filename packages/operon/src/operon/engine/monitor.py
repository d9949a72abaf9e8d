"""What keeps the threads of one run apart: entered at a lock's own price, for most runs have one thread only."""

from __future__ import annotations

import threading

Lock: type = type(threading.RLock())


class Monitor(Lock):  # type: ignore[misc]  # which the standard library does not say by a name of its own
    """A lock that may be entered again, and on which threads wait until something has changed."""

    _changed: threading.Condition | None = None

    def wait(self, timeout: float | None = None) -> bool:
        """Let others in until they say that something has changed, or for so many seconds; answers whether they did."""
        if self._changed is None:
            self._changed = threading.Condition(self)
        return self._changed.wait(timeout)

    def notify_all(self) -> None:
        """Have everybody look again who waits."""
        if self._changed is not None:
            self._changed.notify_all()
