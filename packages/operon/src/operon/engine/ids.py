"""Ids that sort by the time they were made: index pages fill from the right, and listings come in order."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
"""Ten bits each."""


class Ids:
    """Makes ids of 26 characters: 48 bits of milliseconds, then 80 bits that are random or counted up."""

    def __init__(self, chance: Callable[[int], bytes] = os.urandom) -> None:
        self._chance = chance
        self._lock = threading.Lock()
        self._last = 0

    def new(self, now: float) -> str:
        """Make the next id, given the time in seconds."""
        moment = int(now * 1000)
        with self._lock:
            if moment > self._last >> 80:
                self._last = moment << 80 | int.from_bytes(self._chance(10))
            else:
                self._last += 1
            number = self._last
        return "".join([PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])
