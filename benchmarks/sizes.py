"""How much is measured; standard library only."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Size:
    """How much of each kind; `SIZE="sleepers=5000 rates=200,1000"` replaces some."""

    samples: int = 500
    """Of each latency."""
    wakes: int = 100
    """Of each wake-up of an idle worker."""
    workflows: int = 2_000
    """At once."""
    line: int = 10_000
    """In a queue."""
    transactions: int = 4_000
    """For a rate."""
    interrupted: int = 1_000
    sleepers: int = 100_000
    rates: tuple[int, ...] = (200, 1_000, 2_000, 4_000, 6_000)
    """Workflows a second of the open loop."""
    seconds: int = 10
    """Of each rate of the open loop, and of listening to an idle process."""
    steps: int = 10_000
    """Of a long history."""
    requests: int = 4_000
    processes: tuple[int, ...] = (1, 2, 3)
    finished: int = 200_000
    """Ended workflows in the table; the goal is stated for 10,000,000."""
    lived: int = 200_000
    """Workflows that a table lives through, is swept of, and lives through again; 1,000,000 say more about bloat."""
    parents: int = 100_000
    """Of those who wait while a heartbeat is measured."""

    def but(self, words: str) -> Size:
        """Replace some.

        Raises:
            ValueError: there is no such size, or it is no number.
        """
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {}
        for word in words.split():
            name, _, number = word.partition("=")
            if name not in known:
                raise ValueError(f"There is no size {name!r}; there are {', '.join(known)}.")
            many = isinstance(known[name], tuple)
            changed[name] = tuple(int(it) for it in number.split(",")) if many else int(number)
        return replace(self, **changed)


def size_of(fields: dict[str, Any]) -> Size:
    """Make a size of what JSON kept of one."""
    many: dict[str, Any] = {name: tuple(fields[name]) for name in ("rates", "processes")}
    return Size(**fields | many)


QUICK = Size(
    samples=40,
    wakes=10,
    workflows=100,
    line=300,
    transactions=200,
    interrupted=50,
    sleepers=300,
    rates=(50, 200),
    seconds=2,
    steps=300,
    requests=200,
    processes=(1, 2),
    finished=5_000,
    lived=500,
    parents=2_000,
)
"""Enough to see that everything works; its figures mean little."""
