"""Simulate one seed and print its trace, or many and count: `make simulate SEED=4711`, `make simulate SEEDS=10000`."""

from __future__ import annotations

import argparse
import sys
import time

from operon.testing.simulate import World


def one(seed: int, *, harsh: bool) -> int:
    """Run a world, and print all that happened in it."""
    world = World(seed, harsh=harsh, trace=True)
    try:
        world.run()
    except BaseException as error:
        print(*world.trace or (), sep="\n")
        print(f"seed {seed}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(*world.trace or (), sep="\n")
    return 0


def many(first: int, seeds: int, *, harsh: bool) -> int:
    """Run worlds, and print which broke a law."""
    begun, events, broken = time.monotonic(), 0, 0
    for seed in range(first, first + seeds):
        world = World(seed, harsh=harsh)
        try:
            world.run()
        except BaseException as error:
            broken += 1
            print(f"seed {seed}: {type(error).__name__}: {error}")
        events += world.events
    print(f"{seeds} seeds, {events} events, {broken} broken, {time.monotonic() - begun:.1f} s")
    return int(broken > 0)


def main() -> int:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="print the trace of this one")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="where to begin")
    parser.add_argument("--harsh", action="store_true", help="pause in the middle of writes, and answer slowly")
    given = parser.parse_args()
    if given.seed is not None:
        return one(given.seed, harsh=given.harsh)
    return many(given.first, given.seeds, harsh=given.harsh)


if __name__ == "__main__":
    sys.exit(main())
