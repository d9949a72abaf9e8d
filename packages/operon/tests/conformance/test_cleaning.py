"""Who ended while no process ran it is handed out for its clean-up: to one at a time, and three times at most."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.world import NAMES, SUCCESS, World, step
from operon.core.commands import Cancel, Cleaned, CleanUp, HandBack, Sweep, Tidy
from operon.core.rows import Guard, Outcome, Park, Policy
from operon.core.states import Status


def take(world: World, executor: int, limit: int = 10, names: tuple[str, ...] = NAMES) -> list[str]:
    """Take clean-ups, and say whose; the pulse says before whether there are any."""
    untidy = world.pulse(executor).untidy
    found = [it.row.id for it in world.ask(CleanUp(executor, names, (), "", limit))]
    assert untidy or not found
    return found


def asleep(world: World, key: str = "w") -> None:
    guard = world.run(key)
    assert world.write(guard, step("1"), end=Park(None, ())).parked


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


def test_whose_cleaner_died_is_cleaned_up_again_three_times_at_most(world: World) -> None:
    asleep(world)
    world.ask(Cancel("w"))
    for _ in range(3):
        cleaner = world.enlist()
        assert take(world, cleaner) == ["w"]
        world.kill(cleaner)
    assert take(world, world.enlist()) == []


@pytest.mark.parametrize("how", ["queued", "running", "ended", "handed back"])
def test_only_who_had_begun_and_is_not_run_has_something_to_clean_up(world: World, how: str) -> None:
    me = world.enlist()
    if how == "queued":
        world.start()
    else:
        guard = world.run(executor=me)
        if how == "ended":
            world.end(guard, SUCCESS)
        if how == "handed back":
            world.ask(HandBack(me))
    world.ask(Cancel("w"))
    assert take(world, me) == (["w"] if how == "handed back" else [])


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


def test_who_passed_its_deadline_asleep_cleans_up_once_it_has_ended(world: World) -> None:
    asleep(world)
    me = world.enlist()
    world.ask(Tidy("w", 99))
    guard = world.run("v")
    world.ask(Tidy("v", guard.claim))
    assert take(world, me) == []
    world.end(guard, Outcome(Status.FAILED, error="{}"))
    assert take(world, me) == ["v"]


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
