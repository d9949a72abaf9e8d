"""The places in which bodies run here, so many of each colour; it must not know what runs in them."""

from __future__ import annotations

import threading

from operon.engine.loops import Loop
from operon.engine.settings import Settings


class Places:
    """How many bodies run here, or are about to, and how many more may.

    Args:
        settings: say how many threads and tasks there are.
        loop: the loop that async bodies run on.
        lock: keeps all of it together with the runs that are known here.
    """

    def __init__(self, settings: Settings, loop: Loop, lock: threading.RLock) -> None:
        self._settings = settings
        self._loop = loop
        self._lock = lock
        self._taken = {False: 0, True: 0}
        self.open = False
        """Whether anything may begin here, now."""
        self.starting: set[int] = set()
        """The nonces of what is being started or claimed to run here: its row may be there before its answer is."""

    def free(self, *, asynchronous: bool) -> int:
        """How many more bodies of a colour can run here."""
        if not (self.open and self._settings.run) or (asynchronous and not self._loop.alive):
            return 0
        limit = self._settings.tasks if asynchronous else self._settings.threads
        return max(0, limit - self._taken[asynchronous])

    def take(self, nonce: int, *, asynchronous: bool, inline: bool) -> bool:
        """Take a place if one is free; inline, the caller's own thread is it."""
        with self._lock:
            if not inline and self.free(asynchronous=asynchronous) <= 0:
                return False
            self._taken[asynchronous] += 1
            self.starting.add(nonce)
            return True

    def give_back(self, nonce: int, *, asynchronous: bool) -> None:
        """Let another have it."""
        with self._lock:
            self._taken[asynchronous] -= 1
            self.starting.discard(nonce)
