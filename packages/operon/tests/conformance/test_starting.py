"""A start happens once, whoever asks and however often."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from conformance.world import EXACT, World, start, together
from operon.core.commands import Count, Describe
from operon.core.rows import Filter, Guard, Outcome
from operon.core.states import Status


def test_a_start_is_there_once_it_is_answered(world: World) -> None:
    assert world.start("w").created
    row = world.row("w")
    assert (row.status, row.claim, row.attempts, row.takeovers) == ("queued", 0, 0, 0)
    assert (row.started_at, row.ended_at, row.executor, row.output, row.error) == (None,) * 5
    assert row.ready_at == pytest.approx(row.created_at, abs=1e-3)


def test_a_start_with_an_executor_runs_at_once_under_claim_one(world: World) -> None:
    executor = world.enlist()
    assert world.start("w", executor=executor).outcome == Outcome(Status.RUNNING)
    row = world.row("w")
    assert (row.status, row.claim, row.attempts, row.executor) == ("running", 1, 1, executor)
    assert row.ready_at is None
    assert row.started_at == pytest.approx(row.created_at, abs=1e-3)


def test_a_second_start_joins_the_first_and_changes_nothing(world: World) -> None:
    """What is there is told as it stands, so that the caller can compare name and digest."""
    guard = world.run("w", name="greet", digest="first")
    world.end(guard, Outcome(Status.SUCCEEDED, output="42"))
    before = world.row("w")
    second = world.start("w", name="other", digest="second", input="[2]")
    assert (second.created, second.refused) == (False, False)
    assert (second.name, second.digest) == ("greet", "first")
    assert second.outcome == Outcome(Status.SUCCEEDED, output="42")
    assert world.row("w") == before


def test_a_repeated_start_with_my_nonce_is_mine(world: World) -> None:
    """A commit whose answer was lost is repeated: the caller must learn that the insert was its own."""
    first = start("w")
    assert [world.ask(first).created, world.ask(first).created] == [True, True]
    assert world.ask(Count(Filter())) == 1


def test_of_many_who_start_one_key_one_creates_it(world: World) -> None:
    answers = together([lambda: world.start("w")] * 8)
    assert sorted(answer.created for answer in answers) == [False] * 7 + [True]


@pytest.mark.parametrize("claim", [0, 2])
def test_a_child_of_a_parent_that_lost_its_claim_is_refused(world: World, claim: int) -> None:
    world.run("parent")
    answer = world.start("child", parent=Guard("parent", claim))
    assert (answer.created, answer.refused) == (False, True)
    assert world.ask(Describe("child")) is None


def test_a_child_of_a_parent_that_has_ended_or_never_was_is_refused(world: World) -> None:
    guard = world.run("parent")
    world.end(guard)
    assert world.start("child", parent=guard).refused
    assert world.start("child", parent=Guard("nobody", 1)).refused
    assert world.ask(Describe("child")) is None


def test_a_child_of_a_running_parent_is_started(world: World) -> None:
    guard = world.run("parent")
    assert world.start("child", parent=guard, root="parent").created
    assert (world.row("child").parent, world.row("child").root) == ("parent", "parent")


@pytest.mark.parametrize(
    ("timeout", "inherited"), [(None, None), (600.0, None), (None, 300.0), (600.0, 300.0), (300.0, 600.0)]
)
def test_the_earlier_of_timeout_and_inherited_deadline_counts(
    world: World, timeout: float | None, inherited: float | None
) -> None:
    deadline = None if inherited is None else world.now() + inherited
    world.start("w", timeout=timeout, deadline=deadline)
    row = world.row("w")
    own = None if timeout is None else row.created_at + timeout
    earlier = min((it for it in (own, deadline) if it is not None), default=None)
    assert row.deadline == (None if earlier is None else pytest.approx(earlier, rel=0, abs=EXACT))


def test_every_field_is_kept(world: World) -> None:
    kept = {
        "name": "Billing.charge",
        "input": '{"a": 1.50}',
        "digest": "abc",
        "instance": "Billing/eu",
        "user": "ada",
        "roles": ("clerk", "admin"),
        "request_id": "r-1",
        "traceparent": "00-1-2-03",
        "version": "v7",
        "pin": "v7",
        "attributes": '{"tenant": "acme", "size": 3}',
    }
    world.start("w", **kept)
    row = world.row("w")
    assert {name: getattr(row, name) for name in kept} == kept


def test_ids_that_differ_by_case_or_accent_differ(world: World) -> None:
    """Ids compare byte by byte on every store."""
    keys = ["a", "A", "é", "e\u0301", " a", "a "]
    assert all(world.start(key).created for key in keys)
    assert {world.row(key).id for key in keys} == set(keys)


def test_a_start_does_not_depend_on_what_another_nonce_said(world: World) -> None:
    first = start("w")
    world.ask(first)
    assert not world.ask(replace(first, row=replace(first.row, nonce=first.row.nonce + 1_000_000))).created
