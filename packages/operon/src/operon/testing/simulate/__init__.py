"""The deterministic simulator: engines, their services and a database in one thread, on a virtual clock.

    simulate(4711)

runs one world, made of a seed; it raises `LawBroken` when the engine does what it must never do. The same seed is the
same run, event for event.
"""

from __future__ import annotations

from operon.testing.simulate.laws import LawBroken
from operon.testing.simulate.world import World

__all__ = ["LawBroken", "World", "simulate"]


def simulate(seed: int, *, harsh: bool = False) -> World:
    """Run a world to its end.

    Args:
        seed: what it is made of.
        harsh: processes stand still in the very moment in which they write, and messages take longer than the grace.

    Raises:
        LawBroken: a law was broken; run the seed again with a trace to see how.
    """
    world = World(seed, harsh=harsh)
    world.run()
    return world
