"""Virtual time, and what is to happen in it: one thing at a time, by chance among all that could happen now."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from random import Random
from typing import Protocol

TICK = 1e-5
"""Seconds that everything takes, however small."""
Call = Callable[[], object]


class Owner(Protocol):
    """Who things happen to: while it is paused they wait, and once it is dead they are forgotten."""

    @property
    def alive(self) -> bool:
        """Whether anything can still happen to it."""
        ...

    @property
    def paused(self) -> bool:
        """Whether it stands still."""
        ...


class Schedule(Protocol):
    """Calls things later, by the world's time."""

    def after(self, seconds: float, call: Call) -> None:
        """Call this in so many seconds."""
        ...


class Agenda:
    """Everything that will happen."""

    def __init__(self, random: Random) -> None:
        self.now = 0.0
        self.random = random
        self._numbers = itertools.count()
        self._later: list[tuple[float, int, Owner | None, Call]] = []
        self._due: list[tuple[Owner | None, Call]] = []

    def at(self, when: float, call: Call, owner: Owner | None = None) -> None:
        """Do this at an instant, or as soon after it as its owner is there."""
        heapq.heappush(self._later, (when, next(self._numbers), owner, call))

    def after(self, seconds: float, call: Call, owner: Owner | None = None) -> None:
        """Do this in so many seconds."""
        self.at(self.now + max(0.0, seconds), call, owner)

    def possible(self) -> list[Call]:
        """What can happen now, in a fixed order; it is done by calling it."""
        self.now += TICK
        while self._later and self._later[0][0] <= self.now:
            _, _, owner, call = heapq.heappop(self._later)
            self._due.append((owner, call))
        if not self._due:
            return []
        self._due = [item for item in self._due if item[0] is None or item[0].alive]
        return [self._doing(item) for item in self._due if item[0] is None or not item[0].paused]

    def skip(self) -> bool:
        """Move on to the next instant at which something is to happen; False if there is none."""
        if not self._later:
            return False
        self.now = max(self.now, self._later[0][0])
        return True

    def _doing(self, item: tuple[Owner | None, Call]) -> Call:
        def do() -> None:
            self._due.remove(item)
            item[1]()

        return do
