"""A schedule's turn is taken once, whoever tries; what it starts and what it does to its predecessor are one commit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace

from children import eventually
from conformance.world import SUCCESS, World, together
from operon.core.commands import Beat, Due, Fire, Fires, ForgetSchedule, KeepSchedule, Load, Schedules, Wake
from operon.core.rows import Guard, NewWorkflow, Outcome
from operon.core.states import Status
from operon.core.timetable import Fired, Firing, Overlap, Plan, ScheduleRow, Template
from operon.errors import RowLocked

MINE = Fires(("s",), ())
_nonces = count(1_000_000)


def planned(world: World, name: str = "s", *, due_in: float | None = -1.0, **fields: Any) -> ScheduleRow:
    """Make a schedule whose next instant comes in so many seconds."""
    plan = Plan(name, "* * * * *", "Europe/London", "one", "skip", Template("greet", '{"user":"ada"}', timed=True))
    next_at = None if due_in is None else round(world.now()) + due_in
    row = ScheduleRow(plan, "shop", declared=True, next_at=next_at, turn=1)
    row = replace(row, **fields)
    assert world.ask(KeepSchedule(row))
    return row


def shown(world: World, name: str = "s") -> ScheduleRow:
    (row,) = world.ask(Schedules(name))
    return row


def firing(key: str, at: float = 1e9, overlap: Overlap = "skip", **fields: Any) -> Firing:
    return Firing(at, overlap, NewWorkflow(key, "greet", "{}", "d", next(_nonces), **fields))


def fire(world: World, *firings: Firing, turn: int | None = None, next_at: float | None = 2e9) -> Fired | None:
    return world.ask(Fire("s", shown(world).turn if turn is None else turn, next_at, firings))


def tried(world: World, *firings: Firing, turn: int) -> Fired | None:
    """Fire, unless somebody else is about to for longer than a service waits for a lock: then nothing is written."""
    try:
        return fire(world, *firings, turn=turn)
    except RowLocked:
        return None


def ended(world: World, key: str, outcome: Outcome = SUCCESS) -> None:
    executor = world.enlist()
    assert key in world.claim(executor)
    assert world.write(Guard(key, world.row(key).claim), end=outcome).written


# ── The row ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_schedule_is_read_as_it_was_written(world: World) -> None:
    more: Any = (True, "Billing/eu", 3.5, "ada", ("clerk",), "v1", '{"x": 1}', "q", "p", -2)
    call = Template("greet", '{"a":"\\u0000é"}', *more)
    plan = Plan("nightly: §", "0 9 * * MON", "Asia/Kolkata", "all", "replace", call)
    state: Any = (False, 1.9e9, True, 1, "last", 1.8e9, 7, 1.7e9)
    row = ScheduleRow(plan, "shop", *state)
    assert world.ask(KeepSchedule(row))
    planned(world, "s")
    assert world.ask(Schedules("nightly: §")) == (row,)
    assert [it.plan.name for it in world.ask(Schedules())] == ["nightly: §", "s"]
    assert world.ask(Schedules("other")) == ()


def test_a_change_is_written_only_by_who_saw_the_latest_state(world: World) -> None:
    row = planned(world)
    assert not world.ask(KeepSchedule(replace(row, app="two")))
    assert world.ask(KeepSchedule(replace(row, turn=2, paused=True)))
    assert not world.ask(KeepSchedule(replace(row, turn=2, app="late")))
    assert (shown(world).app, shown(world).paused) == ("shop", True)
    assert not world.ask(KeepSchedule(replace(row, turn=9)))


def test_what_was_forgotten_is_not_changed_but_made_anew(world: World) -> None:
    row = planned(world)
    assert world.ask(ForgetSchedule("s"))
    assert not world.ask(ForgetSchedule("s"))
    assert not world.ask(KeepSchedule(replace(row, turn=2)))
    assert fire_at(world, 1) is None
    assert world.ask(KeepSchedule(row))


def fire_at(world: World, turn: int) -> Fired | None:
    return world.ask(Fire("s", turn, None, (firing("w"),)))


def test_of_many_who_write_one_new_schedule_one_does(world: World) -> None:
    row = planned(world, "other")
    rows = [replace(row, plan=replace(row.plan, name="s"), app=f"app{n}") for n in range(8)]
    answers = together([partial(world.ask, KeepSchedule(each)) for each in rows])
    assert answers.count(True) == 1
    assert shown(world).app == f"app{answers.index(True)}"


# ── What is due ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_process_sees_what_it_fires_and_nothing_else(world: World) -> None:
    planned(world, "mine", due_in=-500)
    planned(world, "theirs", due_in=-900)
    planned(world, "made", due_in=-700, declared=False)
    other = planned(world, "unknown", due_in=-900)
    plan = replace(other.plan, call=Template("elsewhere", "{}"))
    assert world.ask(KeepSchedule(replace(other, plan=plan, declared=False, turn=2)))
    fires = Fires(("mine", "made", "unknown"), ("greet",))
    assert [row.plan.name for row in world.ask(Due(fires, 9)).rows] == ["made", "mine"]
    assert [row.plan.name for row in world.ask(Due(fires, 1)).rows] == ["made"]
    assert world.ask(Due(Fires(), 9)).rows == ()
    assert world.ask(Beat(0, 1.0, fires)).planned == pytest.approx(-700, abs=100)
    assert world.ask(Beat(0, 1.0, MINE)).planned is None
    assert world.ask(Beat(0, 1.0)).planned is None


def test_what_is_paused_over_or_later_is_not_due(world: World) -> None:
    planned(world, "paused", paused=True)
    planned(world, "over", due_in=None)
    planned(world, "later", due_in=1000)
    fires = Fires(("paused", "over", "later"))
    before = world.now()
    agenda = world.ask(Due(fires, 9))
    assert agenda.rows == ()
    assert before <= agenda.now <= world.now()
    assert world.ask(Beat(0, 1.0, fires)).planned == pytest.approx(1000, abs=100)
    world.pass_time(1001)
    assert [row.plan.name for row in world.ask(Due(fires, 9)).rows] == ["later"]


# ── Taking a turn ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_turn_is_taken_once_by_whoever_is_first(world: World) -> None:
    """Eight at the same moment: one starts the workflow and plans the next instant, seven are told."""
    planned(world)
    together([partial(shown, world)] * 8)  # what connects, connects now
    for turn in range(1, 9):
        answers = together(
            [partial(tried, world, firing(f"{turn}{n}", overlap="replace"), turn=turn) for n in range(8)]
        )
        (fired,) = [it for it in answers if it is not None]
        assert shown(world).last == fired.started[0] == f"{turn}{answers.index(fired)}"
        assert len(found(world)) == turn
        assert (shown(world).turn, shown(world).next_at, shown(world).last_at) == (turn + 1, 2e9, 1e9)


def found(world: World) -> Any:
    from operon.core.commands import Find
    from operon.core.rows import Filter

    return world.ask(Find(Filter()))


def test_a_schedule_that_was_changed_paused_or_deleted_meanwhile_is_not_fired(world: World) -> None:
    row = planned(world)
    assert world.ask(KeepSchedule(replace(row, turn=2, paused=True)))
    assert fire_at(world, 1) is None
    assert fire_at(world, 2) is None
    assert world.ask(ForgetSchedule("s"))
    assert fire_at(world, 2) is None
    assert found(world) == ()


def test_what_is_fired_is_ready_at_once(world: World) -> None:
    planned(world)
    assert fire(world, firing("w", timeout=60.0)) == Fired(("w",))
    row = world.row()
    assert (row.status, row.name, row.claim) == ("queued", "greet", 0)
    assert row.deadline == pytest.approx(row.created_at + 60)
    assert world.claim(world.enlist()) == ["w"]


def test_what_was_started_before_under_the_id_is_left_and_counts(world: World) -> None:
    planned(world)
    world.start("w", input="before")
    assert fire(world, firing("w")) == Fired(("w",))
    assert world.row().input == "before"
    assert shown(world).last == "w"


def test_several_instants_are_fired_in_order_in_one_commit(world: World) -> None:
    planned(world)
    fired = fire(world, *(firing(key, at, "queue") for key, at in (("a", 1e9), ("b", 1e9 + 1), ("c", 1e9 + 2))))
    assert fired == Fired(("a", "b", "c"))
    assert [world.status(key) for key in "abc"] == ["queued", "waiting", "waiting"]
    assert (shown(world).last, shown(world).last_at) == ("c", 1e9 + 2)


# ── The predecessor ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_skip_leaves_out_while_the_one_before_goes_on_and_says_so(world: World) -> None:
    planned(world)
    fire(world, firing("a"))
    assert fire(world, firing("b", 1e9 + 60)) == Fired(())
    assert fire(world, firing("c", 1e9 + 120)) == Fired(())
    row = shown(world)
    assert (row.last, row.skipped, row.skipped_at) == ("a", 2, 1e9 + 120)
    ended(world, "a")
    assert fire(world, firing("d")) == Fired(("d",))


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED, Status.HELD])
def test_what_has_ended_or_is_held_is_in_nobodys_way(world: World, status: Status) -> None:
    planned(world)
    fire(world, firing("a"))
    ended(world, "a", Outcome(status, error="{}"))
    assert fire(world, firing("b")) == Fired(("b",))
    fire(world, firing("c", overlap="queue"))
    assert world.status("c") == "waiting", "b goes on"
    world.claim(executor := world.enlist())
    assert world.write(Guard("b", 1), end=Outcome(status, error="{}")).written
    assert fire(world, firing("d", overlap="queue")) is not None
    assert world.ask(Wake(None)) == 1
    assert world.claim(executor) == ["c"]


def test_queue_begins_when_the_one_before_has_ended_and_not_sooner(world: World) -> None:
    planned(world)
    fire(world, firing("a"))
    fire(world, firing("b", overlap="queue"), firing("c", overlap="queue"))
    executor = world.enlist()
    assert world.claim(executor) == ["a"]
    assert world.claim(executor) == []
    assert world.ask(Wake(None)) == 0
    assert world.end(Guard("a", 1)).written
    assert world.ask(Wake(("a",))) == 1
    assert world.claim(executor) == ["b"]
    assert world.ask(Load("b")) == ()
    assert world.end(Guard("b", 1)).written
    assert world.pulse(executor).stirred, "a lost wake-up is found by the heartbeat"
    assert world.ask(Wake(None)) == 1
    assert world.claim(executor) == ["c"]


def test_queue_behind_one_in_a_queue_gets_in_line_when_that_has_ended(world: World) -> None:
    from operon.core.commands import Seed
    from operon.core.rows import Limits

    assert world.ask(Seed("q", Limits(), "shop")) is None
    planned(world)
    fire(world, firing("a", queue="q"), firing("b", overlap="queue", queue="q"))
    executor = world.enlist()
    assert world.claim(executor, queues=(("q", 9),)) == ["a"]
    assert world.end(Guard("a", 1)).written
    world.ask(Wake(("a",)))
    assert world.claim(executor, queues=(("q", 9),)) == ["b"]


def test_replace_cancels_the_one_before_with_its_children(world: World) -> None:
    planned(world)
    fire(world, firing("a"))
    executor = world.enlist()
    assert world.claim(executor) == ["a"]
    world.start("child", parent=Guard("a", 1))
    assert fire(world, firing("b", overlap="replace")) == Fired(("b",), cancelled=True)
    assert [world.status(key) for key in ("a", "child", "b")] == ["cancelled", "cancelled", "queued"]
    assert not world.end(Guard("a", 1)).written, "its owner is fenced"
    ended(world, "b")
    assert fire(world, firing("c", overlap="replace")) == Fired(("c",))


def test_replace_waits_behind_one_that_waits_for_its_own_turn(world: World) -> None:
    """Several were late, and go one after the other: who replaces the last must not begin beside the first."""
    planned(world)
    fire(world, firing("a", overlap="queue"), firing("b", overlap="queue"))
    executor = world.enlist()
    assert world.claim(executor) == ["a"]
    assert fire(world, firing("c", overlap="replace")) == Fired(("c",))
    assert [world.status(key) for key in ("a", "b", "c")] == ["running", "waiting", "waiting"]
    for before, behind in (("a", "b"), ("b", "c")):
        assert world.claim(executor) == []
        assert world.end(Guard(before, 1)).written
        world.ask(Wake((before,)))
        assert world.claim(executor) == [behind]


def test_replace_cancels_nothing_for_an_instant_that_was_fired_before(world: World) -> None:
    """The clock was put back, or the schedule resumed: the run that goes on is the very one that would replace it."""
    planned(world)
    fire(world, firing("a", overlap="replace"))
    assert fire(world, firing("a", overlap="replace")) == Fired(("a",))
    assert world.status("a") == "queued"


def test_replace_leaves_alone_what_one_that_has_ended_has_started(world: World) -> None:
    planned(world)
    fire(world, firing("a"))
    assert world.claim(world.enlist()) == ["a"]
    world.start("child", parent=Guard("a", 1))
    assert world.end(Guard("a", 1)).written
    assert fire(world, firing("b", overlap="replace")) == Fired(("b",))
    assert world.status("child") == "queued"


def test_replace_cancels_what_is_held(world: World) -> None:
    planned(world)
    fire(world, firing("a"))
    ended(world, "a", Outcome(Status.HELD, error="{}"))
    assert fire(world, firing("b", overlap="replace")) == Fired(("b",), cancelled=True)


def test_the_end_of_the_one_before_and_a_firing_at_once_lose_no_wake_up(world: World) -> None:
    """Either the firing sees that it has ended, or the wake-up after its end finds who waits."""
    planned(world)
    executor = world.enlist()
    for n in range(10):
        before, behind = f"a{n}", f"b{n}"
        assert fire(world, firing(before, overlap="queue")) is not None
        assert world.claim(executor) == [before]

        def end(key: str = before) -> object:
            world.end(Guard(key, 1))
            return world.ask(Wake((key,)))

        next_one, turn = firing(behind, overlap="queue"), shown(world).turn
        actions: list[Callable[[], object]] = [
            partial(eventually, partial(tried, world, next_one, turn=turn), "it is fired at last"),
            end,
        ]
        together(actions)
        assert world.claim(executor) == [behind]
        assert world.end(Guard(behind, 1)).written
