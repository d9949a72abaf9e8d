"""A cancelled tree has no survivors, and what has ended is left alone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from conformance.world import World, step, together
from operon.core.commands import Cancel, Count
from operon.core.rows import Filter, Guard, Outcome, Park, Started
from operon.core.states import ENDED, Status

if TYPE_CHECKING:
    from collections.abc import Callable

LIVE = tuple(status for status in Status if status not in ENDED)


@pytest.mark.parametrize("end", [None, Park(None), Park(1.0), Outcome(Status.QUEUED), Outcome(Status.HELD, error="{}")])
def test_whatever_lives_can_be_cancelled(world: World, end: Outcome | Park | None) -> None:
    guard = world.run()
    world.write(guard, end=end)
    assert len(world.ask(Cancel("w"))) == 1
    row = world.row()
    assert (row.status, row.output, row.error, row.ready_at) == ("cancelled", None, None, None)
    assert row.ended_at is not None
    world.pass_time(1e6)
    assert world.claim(world.enlist()) == []


def test_the_owner_of_what_was_cancelled_is_fenced(world: World) -> None:
    guard = world.run()
    world.ask(Cancel("w"))
    assert not world.write(guard, step(), end=Outcome(Status.SUCCEEDED, output="1")).written
    assert (world.status(), world.positions()) == ("cancelled", [])


@pytest.mark.parametrize("status", sorted(ENDED))
def test_what_has_ended_is_left_alone(world: World, status: Status) -> None:
    world.end(world.run(), Outcome(status, output="1"))
    before = world.row()
    world.ask(Cancel("w"))
    assert world.row() == before


def test_nobody_is_cancelled_for_an_unknown_id(world: World) -> None:
    world.run()
    assert world.ask(Cancel("nobody")) == ()


def test_all_that_descends_is_cancelled_with_it_even_below_what_has_ended(world: World) -> None:
    root = world.run("root")
    done = world.run("done", parent=root)
    world.run("grandchild", parent=done)
    world.end(done)
    world.start("queued", parent=root)
    world.run("stranger")
    assert len(world.ask(Cancel("root"))) == 3
    statuses = {key: world.status(key) for key in ("root", "done", "grandchild", "queued", "stranger")}
    assert statuses == {
        "root": "cancelled",
        "done": "succeeded",
        "grandchild": "cancelled",
        "queued": "cancelled",
        "stranger": "running",
    }


def test_whoever_cancels_is_told_the_claims_of_the_tree_that_are_over(world: World) -> None:
    """Also if another had cancelled it before: who runs it may not have been told yet. What ended otherwise is not."""
    root = world.run("root")
    child = world.run("child", parent=root)
    world.end(world.run("done", parent=root))
    first, second = world.ask(Cancel("root")), world.ask(Cancel("root"))
    assert set(first) == set(second) == {root, child}
    assert world.ask(Cancel("done")) == ()


def test_whoever_replaces_another_is_told_the_claims_that_are_over(world: World) -> None:
    old = world.run("old", dedupe="d")
    child = world.run("child", parent=old)
    assert set(world.start("new", dedupe="d", replace=True).replaced) == {old, child}
    assert world.start("other", dedupe="e", replace=True).replaced == ()


def test_children_are_spared_if_told_so(world: World) -> None:
    root = world.run("root")
    world.run("child", parent=root)
    assert len(world.ask(Cancel("root", children=False))) == 1
    assert world.status("child") == "running"


def test_a_deep_tree_is_cancelled_to_its_leaves(world: World) -> None:
    guard = world.run("w0")
    for depth in range(1, 50):
        guard = world.run(f"w{depth}", parent=guard)
    assert len(world.ask(Cancel("w0"))) == 50


def test_no_child_is_started_by_a_parent_that_was_cancelled(world: World) -> None:
    """Children start while the tree is being cancelled: each is refused or cancelled, none survives."""
    for turn in range(5):
        parent = world.run(f"parent{turn}")

        starts = [partial(world.start, f"{turn}/{n}", parent=parent) for n in range(6)]
        cancel = partial(world.ask, Cancel(parent.workflow_id))
        with_cancel: list[Callable[[], Started | tuple[Guard, ...]]] = [*starts, cancel]
        *answers, cancelled = together(with_cancel)
        started = [isinstance(answer, Started) and answer.created for answer in answers]
        assert isinstance(cancelled, tuple)
        assert len(cancelled) == 1 + sum(started)
        assert world.ask(Count(Filter(status=LIVE))) == 0
