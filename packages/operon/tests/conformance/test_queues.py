"""A queue admits what its limits allow, at every instant and whoever asks; and serves its partitions in turn."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from conformance.world import SUCCESS, Left, World, claim, start, together
from operon.core.commands import Cancel, Count, Find, HandBack, Opening, Queues, Retire, Seed, SetQueue, StartMany
from operon.core.commands import TakeOver as Take
from operon.core.rows import Filter, Guard, Limits, Outcome, Park, QueueRow
from operon.core.states import Status

ALL = 1000


def declare(world: World, name: str = "q", app: str = "shop", **limits: Any) -> str | None:
    return world.ask(Seed(name, Limits(**limits), app))


def put(world: World, key: str, **options: Any) -> None:
    options.setdefault("queue", "q")
    assert world.start(key, **options).created


def take(world: World, executor: int, limit: int = 100, *names: str, room: int = ALL) -> list[str]:
    return world.claim(executor, limit, queues=tuple((name, room) for name in names or ("q",)))


def end(world: World, key: str) -> None:
    assert world.end(Guard(key, world.row(key).claim), SUCCESS).written


def shown(world: World, name: str = "q") -> QueueRow:
    return next(row for row in world.ask(Queues()) if row.name == name)


# ── The line ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_queued_waits_for_a_claim_of_its_queue(world: World) -> None:
    declare(world)
    put(world, "w", partition="p", priority=-3, dedupe="d")
    executor = world.enlist()
    row = world.row()
    assert (row.status, row.queue, row.partition, row.priority, row.dedupe) == ("queued", "q", "p", -3, "d")
    assert row.ready_at is None
    assert world.claim(executor) == []
    assert take(world, executor, 100, "other") == []
    (row,) = (it.row for it in world.ask(claim(executor, queues=(("q", 1),))))
    assert row == world.row()
    assert (row.status, row.claim, row.attempts, row.executor) == ("running", 1, 1, executor)


def test_a_queue_that_nobody_declared_hands_out_nothing(world: World) -> None:
    put(world, "w")
    assert take(world, world.enlist()) == []


def test_unqueued_work_comes_with_it_and_the_limit_holds_for_both(world: World) -> None:
    declare(world)
    for key in ("a", "b"):
        put(world, key)
        world.start(f"plain-{key}")
    executor = world.enlist()
    assert take(world, executor, 3) == ["plain-a", "plain-b", "a"]
    assert take(world, executor, 3) == ["b"]


def test_a_process_takes_no_more_of_a_queue_than_it_has_room_for(world: World) -> None:
    declare(world, "q")
    declare(world, "r")
    for n in range(4):
        put(world, f"q{n}")
        put(world, f"r{n}", queue="r")
    executor = world.enlist()
    assert world.claim(executor, 10, queues=(("q", 1), ("r", 2))) == ["q0", "r0", "r1"]


@pytest.mark.parametrize(
    ("row", "claimer", "taken"),
    [
        ({}, {"names": ("other",)}, False),
        ({"instance": "B/eu"}, {"instances": ("B/us",)}, False),
        ({"instance": "B/eu"}, {"instances": ("B/us", "B/eu")}, True),
        ({"pin": "v1"}, {"version": "v2"}, False),
        ({"pin": "v1"}, {"version": "v1"}, True),
    ],
)
def test_a_process_is_given_only_what_it_can_run(
    world: World, row: dict[str, str], claimer: dict[str, Any], taken: bool
) -> None:
    declare(world)
    put(world, "w", **row)
    assert world.claim(world.enlist(), queues=(("q", 9),), **claimer) == (["w"] if taken else [])


def test_what_comes_first_goes_first(world: World) -> None:
    declare(world)
    for key in ("c", "a", "b"):
        put(world, key)
        world.pass_time(0.001)
    executor = world.enlist()
    assert [take(world, executor, 2), take(world, executor, 2)] == [["c", "a"], ["b"]]


def test_priority_goes_first_until_the_others_have_waited_a_minute_for_each_level(world: World) -> None:
    """Nothing starves: waiting overtakes priority."""
    declare(world)
    put(world, "old", priority=-1)
    world.pass_time(200)
    put(world, "plain")
    world.pass_time(30)
    put(world, "urgent", priority=2)
    put(world, "less", priority=1)
    put(world, "last", priority=-1)
    assert take(world, world.enlist()) == ["old", "urgent", "less", "plain", "last"]


def test_a_delay_counts_before_the_line_and_not_for_the_place_in_it(world: World) -> None:
    declare(world)
    delay = Left(60)
    put(world, "delayed", delay=60)
    put(world, "fresh")
    executor = world.enlist()
    assert world.pulse(executor).due == delay
    assert take(world, executor) == ["fresh"]
    world.pass_time(61)
    put(world, "later")
    assert take(world, executor) == ["delayed", "later"]


def test_find_and_count_know_queues(world: World) -> None:
    declare(world)
    put(world, "w")
    world.start("plain")
    assert [row.id for row in world.ask(Find(Filter(queue="q")))] == ["w"]
    assert world.ask(Count(Filter(queue="q"))) == 1
    assert world.ask(Count(Filter(queue="r"))) == 0


# ── Limits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_concurrency_holds_over_all_processes(world: World) -> None:
    declare(world, concurrency=2)
    for n in range(4):
        put(world, f"w{n}")
    one, two = world.enlist(), world.enlist()
    assert take(world, one) == ["w0", "w1"]
    assert take(world, two) == []
    end(world, "w0")
    assert take(world, two) == ["w2"]
    assert (shown(world).queued, shown(world).running) == (1, 2)


def test_worker_concurrency_holds_in_each_process(world: World) -> None:
    declare(world, worker_concurrency=1)
    for n in range(3):
        put(world, f"w{n}")
    one, two = world.enlist(), world.enlist()
    assert [take(world, it) for it in (one, one, two, two)] == [["w0"], [], ["w1"], []]


def test_partition_concurrency_holds_in_each_partition(world: World) -> None:
    declare(world, partition_concurrency=1)
    for n in range(3):
        put(world, f"a{n}", partition="a")
        put(world, f"b{n}", partition="b")
    executor = world.enlist()
    assert take(world, executor) == ["a0", "b0"]
    assert take(world, executor) == []
    end(world, "b0")
    assert take(world, executor) == ["b1"]


def test_a_rate_is_a_window_that_slides(world: World) -> None:
    declare(world, rate=2, period=60.0)
    for n in range(5):
        put(world, f"w{n}")
    executor = world.enlist()
    assert world.ask(Opening(("q",))) is None
    window = Left(60)
    assert take(world, executor, 1) == ["w0"]
    world.pass_time(40)
    assert take(world, executor) == ["w1"]
    assert take(world, executor) == []
    assert world.ask(Opening(("q", "other"))) == window.after(40)
    world.pass_time(21)
    assert take(world, executor) == ["w2"]
    world.pass_time(100)
    assert take(world, executor) == ["w3", "w4"]
    assert world.ask(Opening(("q",))) is None, "nobody waits for the window"


def test_what_has_ended_still_counts_for_the_rate(world: World) -> None:
    declare(world, rate=1, period=60.0)
    put(world, "w0")
    put(world, "w1")
    executor = world.enlist()
    assert take(world, executor) == ["w0"]
    end(world, "w0")
    assert take(world, executor) == []


def test_a_partition_rate_holds_in_each_partition(world: World) -> None:
    declare(world, partition_rate=1, partition_period=60.0)
    for n in range(2):
        put(world, f"a{n}", partition="a")
        put(world, f"b{n}", partition="b")
    executor = world.enlist()
    window = Left(60)
    assert take(world, executor) == ["a0", "b0"]
    assert take(world, executor) == []
    assert world.ask(Opening(("q",))) == window
    world.pass_time(61)
    assert take(world, executor) == ["a1", "b1"]


@pytest.mark.parametrize(
    ("limits", "most", "of_each"),
    [({"concurrency": 3}, 3, 3), ({"partition_concurrency": 1}, 2, 1), ({"rate": 3, "period": 600.0}, 3, 3)],
)
def test_claimers_at_the_same_time_exceed_no_limit(
    world: World, limits: dict[str, Any], most: int, of_each: int
) -> None:
    """Counting and taking are under one lock: two who count at once would both see a free place."""
    declare(world, **limits)
    world.ask(StartMany(tuple(start(f"w{n}", queue="q", partition=str(n % 2)).row for n in range(40))))
    executors = [world.enlist() for _ in range(6)]

    def grab(executor: int) -> list[str]:
        return [key for _ in range(4) for key in take(world, executor, 2)]

    taken = [key for keys in together([partial(grab, it) for it in executors]) for key in keys]
    assert len(taken) == len(set(taken)) <= most
    taken += take(world, executors[0])
    assert len(taken) == len(set(taken)) == most
    assert all(sum(int(key[1:]) % 2 == side for key in taken) <= of_each for side in (0, 1))


# ── Turns ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_partition_with_thousands_does_not_delay_another(world: World) -> None:
    """Served in turn, even with one free place at a time, where the oldest first would starve the newcomer."""
    declare(world, concurrency=1)
    world.ask(StartMany(tuple(start(f"a{n:04}", queue="q", partition="a").row for n in range(1000))))
    world.ask(StartMany(tuple(start(f"b{n}", queue="q", partition="b").row for n in range(5))))
    executor, order = world.enlist(), list[str]()
    for _ in range(12):
        (key,) = take(world, executor)
        order.append(key)
        end(world, key)
    assert [key for key in order if key.startswith("b")] == [f"b{n}" for n in range(5)]
    assert order.index("b4") <= 10


def test_a_claim_of_many_serves_the_first_of_each_then_the_second(world: World) -> None:
    declare(world)
    for n in range(3):
        for partition_ in "ab":
            put(world, f"{partition_}{n}", partition=partition_)
    put(world, "c0", partition="c")
    executor = world.enlist()
    assert take(world, executor, 5) == ["a0", "b0", "c0", "a1", "b1"]
    assert take(world, executor, 5) == ["a2", "b2"]


def test_many_partitions_that_are_full_hide_none_that_is_not(world: World) -> None:
    """A claim looks into so many partitions, and the next goes on behind them."""
    declare(world, partition_concurrency=1)
    names = [f"p{n:03}" for n in range(300)]
    world.ask(StartMany(tuple(start(f"1-{it}", queue="q", partition=it).row for it in names)))
    executor = world.enlist()
    assert sum(len(take(world, executor, ALL)) for _ in range(3)) == 300
    world.ask(StartMany(tuple(start(f"2-{it}", queue="q", partition=it).row for it in names)))
    end(world, "1-p280")
    assert [key for _ in range(3) for key in take(world, executor)] == ["2-p280"]


# ── Leaving, and coming back ─────────────────────────────────────────────────────────────────────────────────────────


def test_who_parks_leaves_the_slot_and_comes_back_with_the_old_rank(world: World) -> None:
    declare(world, concurrency=1)
    put(world, "first")
    world.pass_time(0.001)
    put(world, "second")
    world.pass_time(0.001)
    put(world, "third")
    executor = world.enlist()
    assert take(world, executor) == ["first"]
    world.end(Guard("first", 1), Park(world.now() + 10))
    assert take(world, executor) == ["second"]
    world.pass_time(11)
    assert take(world, executor) == []
    assert world.row("first").status == "queued"
    end(world, "second")
    assert take(world, executor) == ["first"]


def test_who_is_woken_gets_in_line_and_awaits_nothing_more(world: World) -> None:
    declare(world, concurrency=1)
    put(world, "parent")
    child, executor = world.run("child"), world.enlist()
    take(world, executor)
    assert world.end(Guard("parent", 1), Park(None, ("child",))).parked
    world.end(child)
    assert world.pulse(executor).stirred
    from operon.core.commands import Wake

    assert world.ask(Wake(("child",))) == 1
    assert take(world, executor) == ["parent"]
    assert not world.pulse(executor).stirred


def test_a_line_is_seen_by_the_next_heartbeat(world: World) -> None:
    """Whatever word of it was lost, and whoever found the queue locked."""
    declare(world, concurrency=1)
    executor = world.enlist()
    assert not world.pulse(executor).lined
    put(world, "first")
    assert world.pulse(executor).lined
    take(world, executor)
    assert not world.pulse(executor).lined
    put(world, "second")
    assert not world.pulse(executor).lined, "nothing of it can run"
    end(world, "first")
    assert world.pulse(executor).lined
    assert world.ask(SetQueue("q", paused=True))
    assert not world.pulse(executor).lined


def test_a_line_is_seen_by_those_who_can_run_more_of_it(world: World) -> None:
    declare(world, worker_concurrency=1)
    full, free = world.enlist(), world.enlist()
    put(world, "first")
    take(world, full)
    put(world, "second")
    assert [world.pulse(executor).lined for executor in (full, free)] == [False, True]


@pytest.mark.parametrize("how", ["hand back", "queued", "retire", "take over"])
def test_who_loses_its_executor_keeps_queue_and_rank(world: World, how: str) -> None:
    declare(world, concurrency=1)
    put(world, "first", partition="p", priority=1)
    put(world, "second", partition="p")
    lost, other = world.enlist(), world.enlist()
    assert take(world, lost) == ["first"]
    if how == "hand back":
        world.ask(HandBack(lost))
    elif how == "queued":
        world.end(Guard("first", 1), Outcome(Status.QUEUED))
    elif how == "retire":
        world.ask(Retire(lost))
    else:
        assert take(world, other) == []
        world.kill(lost)
        assert world.ask(Take(10, 5, "{}")) == 1
        world.pass_time(1)
    assert take(world, other) == ["first"]
    assert take(world, other) == []


def test_cancelled_leaves_the_line_and_the_slot(world: World) -> None:
    declare(world, concurrency=1)
    for key in ("a", "b", "c"):
        put(world, key)
    executor = world.enlist()
    assert take(world, executor) == ["a"]
    world.ask(Cancel("b"))
    world.ask(Cancel("a"))
    assert take(world, executor) == ["c"]


# ── Limits that change ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pause_stops_the_line_and_not_what_runs(world: World) -> None:
    declare(world)
    put(world, "a")
    executor = world.enlist()
    take(world, executor)
    put(world, "b")
    assert world.ask(SetQueue("q", paused=True))
    assert take(world, executor) == []
    assert shown(world).paused
    end(world, "a")
    assert world.ask(SetQueue("q", paused=False))
    assert take(world, executor) == ["b"]


def test_limits_that_change_hold_from_the_next_claim_on(world: World) -> None:
    declare(world, concurrency=1)
    for n in range(5):
        put(world, f"w{n}")
    executor = world.enlist()
    assert take(world, executor) == ["w0"]
    assert world.ask(SetQueue("q", Limits(concurrency=3)))
    assert take(world, executor) == ["w1", "w2"]
    assert world.ask(SetQueue("q", Limits(concurrency=1)))
    end(world, "w0")
    assert take(world, executor) == []


def test_the_code_seeds_limits_and_a_change_stays_until_it_is_reset(world: World) -> None:
    assert declare(world, concurrency=1) is None
    assert declare(world, concurrency=2, rate=5, period=1.5) is None
    assert shown(world).limits == Limits(concurrency=2, rate=5, period=1.5)
    world.ask(SetQueue("q", Limits(concurrency=9)))
    assert declare(world, concurrency=3) is None
    assert (shown(world).limits, shown(world).seed) == (Limits(concurrency=9), Limits(concurrency=3))
    assert world.ask(SetQueue("q", reset=True))
    assert shown(world).limits == Limits(concurrency=3)
    declare(world, concurrency=4)
    assert shown(world).limits == Limits(concurrency=4)


def test_two_apps_that_live_must_declare_a_queue_alike(world: World) -> None:
    assert declare(world, app="shop", concurrency=1) is None
    executor = world.enlist()
    assert declare(world, app="billing", concurrency=2) == "shop"
    assert shown(world).limits == Limits(concurrency=1)
    assert declare(world, app="billing", concurrency=1) is None
    assert declare(world, app="shop", concurrency=1) is None
    world.ask(Retire(executor))
    assert declare(world, app="billing", concurrency=2) is None
    assert shown(world).limits == Limits(concurrency=2)


def test_an_unknown_queue_is_not_changed(world: World) -> None:
    assert not world.ask(SetQueue("q", Limits()))
    assert not world.ask(SetQueue("q", paused=True))
    assert not world.ask(SetQueue("q", reset=True))
    assert world.ask(Queues()) == ()


# ── Many at once, and none twice ─────────────────────────────────────────────────────────────────────────────────────


def test_many_are_started_in_one_commit_and_answered_in_their_order(world: World) -> None:
    world.start("b")
    rows = tuple(start(key, queue="q").row for key in ("c", "b", "a", "c"))
    answers = world.ask(StartMany(rows))
    assert [answer.created for answer in answers] == [True, False, True, False]
    assert world.row("c").nonce == rows[0].nonce
    assert all(answer.created for answer in world.ask(StartMany((rows[0], rows[2]))))
    assert world.ask(StartMany(())) == ()


def test_a_dedupe_is_taken_until_its_run_has_ended(world: World) -> None:
    guard = world.run("a", dedupe="d", digest="x")
    answer = world.start("b", dedupe="d")
    assert (answer.created, answer.id, answer.digest, answer.outcome.status) == (False, "a", "x", "running")
    assert world.start("a", dedupe="d").id is None
    assert [it.id for it in world.ask(StartMany((start("e", dedupe="d").row, start("f", dedupe="e").row)))] == [
        "a",
        None,
    ]
    world.end(guard)
    assert world.start("b", dedupe="d").created
    assert world.start("c").created


def test_one_of_those_who_race_for_a_dedupe_gets_it(world: World) -> None:
    commands = [start(f"w{n}", dedupe="d") for n in range(6)]
    answers = together([partial(world.ask, it) for it in commands])
    winner = next(it.row.id for it, answer in zip(commands, answers, strict=True) if answer.created)
    assert sum(answer.created for answer in answers) == 1
    assert {answer.id for answer in answers if not answer.created} == {winner}


def test_who_replaces_cancels_the_holder_and_all_below_and_is_started(world: World) -> None:
    holder = world.run("a", dedupe="d")
    world.run("child", parent=holder)
    command = start("b", dedupe="d", replace=True)
    assert world.ask(command).created
    assert (world.status("a"), world.status("child"), world.status("b")) == ("cancelled", "cancelled", "queued")
    assert not world.end(holder).written
    assert world.ask(command).created, "its answer was lost: it does not replace itself"
    assert world.status("b") == "queued"
    assert world.start("c", dedupe="free", replace=True).created


def test_a_replacement_that_is_asked_again_cancels_nobody_who_came_after_it(world: World) -> None:
    """Its answer was lost, and another replaced it meanwhile: to cancel that one would leave nobody."""
    command = start("b", dedupe="d", replace=True)
    world.ask(command)
    world.start("c", dedupe="d", replace=True)
    assert world.ask(command).created, "it was started, as it was asked"
    assert (world.status("b"), world.status("c")) == ("cancelled", "queued")


def test_a_replacement_that_is_refused_cancels_nobody(world: World) -> None:
    parent = world.run("parent")
    world.end(parent)
    world.start("a", dedupe="d")
    assert world.start("b", dedupe="d", replace=True, parent=parent).refused
    assert not world.start("parent", dedupe="d", replace=True).created
    assert world.status("a") == "queued"


def test_those_who_race_to_replace_leave_one_alive(world: World) -> None:
    world.start("first", dedupe="d")
    commands = [start(f"w{n}", dedupe="d", replace=True) for n in range(5)]
    assert all(answer.created for answer in together([partial(world.ask, it) for it in commands]))
    alive = [it.row.id for it in commands if world.status(it.row.id) == "queued"]
    assert len(alive) == 1
    assert world.status("first") == "cancelled"
