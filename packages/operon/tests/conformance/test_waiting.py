"""Waiting costs a row, and nobody sleeps when what it waits for is over."""

from __future__ import annotations

from functools import partial

import pytest

from conformance.world import SUCCESS, World, step, together
from operon.core.commands import Cancel, Wake
from operon.core.rows import Guard, Outcome, Park
from operon.core.states import Status


def test_a_sleeper_is_ready_at_its_instant_and_not_before(world: World) -> None:
    world.sleep("w", until=world.now() + 60)
    row = world.row()
    assert (row.status, row.executor, row.claim) == ("waiting", None, 1)
    executor = world.enlist()
    assert world.claim(executor) == []
    world.pass_time(61)
    assert world.claim(executor) == ["w"]
    assert (world.status(), world.row().claim) == ("running", 2)


def test_who_waits_for_nothing_sleeps_until_it_is_cancelled(world: World) -> None:
    world.sleep("w")
    world.pass_time(1e6)
    assert world.claim(world.enlist()) == []
    assert world.ask(Wake(None)) == 0


def test_the_end_then_the_park_does_not_sleep(world: World) -> None:
    """The run goes on under its claim: nothing would ever wake it."""
    world.end(world.run("child"))
    guard = world.run("parent")
    answer = world.write(guard, step(), end=Park(None, ("child",)))
    assert (answer.written, answer.parked) == (True, False)
    assert (world.status("parent"), world.positions("parent")) == ("running", ["1"])
    assert world.write(guard, step("2")).written


def test_the_park_then_the_end_is_woken(world: World) -> None:
    child = world.run("child")
    world.sleep("parent", "child")
    world.end(child)
    assert world.ask(Wake(("child",))) == 1
    assert world.claim(world.enlist()) == ["parent"]


def test_one_of_several_suffices(world: World) -> None:
    first, second = world.run("a"), world.run("b")
    world.sleep("p", "a", "b", until=world.now() + 1e6)
    world.end(second)
    assert world.ask(Wake(("b",))) == 1
    assert not world.end(world.run("q"), Park(None, ("a", "b"))).parked
    assert world.end(first).written


def test_what_is_not_there_is_not_waited_for(world: World) -> None:
    world.run("child")
    assert not world.end(world.run("parent"), Park(None, ("child", "nobody"))).parked


def test_what_is_held_is_not_waited_for(world: World) -> None:
    """Who waits for it is told at once: only a person lets it go on."""
    sleeper = world.run("child")
    world.sleep("early", "child")
    world.end(sleeper, Outcome(Status.HELD))
    assert world.pulse(world.enlist()).stirred
    assert world.ask(Wake(None)) == 1
    assert not world.end(world.run("late"), Park(None, ("child",))).parked


@pytest.mark.parametrize("end", [Outcome(Status.QUEUED), Park(None)])
def test_what_has_not_ended_is_waited_for(world: World, end: Outcome | Park) -> None:
    world.end(world.run("child"), end)
    assert world.end(world.run("parent"), Park(None, ("child",))).parked


def test_a_wake_reaches_those_who_await_it_and_nobody_else(world: World) -> None:
    for key in ("a", "b"):
        world.run(key)
    for key, awaits in {"p": "a", "q": "a", "r": "b"}.items():
        world.sleep(key, awaits)
    assert world.ask(Wake(("a", "nobody"))) == 2
    assert sorted(world.claim(world.enlist())) == ["p", "q"]
    assert world.ask(Wake(())) == 0


def test_a_wake_counts_those_it_makes_ready(world: World) -> None:
    """A second one finds nobody asleep, nor does one that comes when the instant has passed."""
    world.run("a")
    world.sleep("p", "a", until=world.now() + 60)
    world.sleep("q", "a")
    world.pass_time(61)
    assert [world.ask(Wake(("a",))), world.ask(Wake(("a",)))] == [1, 0]


