"""The heartbeat: renews the lease as a service of its own, so that no slow statement lets it run out."""

from __future__ import annotations

import logging
from collections.abc import Callable

from operon.core.commands import Op
from operon.core.rows import Pulse
from operon.engine.clock import Clock
from operon.engine.machine import Service
from operon.engine.wakeup import Rest, Wakeup
from operon.errors import StoreError

log = logging.getLogger("operon")


class Heartbeat:
    """Does `beat` every so many seconds, or when it is told to; `receive` is given the pulse, and must not block."""

    def __init__(
        self, clock: Clock, interval: float, beat: Callable[[], Op[Pulse]], receive: Callable[[Pulse], None]
    ) -> None:
        self._clock = clock
        self._interval = interval
        self._beat = beat
        self._receive = receive
        self._wakeup = Wakeup(self._clock)
        self._next = self._clock.monotonic() + interval
        self._stopped = False
        self._service: Service | None = None

    def start(self, serve: Callable[[str, Op[None]], Service]) -> None:
        """Begin to beat, as a service of its own."""
        self._service = serve("heartbeat", self._serve())

    def hurry(self) -> None:
        """Beat now, and not in a while."""
        self._next = self._clock.monotonic()
        self._wakeup.set()

    def stop(self, patience: float) -> None:
        """Beat no more; wait so long for a beat under way."""
        self._stopped = True
        self._wakeup.set()
        if self._service is not None:
            self._service.join(patience)

    def _serve(self) -> Op[None]:
        while not self._stopped:
            left = self._next - self._clock.monotonic()
            if left > 0:
                yield Rest(self._wakeup, left)
                continue
            self._next = self._clock.monotonic() + self._interval
            try:
                self._receive((yield from self._beat()))
            except StoreError as error:
                log.warning("The database did not answer the heartbeat (%s); trying again.", error)
            except Exception:
                log.exception("A heartbeat failed; the next one is tried in its time.")
