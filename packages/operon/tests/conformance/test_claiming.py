"""Whoever claims a ready row runs it, and nobody else does."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest

from conformance.world import World, claim, step, together
from operon.core.commands import HandBack, Load, Running
from operon.core.rows import Outcome, Park
from operon.core.states import Status


def test_the_oldest_ready_comes_first(world: World) -> None:
    for key in ("c", "a", "b"):
        world.start(key)
        world.pass_time(1)
    executor = world.enlist()
    assert [world.claim(executor, 2), world.claim(executor, 2)] == [["c", "a"], ["b"]]


def test_what_became_ready_first_comes_first_however_it_did(world: World) -> None:
    """Starts, sleepers and what was handed back stand in one line."""
    world.sleep("sleeper", until=world.now() + 100)
    guard = world.run("busy")
    world.start("delayed", delay=5)
    world.pass_time(200)
    world.start("fresh")
    world.pass_time(1)
    world.end(guard, Outcome(Status.QUEUED))
    assert world.claim(world.enlist()) == ["delayed", "sleeper", "fresh", "busy"]


def test_a_claimed_row_is_given_as_it_stands(world: World) -> None:
    world.start("w", input="[42]", attributes='{"a": 1}', roles=("x",))
    executor = world.enlist()
    (it,) = world.ask(claim(executor))
    row = it.row
    assert row == world.row("w")
    assert it.journal == ()
    assert (row.status, row.claim, row.attempts, row.executor) == ("running", 1, 1, executor)
    assert (row.ready_at, row.ended_at) == (None, None)


def test_who_claims_is_given_each_journal(world: World) -> None:
    """As it stands once the claim has fenced the last owner: nothing else has to be read to go on."""
    executor = world.enlist()
    for key in ("a", "b", "c"):
        guard = world.run(key, executor=executor)
        world.write(guard, *(step(str(n), 3 - n) for n in (2, 1) if key != "b"))
    world.start("fresh")
    world.ask(HandBack(executor))
    claimed = {it.row.id: it.journal for it in world.ask(claim(world.enlist()))}
    assert claimed == {key: world.ask(Load(key)) for key in ("a", "b", "c", "fresh")}
    assert [entry.position for entry in claimed["a"]] == ["2", "1"]
    assert claimed["b"] == claimed["fresh"] == ()


def test_each_claim_has_a_greater_number_and_the_first_start_is_kept(world: World) -> None:
    world.start("w")
    executor, starts = world.enlist(), list[float | None]()
    for number in (1, 2, 3):
        (it,) = world.ask(claim(executor))
        row = it.row
        assert (row.claim, row.attempts) == (number, number)
        starts.append(row.started_at)
        world.ask(HandBack(executor))
        world.pass_time(1)
    assert starts[0] is not None
    assert len(set(starts)) == 1


@pytest.mark.parametrize(
    ("row", "claimer", "taken"),
    [
        ({"name": "greet"}, {"names": ("greet",)}, True),
        ({"name": "greet"}, {"names": ("other", "greet")}, True),
        ({"name": "greet"}, {"names": ("other",)}, False),
        ({"name": "greet"}, {"names": ()}, False),
        ({"instance": "Billing/eu"}, {"instances": ("Billing/us", "Billing/eu")}, True),
        ({"instance": "Billing/eu"}, {"instances": ("Billing/us",)}, False),
        ({"instance": "Billing/eu"}, {"instances": ()}, False),
        ({"pin": "v1", "version": "v1"}, {"version": "v1"}, True),
        ({"pin": "v1", "version": "v1"}, {"version": "v2"}, False),
        ({"version": "v1"}, {"version": "v2"}, True),
    ],
)
def test_a_process_claims_only_what_it_can_run(
    world: World, row: dict[str, str], claimer: dict[str, Any], taken: bool
) -> None:
    world.start("w", **row)
    assert world.claim(world.enlist(), **claimer) == (["w"] if taken else [])


def test_a_delayed_start_waits_for_its_time(world: World) -> None:
    world.start("w", delay=60)
    executor = world.enlist()
    assert world.claim(executor) == []
    world.pass_time(61)
    assert world.claim(executor) == ["w"]


@pytest.mark.parametrize(
    "end",
    [Outcome(Status.SUCCEEDED), Outcome(Status.FAILED), Outcome(Status.CANCELLED), Outcome(Status.HELD), Park(None)],
)
def test_what_is_over_held_or_asleep_is_not_claimed(world: World, end: Outcome | Park) -> None:
    world.end(world.run(), end)
    world.run("busy")
    assert world.claim(world.enlist()) == []


def test_two_claimers_never_share_a_row(world: World) -> None:
    keys = [f"w{n:02}" for n in range(60)]
    for key in keys:
        world.start(key)
    executors = [world.enlist() for _ in range(8)]

    def take_all(executor: int) -> list[str]:
        taken = list[str]()
        while batch := world.claim(executor, 3):
            taken += batch
        return taken

    taken = together([partial(take_all, executor) for executor in executors])
    world_wide = Counter(key for some in taken for key in some)
    # Whoever found only rows that others had locked has left early, so something may be left.
    world_wide.update(take_all(executors[0]))
    assert world_wide == Counter(keys)
    assert {row.id for e in executors for row in world.ask(Running(e))} == set(keys)


def test_a_claim_brings_no_more_journals_than_there_is_room_for(world: World) -> None:
    """What is behind them stays ready, for whoever has room; the first always comes, however large it is."""
    for key in "abcd":
        guard = world.run(key)
        assert world.write(guard, step("1", output=f'"{"x" * 998}"'), end=Park(world.now() - 1)).parked
    world.start("fresh")
    world.pass_time(1)
    me, other = world.enlist(), world.enlist()
    found = world.ask(claim(me, room=1500))
    assert [(it.row.id, it.weight) for it in found] == [("a", 1000), ("b", 1000)]
    assert sorted(key for key in ("c", "d", "fresh") if world.status(key) == "queued") == ["c", "d", "fresh"]
    (huge,) = world.ask(claim(other, room=1, limit=2))
    assert huge.row.id in {"c", "d", "fresh"}
    assert len(world.ask(claim(other, room=10_000))) == 2