def test_a_quiet_success_wakes_nobody(world: World) -> None:
    executor, first, last = world.enlist(), world.run("a"), world.run("b")
    assert world.end(world.run("p"), Park(None, ("a", "b"), quiet=("a",))).parked
    world.end(first)
    assert not world.pulse(executor).stirred
    assert [world.ask(Wake(("a",))), world.ask(Wake(None))] == [0, 0]
    world.end(last)
    assert world.pulse(executor).stirred
    assert world.ask(Wake(None)) == 1
    assert not world.pulse(executor).stirred


@pytest.mark.parametrize("end", [Outcome(Status.FAILED, error="{}"), Outcome(Status.HELD, error="{}"), None])
@pytest.mark.parametrize("targets", [("a",), None])
def test_whatever_else_becomes_of_it_wakes(world: World, end: Outcome | None, targets: tuple[str, ...] | None) -> None:
    executor, guard = world.enlist(), world.run("a")
    world.run("b")
    world.end(world.run("p"), Park(None, ("a", "b"), quiet=("a",)))
    if end is None:
        world.ask(Cancel("a"))
    else:
        world.end(guard, end)
    assert world.pulse(executor).stirred
    assert world.ask(Wake(targets)) == 1
    assert not world.pulse(executor).stirred


def test_a_success_that_is_quiet_for_one_wakes_the_other(world: World) -> None:
    executor, guard = world.enlist(), world.run("a")
    world.run("b")
    world.end(world.run("p"), Park(None, ("a", "b"), quiet=("a",)))
    world.sleep("q", "a")
    world.end(guard)
    assert world.ask(Wake(None)) == 1
    assert not world.pulse(executor).stirred
    assert world.claim(executor) == ["q"]


def test_nobody_parks_quietly_for_what_is_over(world: World) -> None:
    world.end(world.run("a"))
    world.run("b")
    assert not world.end(world.run("p"), Park(None, ("a", "b"), quiet=("a",))).parked


def test_who_was_claimed_awaits_nothing_any_more(world: World) -> None:
    world.run("a")
    world.sleep("p", "a")
    world.ask(Wake(("a",)))
    executor = world.enlist()
    world.claim(executor)
    world.end(Guard("p", 2), Park(None))
    assert world.ask(Wake(("a",))) == 0


def test_a_lost_wake_is_seen_by_the_pulse_and_made_up_for(world: World) -> None:
    """The one who ended the child died before it could wake the parent."""
    executor, child = world.enlist(), world.run("child")
    world.sleep("parent", "child")
    world.sleep("other", "parent")
    assert not world.pulse(executor).stirred
    world.end(child)
    assert world.pulse(executor).stirred
    assert world.ask(Wake(None)) == 1
    assert not world.pulse(executor).stirred
    assert world.claim(executor) == ["parent"]


def test_a_cancelled_workflow_wakes_who_awaits_it_and_is_woken_by_nobody(world: World) -> None:
    world.run("child")
    world.sleep("parent", "child")
    world.sleep("other", "parent")
    world.ask(Cancel("parent", children=False))
    assert world.ask(Wake(None)) == 1
    assert world.claim(world.enlist()) == ["other"]


def test_a_fenced_park_does_not_sleep(world: World) -> None:
    guard = world.run()
    world.ask(Cancel("w"))
    assert world.end(guard, Park(None)) == world.end(Guard("nobody", 1), Park(None))
    assert world.status() == "cancelled"


def test_nobody_sleeps_through_an_end_that_races_with_its_park(world: World) -> None:
    """Send and park in every order: who parked before the end is woken after it, who comes later does not park."""
    for turn in range(10):
        child = world.run(f"child{turn}")
        parents = [world.run(f"parent{turn}.{n}") for n in range(4)]

        parks = [partial(_park, world, parent, child) for parent in parents]
        *parked, _ = together([*parks, partial(_end_and_wake, world, child)])
        asleep = [parent.workflow_id for parent, slept in zip(parents, parked, strict=True) if slept]
        assert sorted(world.claim(world.enlist())) == asleep


def _park(world: World, parent: Guard, child: Guard) -> bool:
    return world.end(parent, Park(None, (child.workflow_id,))).parked


def _end_and_wake(world: World, child: Guard) -> bool:
    world.end(child, SUCCESS)
    return world.ask(Wake((child.workflow_id,))) > 0
