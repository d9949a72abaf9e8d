"""The names of cases that are measured of several subjects, spelled once; standard library only."""

from __future__ import annotations

from typing import Final

STEPS: Final = (1, 10)
COLOURS: Final = ("sync", "async")
WARM: Final = 20
"""Before anything is measured."""
PATIENCE: Final = 300.0
"""Seconds until what does not come is given up."""
ONE_BY_ONE: Final = 2_000
"""At most so many are enqueued one by one; the rest of the line by thousands, where that can be done."""
BATCH: Final = 1_000
THREADS: Final = 8
WARM_WAKES: Final = 3
"""Wake-ups before those that are measured: the first one connects, and compiles."""

MEANWHILE: Final = "a start awaited meanwhile"
ENQUEUE: Final = "enqueue one by one"
ENQUEUE_MANY: Final = "enqueue many"
DRAIN: Final = "drain"
WAKE: Final = "wake an idle worker"
IDLE: Final = "idle"


def steps_of(steps: int, colour: str) -> str:
    """Name workflows of so many steps."""
    return f"{'1 step' if steps == 1 else f'{steps} steps'}, {colour}"


def alone(colour: str) -> str:
    """Name one transaction at a time."""
    return f"alone, {colour}"


def many(colour: str) -> str:
    """Name many transactions at a time."""
    return f"many, {colour}"


def resumed(since: str, colour: str) -> str:
    """Name the time until the last interrupted workflow runs again."""
    return f"from {since} to the last resumed, {colour}"
