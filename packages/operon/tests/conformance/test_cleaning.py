"""Whose end its body has not heard of is handed out for its clean-up: to one at a time, and three times at most."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.world import NAMES, SUCCESS, World, step
from operon.core.commands import Cancel, Cleaned, CleanUp, HandBack, Sweep
from operon.core.rows import Guard, Outcome, Park, Policy
from operon.core.states import Status

EACH = ("a", "b", "c", "p", "w")
"""All who may be cleaned up already where somebody looks again."""


def take(
    world: World, executor: int, limit: int = 10, names: tuple[str, ...] = NAMES, here: tuple[str, ...] = EACH
) -> list[str]:
    """Take clean-ups, and say whose; the pulse says before whether there are any."""
    untidy = world.pulse(executor).untidy
    found = [it.row.id for it in world.ask(CleanUp(executor, names, (), "", limit, here))]
    assert untidy or not found
    return found


def asleep(world: World, key: str = "w") -> int:
    guard = world.run(key)
    assert world.write(guard, step("1"), end=Park(None, ())).parked
    return guard.claim


def test_who_slept_when_it_was_cancelled_is_cleaned_up_once(world: World) -> None:
    asleep(world)
    me, other = world.enlist(), world.enlist()
    assert take(world, me) == []
    world.ask(Cancel("w"))
    (claimed,) = world.ask(CleanUp(me, NAMES, (), "", 10))
    assert (claimed.row.id, claimed.row.status, [it.position for it in claimed.journal]) == ("w", "cancelled", ["1"])
    assert take(world, other) == take(world, me) == []
    world.ask(Cleaned(other, "w"))
    world.ask(Cleaned(me, "w"))
    world.kill(me)
    assert take(world, other) == []
    assert world.status() == "cancelled"


@pytest.mark.parametrize("later", [0, 1])
def test_whose_body_heard_before_it_had_left_is_cleaned_up(world: World, later: int) -> None:
    """It was parked already, so nobody was to run it; what another claim has heard says nothing of this one."""
    claim = asleep(world)
    me, other = world.enlist(), world.enlist()
    world.ask(Cancel("w"))
    world.ask(Cleaned(me, "w", claim + later))
    assert take(world, other) == (["w"] if later else [])


def test_whose_cleaner_died_is_cleaned_up_again_three_times_at_most(world: World) -> None:
    asleep(world)
    world.ask(Cancel("w"))
    for _ in range(3):
        cleaner = world.enlist()
        assert take(world, cleaner) == ["w"]
        world.kill(cleaner)
    assert take(world, world.enlist()) == []


@pytest.mark.parametrize("how", ["queued", "held", "ended", "handed back"])
def test_only_who_had_begun_has_something_to_clean_up(world: World, how: str) -> None:
    me = world.enlist()
    if how == "queued":
        world.start()
    else:
        guard = world.run(executor=me)
        if how == "ended":
            world.end(guard, SUCCESS)
        if how == "held":
            world.end(guard, Outcome(Status.HELD))
        if how == "handed back":
            world.ask(HandBack(me))
    world.ask(Cancel("w"))
    assert take(world, me) == (["w"] if how == "handed back" else [])


@pytest.mark.parametrize("dies", [True, False])
def test_who_ran_when_it_was_cancelled_is_its_executors_while_that_lives(world: World, *, dies: bool) -> None:
    me, other = world.enlist(), world.enlist()
    world.write(world.run(executor=me), step("1"))
    world.ask(Cancel("w"))
    assert take(world, me) == take(world, other) == []
    if not dies:
        world.ask(Cleaned(other, "w"))
        world.ask(Cleaned(me, "w"))
    world.kill(me)
    assert take(world, other) == (["w"] if dies else [])


def test_an_executor_takes_again_what_is_its_own_and_not_there(world: World) -> None:
    me, other = world.enlist(), world.enlist()
    world.run(executor=me)
    world.ask(Cancel("w"))
    assert take(world, other) == take(world, me, here=("v", "w")) == []
    assert take(world, me, here=("v",)) == ["w"]


def test_a_tree_is_cleaned_up_each_by_itself(world: World) -> None:
    parent = world.run("p")
    world.run("c", parent=parent, root="p")
    world.end(Guard("c", 1), Park(None, ()))
    world.end(parent, Park(None, ("c",)))
    world.ask(Cancel("p"))
    assert sorted(take(world, world.enlist())) == ["c", "p"]


def test_a_clean_up_is_for_who_can_do_it(world: World) -> None:
    for key in ("a", "b", "c"):
        asleep(world, key)
        world.ask(Cancel(key))
    me = world.enlist()
    assert take(world, me, names=("elsewhere",)) == []
    assert len(take(world, me, limit=2)) == 2
    assert len(take(world, me, limit=2)) == 1


def test_a_clean_up_that_nobody_begins_is_forgotten_after_an_hour(world: World) -> None:
    asleep(world)
    world.ask(Cancel("w"))
    world.pass_time(3590)
    assert world.pulse(0).untidy
    world.pass_time(20)
    assert take(world, world.enlist()) == []
    assert not world.pulse(0).untidy


@pytest.mark.parametrize("entries", [0, 1, 2])
def test_an_end_says_who_is_to_clean_up(world: World, entries: int) -> None:
    """The executor that runs it, for as long as that lives; or anybody; or, as where it ends by itself, nobody."""
    me, other = world.enlist(), world.enlist()
    for key, cleaner in (("a", me), ("b", 0), ("c", None)):
        recorded = [step(str(number + 1)) for number in range(entries)]
        end = Outcome(Status.FAILED, error="{}", cleaner=cleaner)
        assert world.write(world.run(key, executor=me), *recorded, end=end).written
    assert take(world, other) == ["b"]
    world.kill(me)
    assert take(world, other) == ["a"]


def test_what_is_still_to_be_cleaned_up_keeps_its_record(world: World) -> None:
    asleep(world)
    world.ask(Cancel("w"))
    policy: Any = Policy("greet", Status.CANCELLED, 0.0)
    world.pass_time(1)
    assert world.ask(Sweep((policy,), 10)).gone == 0
    me = world.enlist()
    assert take(world, me) == ["w"]
    assert world.ask(Sweep((policy,), 10)).gone == 0
    world.ask(Cleaned(me, "w"))
    assert world.ask(Sweep((policy,), 10)).gone == 1
