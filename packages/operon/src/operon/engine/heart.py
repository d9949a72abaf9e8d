"""The heartbeat: renews the lease on a thread that does nothing else, so that no slow statement lets it run out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from operon.core.rows import Pulse
from operon.engine.clock import Clock
from operon.errors import StoreError

log = logging.getLogger("operon")


class Heart:
    """Calls `beat`, every so many seconds or when it is told to; whoever `feels` the pulse must not block."""

    def __init__(self, clock: Clock, interval: float, beat: Callable[[], Pulse], feel: Callable[[Pulse], None]) -> None:
        self._clock = clock
        self._interval = interval
        self._beat = beat
        self._feel = feel
        self._changed = threading.Condition()
        self._next = clock.monotonic() + interval
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="operon-heart", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def hurry(self) -> None:
        """Beat now, and not in a while."""
        with self._changed:
            self._next = self._clock.monotonic()
            self._changed.notify()

    def stop(self, patience: float) -> None:
        """Beat no more; wait so long for a beat under way."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(patience)

    def _run(self) -> None:
        while self._due():
            try:
                self._feel(self._beat())
            except StoreError as error:
                log.warning("The database did not answer the heartbeat (%s); trying again.", error)
            except Exception:
                log.exception("The heart stumbled, and beats on.")

    def _due(self) -> bool:
        with self._changed:
            while not self._stopped and (left := self._next - self._clock.monotonic()) > 0:
                self._clock.wait(self._changed, left)
            self._next = self._clock.monotonic() + self._interval
            return not self._stopped
