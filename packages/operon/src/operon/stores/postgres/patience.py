"""How long to keep trying; it must not know what."""

from __future__ import annotations

import random
import time
from threading import Event
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORTEST, LONGEST = 0.02, 1.0


class Patience:
    """Tries, with growing pauses between them, until some seconds have passed or there is no more use in it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._over = Event()

    def tries(self, seconds: float | None = None) -> Iterator[None]:
        """Yield once for every try; the first at once, the last after `seconds`."""
        deadline = time.monotonic() + (self.seconds if seconds is None else seconds)
        pause = SHORTEST
        yield
        while (left := deadline - time.monotonic()) > 0:
            # Jitter, so that a server coming back is not met by everybody at the same moment.
            if self._over.wait(min(left, pause * random.uniform(0.5, 1.0))):  # noqa: S311 - not for secrets
                return
            pause = min(LONGEST, pause * 2)
            yield

    def end(self) -> None:
        """Lose it: tries under way are the last."""
        self._over.set()
