"""The clock of a store in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """A clock that stands still until it is advanced, or follows another and can be moved ahead of it.

    Standing still, each reading is a microsecond after the last, so that the order of events is that of their instants.
    """

    def __init__(self, source: Callable[[], float] | None = None, start: float = 1_700_000_000.0) -> None:
        self._source = source
        self._ahead = 0.0 if source else start

    def __call__(self) -> float:
        """Seconds since 1970, to the microsecond, as a datetime has them."""
        if self._source:
            return round(self._source() + self._ahead, 6)
        self.advance(1e-6)
        return round(self._ahead, 6)

    def advance(self, seconds: float) -> None:
        """Let this much time pass."""
        self._ahead += seconds
