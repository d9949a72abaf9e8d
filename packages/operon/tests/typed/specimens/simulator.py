"""The simulator, as its page has it."""

from __future__ import annotations

from typing import assert_type

from operon.testing.simulate import LawBroken, World, simulate

assert_type(simulate(1), World)
world = World(1, trace=True, moment=7, then="pauses")
assert_type(world.trace, list[str] | None)
world.run()
assert issubclass(LawBroken, AssertionError)
simulate("1")  # E
World(1, then="vanishes")  # E
