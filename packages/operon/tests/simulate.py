"""Simulate one seed and print its trace, or many and count: `make simulate SEED=4711`, `make simulate SEEDS=10000`."""

from __future__ import annotations

import argparse
import sys
import time

from operon.testing.simulate import World


def one(seed: int) -> int:
    """Run a world, and print all that happened in it."""
    world = World(seed, trace=True)
    failure: BaseException | None = None
    try:
        world.run()
    except BaseException as error:
        failure = error
    print(*world.trace or (), sep="\n")
    if failure is not None:
        print(f"seed {seed}: {type(failure).__name__}: {failure}", file=sys.stderr)
    return int(failure is not None)


def many(first: int, seeds: int) -> int:
    """Run worlds, and print which broke a law."""
    begun, events, broken = time.process_time(), 0, 0
    for seed in range(first, first + seeds):
        world = World(seed)
        try:
            world.run()
        except BaseException as error:
            broken += 1
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
        events += world.events
    print(f"{seeds} seeds, {events} events, {broken} broken, {time.process_time() - begun:.1f} s of the processor")
    return int(broken > 0)


def main() -> int:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="print the trace of this one")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="where to begin")
    given = parser.parse_args()
    return many(given.first, given.seeds) if given.seed is None else one(given.seed)


if __name__ == "__main__":
    sys.exit(main())
