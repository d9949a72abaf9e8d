"""The store's clock is put back: nothing waits until the clock shows again what it showed before."""

from __future__ import annotations

import pytest

from conformance.world import TTL, Left, World, claim, start
from operon.core.commands import Executors, Opening, Rewind, Seed, StartMany
from operon.core.rows import Limits

HOUR = 3600.0
MORE = 1.0
"""Seconds by which more is put back than the clock was, as it may be where that is not known exactly."""
BACK = Rewind(HOUR + MORE, TTL)


def queue(world: World, limits: Limits) -> None:
    assert world.ask(Seed("q", limits, "shop")) is None


def test_what_was_ready_is_ready_in_its_order(world: World) -> None:
    executor = world.enlist()
    for key in ("first", "second", "third"):
        world.start(key)
        world.pass_time(2)
    world.pass_time(-HOUR)
    assert world.claim(executor) == []
    world.ask(BACK)
    assert world.claim(executor) == ["first", "second", "third"]


def test_what_was_to_come_is_still_to_come(world: World) -> None:
    executor = world.enlist()
    world.start("delayed", delay=2 * HOUR)
    world.sleep("asleep", until=world.now() + 2 * HOUR)
    world.pass_time(-HOUR)
    world.ask(BACK)
    assert world.claim(executor) == []


def test_who_was_in_line_is_in_line(world: World) -> None:
    queue(world, Limits())
    executor = world.enlist()
    world.ask(StartMany((start("a", queue="q").row, start("b", queue="q", delay=1).row)))
    world.pass_time(2)
    world.pass_time(-HOUR)
    world.ask(BACK)
    assert world.claim(executor, queues=(("q", 9),)) == ["a", "b"]


@pytest.mark.parametrize("limits", [Limits(rate=2, period=60), Limits(partition_rate=2, partition_period=60)])
def test_a_window_is_full_for_its_length_and_no_longer(world: World, limits: Limits) -> None:
    """Whoever was admitted before counts as admitted now: the rate is kept, by any clock."""
    queue(world, limits)
    executor = world.enlist()
    world.ask(StartMany(tuple(start(f"w{n}", queue="q").row for n in range(4))))
    wanted = claim(executor, queues=(("q", 9),))
    assert len(world.ask(wanted)) == 2
    world.pass_time(-HOUR)
    minute = Left(60)
    world.ask(BACK)
    assert world.ask(wanted) == ()
    assert world.ask(Opening(("q",))) == minute
    world.pass_time(61)
    assert len(world.ask(wanted)) == 2


def test_a_lease_lasts_as_long_as_it_was_meant_to(world: World) -> None:
    """A process that died before the clock was put back is not alive for an hour more; one that lives beats on."""
    whole, longer = Left(TTL), Left(4 * TTL - MORE)
    silent, patient, observer = world.enlist(), world.enlist(ttl=4 * TTL), world.enlist()
    world.pass_time(-HOUR)
    world.pulse(observer)
    for _ in range(2):
        world.ask(BACK)
        left = {peer.id: peer.lease_until - world.now() for peer in world.ask(Executors())}
        assert left == {silent: whole, patient: longer, observer: whole}
    world.pass_time(TTL + 3)
    assert {peer for peer, _ in world.pulse(observer).expired} == {silent}
