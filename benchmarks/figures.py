"""Figures and their statistics; standard library only, since the peers' programs import it as well."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

RATE = "/s"
"""The one unit of which more is better."""
OURS = "operon"
FLOOR = "floor"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that was measured."""

    case: str
    unit: str
    value: float
    subject: str = OURS

    def line(self) -> str:
        """Write it as a line of JSON."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Missing:
    """What was not measured, and why."""

    missing: str
    subject: str = OURS

    def line(self) -> str:
        """Write it as a line of JSON."""
        return json.dumps(asdict(self))


Finding = Figure | Missing


def read(line: str) -> Finding:
    """Read a line of JSON.

    Raises:
        ValueError, TypeError: it is none of ours.
    """
    fields: dict[str, Any] = json.loads(line)
    return Missing(**fields) if "missing" in fields else Figure(**fields)


def times_worse(value: float, other: float, unit: str) -> float | None:
    """Say how many times worse one value is than another: above 1 is worse."""
    above, below = (other, value) if unit == RATE else (value, other)
    return above / below if below > 0 else None


def tail(values: list[float], percent: int) -> float:
    """Give a percentile; of a single value, itself."""
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def p50(case: str, milliseconds: list[float], subject: str = OURS) -> Figure:
    """Make a figure of the median."""
    return Figure(f"{case}, p50", "ms", median(milliseconds), subject)


def p99(case: str, milliseconds: list[float], subject: str = OURS) -> Figure:
    """Make a figure of the tail."""
    return Figure(f"{case}, p99", "ms", tail(milliseconds, 99), subject)


def timed(call: Callable[[], object], samples: int) -> list[float]:
    """Call so often, and give the milliseconds of each call."""
    took: list[float] = []
    for _ in range(samples):
        begun = time.perf_counter()
        call()
        took.append((time.perf_counter() - begun) * 1000)
    return took


async def atimed(call: Callable[[], Awaitable[object]], samples: int) -> list[float]:
    """Await so often, and give the milliseconds of each."""
    took: list[float] = []
    for _ in range(samples):
        begun = time.perf_counter()
        await call()
        took.append((time.perf_counter() - begun) * 1000)
    return took


def rate(count: int, call: Callable[[], object]) -> float:
    """Call once, and give how many a second that was."""
    begun = time.perf_counter()
    call()
    return count / (time.perf_counter() - begun)


def chunks(samples: int, size: int = 20) -> Iterator[int]:
    """Cut samples into small lots, so that two subjects take turns and share the disk's moods."""
    for done in range(0, samples, size):
        yield min(size, samples - done)


def until(done: Callable[[], object], what: str, patience: float, rest: float = 0.02) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: it is not, after so many seconds.
    """
    end = time.monotonic() + patience
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"Waited {patience:.0f} s for {what}")
        time.sleep(rest)


def figures(found: Iterable[Finding]) -> list[Figure]:
    """Give those that are figures."""
    return [it for it in found if isinstance(it, Figure)]
