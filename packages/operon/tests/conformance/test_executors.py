"""A process lives as long as its lease, and what the dead held is run by others."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from conformance.world import TTL, Left, World, claim, process, step
from operon.core.commands import Bury, Enlist, Executors, HandBack, Retire, Running, TakeOver
from operon.core.rows import Guard, Outcome, Park, Peer
from operon.core.states import Status

POISON = TakeOver(limit=100, poison=3, error='{"type": "Poison"}')


def test_every_executor_has_an_id_of_its_own(world: World) -> None:
    first = world.enlist()
    world.ask(Retire(first))
    assert len({first, world.enlist(), world.enlist()}) == 3


def test_an_executor_is_listed_as_it_enlisted_the_living_first(world: World) -> None:
    dead, alive = world.enlist(), world.ask(Enlist(replace(process(), pid=7, born="boot:7")))
    world.ask(Retire(dead))
    whole = Left(TTL)
    world.pulse(alive)
    peers = world.ask(Executors())
    assert [(peer.id, peer.alive, peer.beat) for peer in peers] == [(alive, True, 1), (dead, False, 0)]
    lease = peers[0].lease_until
    assert lease - world.now() == whole
    assert peers[0] == Peer(alive, 1, "shop", "here", 7, "boot:7", alive=True, lease_until=lease, version="v1")


def test_a_beat_renews_the_lease(world: World) -> None:
    executor = world.enlist()
    for _ in range(3):
        world.pass_time(TTL - 1)
        assert world.pulse(executor).alive
    assert world.pulse(world.enlist()).expired == ()


def test_a_pulse_counts_what_the_database_says_i_run(world: World) -> None:
    """Also a claim whose acknowledgement was lost: nobody here knows of it, and the listing names it."""
    executor = world.enlist()
    assert world.pulse(executor).running == 0
    world.run("w", executor=executor)
    world.start("lost")
    world.ask(claim(executor))
    world.run("foreign")
    assert world.pulse(executor).running == 2
    assert [(row.id, row.claim) for row in world.ask(Running(executor))] == [("lost", 1), ("w", 1)]
    assert world.ask(HandBack(executor, (Guard("lost", 1),))) == 1
    assert world.claim(executor) == ["lost"]


def test_a_pulse_tells_when_the_next_row_is_ready(world: World) -> None:
    executor = world.enlist()
    assert world.pulse(executor).due is None
    later = Left(100)
    world.sleep("w", until=world.now() + 100)
    world.sleep("never")
    assert world.pulse(executor).due == later
    sooner = Left(50)
    world.start("soon", delay=50)
    assert world.pulse(executor).due == sooner
    world.pass_time(60)
    assert (world.pulse(executor).due or 1) <= 0
    world.claim(executor)
    assert world.pulse(executor).due == later.after(60)


def test_a_pulse_shows_whose_lease_has_run_out(world: World) -> None:
    silent, observer = world.enlist(), world.enlist(ttl=1000)
    world.pulse(silent)
    assert world.pulse(observer).expired == ()
    world.pass_time(TTL + 1)
    assert world.pulse(observer).expired == ((silent, 1),)
    world.kill(silent)
    assert world.pulse(observer).expired == ()


def test_the_dead_stay_dead(world: World) -> None:
    """A process that was only paused learns from its next beat that it must stop, and its lease is not renewed."""
    executor = world.enlist()
    world.kill(executor)
    assert not world.pulse(executor).alive
    assert not world.pulse(executor).alive
    assert [(peer.alive, peer.beat) for peer in world.ask(Executors())] == [(False, 0)]
    assert not world.pulse(99).alive


def test_a_living_lease_protects(world: World) -> None:
    executor = world.enlist()
    assert world.ask(Bury(((executor, 0),))) == 0
    world.pass_time(TTL + 1)
    assert world.ask(Bury(((executor, 0), (99, 0)))) == 1
    assert world.ask(Bury(((executor, 0),))) == 0


@pytest.mark.parametrize("proven", [False, True])
def test_a_beat_that_moved_protects(world: World, proven: bool) -> None:
    """The observer saw an older beat: the executor was slow, not dead."""
    executor = world.enlist()
    world.pulse(executor)
    world.pass_time(TTL + 1)
    assert world.ask(Bury(((executor, 0),), proven=proven)) == 0
    assert world.ask(Bury(((executor, 1),), proven=proven)) == 1


def test_a_proven_death_waits_for_no_lease(world: World) -> None:
    executor = world.enlist()
    assert world.ask(Bury(((executor, 0),), proven=True)) == 1


def test_what_the_dead_held_is_requeued_and_their_claim_fenced(world: World) -> None:
    dead, alive = world.enlist(), world.enlist()
    guard = world.run("orphan", executor=dead)
    world.run("busy", executor=alive)
    world.start("queued")
    world.kill(dead)
    assert world.ask(POISON) == 1
    row = world.row("orphan")
    assert (row.status, row.executor, row.takeovers, row.attempts) == ("queued", None, 1, 1)
    assert row.claim > guard.claim
    assert world.write(guard, step()).written is False
    assert (world.status("busy"), world.status("queued")) == ("running", "queued")
    assert world.ask(POISON) == 0


def test_a_claim_that_the_dead_made_late_is_found_too(world: World) -> None:
    """Takeover is a query over what the dead hold, not a consequence of their death."""
    dead, observer = world.enlist(), world.enlist()
    world.kill(dead)
    world.ask(POISON)
    assert not world.pulse(observer).stirred
    world.run("late", executor=dead)
    assert world.pulse(observer).stirred
    assert world.ask(POISON) == 1
    assert not world.pulse(observer).stirred
    assert world.status("late") == "queued"


def test_takeovers_are_taken_in_portions(world: World) -> None:
    dead = world.enlist()
    for n in range(5):
        world.run(f"w{n}", executor=dead)
    world.kill(dead)
    portions = [world.ask(TakeOver(limit=2, poison=3, error="{}")) for _ in range(4)]
    assert portions == [2, 2, 1, 0]


def test_what_kills_its_executors_comes_back_later_each_time_and_is_held_in_the_end(world: World) -> None:
    world.start("w")
    for seconds in (0, 1, 3):
        executor = world.enlist()
        assert world.claim(executor) == ["w"]
        world.kill(executor)
        delay = Left(seconds)
        assert world.ask(POISON) == 1
        assert (world.row().ready_at or 0) - world.now() == delay
        world.pass_time(-TTL)  # so that it is still to come, however long we stand still here
        assert world.claim(world.enlist()) == []
        world.pass_time(TTL + seconds + 1)
    executor = world.enlist()
    world.claim(executor)
    world.kill(executor)
    assert world.ask(POISON) == 1
    row = world.row()
    assert (row.status, row.error, row.ready_at, row.takeovers) == ("held", POISON.error, None, 4)
    world.pass_time(1e6)
    assert world.claim(world.enlist()) == []


@pytest.mark.parametrize("end", [None, "parked"])
def test_who_gets_on_between_the_deaths_of_its_executors_is_not_what_kills_them(world: World, end: str | None) -> None:
    """A life of months sees many of them: what counts is how many came without a record in between."""
    world.start("w")
    for n in range(3 * POISON.poison):
        executor = world.enlist()
        assert world.claim(executor) == ["w"]
        guard = Guard("w", world.row().claim)
        if end is None:
            assert world.write(guard, step(f"{n + 1}")).written
        else:
            assert world.end(guard, Park(world.now() - 1)).parked
            assert world.claim(executor) == ["w"]
        world.kill(executor)
        assert world.ask(POISON) == 1
        row = world.row()
        assert (row.status, row.takeovers) == ("queued", 1)
        assert (row.ready_at or 0) <= world.now()
    for _ in range(POISON.poison):
        executor = world.enlist()
        world.pass_time(1e3)
        assert world.claim(executor) == ["w"]
        world.kill(executor)
        assert world.ask(POISON) == 1
    assert world.status() == "held"


def test_the_delay_of_a_takeover_has_a_limit(world: World) -> None:
    world.start("w")
    for deaths in range(12):
        executor = world.enlist()
        assert world.claim(executor) == ["w"]
        world.kill(executor)
        delay = Left(min(2.0**deaths - 1, 300))
        world.ask(TakeOver(limit=10, poison=100, error="{}"))
        assert (world.row().ready_at or 0) - world.now() == delay
        world.pass_time(delay.seconds + 1)


def test_only_what_is_mine_is_handed_back(world: World) -> None:
    mine, other = world.enlist(), world.enlist()
    for key in ("a", "b", "c"):
        world.run(key, executor=mine)
    world.run("foreign", executor=other)
    world.end(Guard("c", 1), Park(None))
    given_up = [Guard("a", 2), Guard("b", 1), Guard("c", 1), Guard("foreign", 1), Guard("nobody", 1)]
    assert world.ask(HandBack(mine, tuple(given_up))) == 1
    assert world.ask(HandBack(mine, ())) == 0
    assert world.ask(HandBack(mine)) == 1
    assert world.claim(other) == ["b", "a"]
    assert (world.status("c"), world.status("foreign")) == ("waiting", "running")


def test_what_is_handed_back_before_it_has_begun_is_no_attempt(world: World) -> None:
    mine = world.enlist()
    for key in ("begun", "unbegun"):
        world.start(key)
    assert sorted(world.claim(mine)) == ["begun", "unbegun"]
    assert world.ask(HandBack(mine, (Guard("begun", 1),))) == 1
    assert world.ask(HandBack(mine, (Guard("unbegun", 1),), unbegun=True)) == 1
    assert (world.row("begun").attempts, world.row("unbegun").attempts) == (1, 0)
    assert sorted(world.claim(mine)) == ["begun", "unbegun"]
    assert (world.row("begun").attempts, world.row("unbegun").attempts) == (2, 1)


def test_what_is_handed_back_late_takes_nothing_from_a_newer_claim(world: World) -> None:
    """A statement whose connection was lost may be carried out after its repetition, and after the next claim."""
    executor = world.enlist()
    lost = world.run("w", executor=executor)
    assert world.ask(HandBack(executor, (lost,))) == 1
    assert world.claim(executor) == ["w"]
    assert world.ask(HandBack(executor, (lost,))) == 0
    assert world.status("w") == "running"


def test_who_leaves_hands_back_what_it_holds_without_delay(world: World) -> None:
    leaving, other = world.enlist(), world.enlist()
    guard = world.run("w", executor=leaving)
    world.ask(Retire(leaving))
    assert not world.pulse(leaving).alive
    assert world.write(guard, step()).written is False
    assert world.claim(other) == ["w"]
    assert world.row().takeovers == 0
    world.ask(Retire(leaving))
    world.ask(Retire(99))


def test_what_has_ended_is_never_touched_again(world: World) -> None:
    executor = world.enlist()
    for status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED):
        world.end(world.run(status, executor=executor), Outcome(status, output="1"))
    before = [world.row(key) for key in ("succeeded", "failed", "cancelled")]
    world.ask(HandBack(executor))
    world.kill(executor)
    world.ask(POISON)
    world.ask(Retire(executor))
    assert [world.row(key) for key in ("succeeded", "failed", "cancelled")] == before
