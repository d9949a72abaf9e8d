"""Items come together in one commit, each in one batch at most, and end with it in one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from conformance.world import SUCCESS, World, start, step, together
from operon.core.batches import items
from operon.core.commands import Cancel, Claim, Delete, Form, Load, Look, Queues, Ripen, Seed, TakeOver, Wake
from operon.core.rows import Guard, Limits, NewWorkflow, Outcome, Park, Share
from operon.core.states import Status

if TYPE_CHECKING:
    from collections.abc import Callable

QUEUES = (("q", 100),)
WAIT = 10.0


def queued(world: World, *keys: str, **options: Any) -> None:
    """Put items in line that wait for company."""
    world.ask(Seed("q", Limits(), "shop"))
    for key in keys:
        assert world.start(key, **{"queue": "q", "delay": WAIT, "input": f'{{"docs":"{key}"}}'} | options).created


def lead(world: World, executor: int, limit: int = 1) -> list[Guard]:
    """Claim items, as somebody who will let them lead."""
    claim = Claim(executor, ("greet",), (), "v1", limit, QUEUES)
    return [Guard(it.row.id, it.row.claim) for it in world.ask(claim)]


def form(leader: Guard, key: str = "batch", **options: Any) -> Form:
    fields: dict[str, Any] = {"size": 10, "wait": WAIT, "room": 1000}
    own = {name: options.pop(name) for name in tuple(options) if name in fields}
    row: NewWorkflow = start(key, name="greet[]", queue="q", input="", **options).row
    return Form(leader, "greet", row, **fields | own)


def formed(world: World, *keys: str, executor: int | None = None) -> tuple[list[str], Guard]:
    """Form a batch that runs."""
    executor = executor or world.enlist()
    queued(world, *keys)
    world.pass_time(WAIT + 1)
    (leader,) = lead(world, executor)
    text = world.ask(form(leader, executor=executor))
    assert text is not None
    return [item.id for item in items(text)], Guard("batch", 1)


def shares(world: World, *keys: str, **ends: Outcome) -> Outcome:
    each = tuple(Share(Guard(key, world.row(key).claim), ends.get(key, SUCCESS)) for key in keys)
    return Outcome(Status.SUCCEEDED, output="null", shares=each)


def test_the_first_leads_and_the_others_wait_with_it(world: World) -> None:
    executor = world.enlist()
    those, batch = formed(world, "a", "b", "c", executor=executor)
    assert those == ["a", "b", "c"]
    row = world.row("batch")
    assert (row.status, row.name, row.queue, row.executor, row.claim) == ("running", "greet[]", "q", executor, 1)
    for place, key in enumerate(those):
        (entry,) = world.ask(Load(key))
        assert (entry.kind, entry.name, entry.child, entry.output) == ("start", "greet[]", "batch", str(place))
        assert (world.status(key), world.row(key).executor) == ("waiting", None)
    (line,) = world.ask(Queues())
    assert (line.queued, line.running) == (0, 1)
    assert lead(world, executor) == []
    assert world.write(batch, step()).written


def test_a_batch_takes_only_its_like(world: World) -> None:
    """Of the same function, queue, partition, object and version; and none that is delayed for longer than the wait."""
    executor = world.enlist()
    queued(world, "leader", delay=0.0, partition="p")
    queued(world, "like", partition="p")
    queued(world, "other name", partition="p", name="another")
    queued(world, "other partition")
    queued(world, "other object", partition="p", instance="Shop/eu")
    queued(world, "pinned", partition="p", pin="v0")
    queued(world, "later", partition="p", delay=3 * WAIT)
    (leader,) = lead(world, executor)
    text = world.ask(form(leader, partition="p"))
    assert [item.id for item in items(text or "")] == ["leader", "like"]


def test_a_batch_is_no_larger_than_its_size_and_its_room(world: World) -> None:
    executor = world.enlist()
    queued(world, *"abcde")
    world.pass_time(WAIT + 1)
    (leader,) = lead(world, executor)
    assert [item.id for item in items(world.ask(form(leader, size=2)) or "")] == ["a", "b"]
    (leader,) = lead(world, executor)
    assert [item.id for item in items(world.ask(form(leader, "second", room=20)) or "")] == ["c"]
    assert [it.workflow_id for it in lead(world, executor, 9)] == ["d", "e"]


def test_a_leader_that_lost_its_claim_forms_nothing(world: World) -> None:
    executor = world.enlist()
    queued(world, "a", "b")
    world.pass_time(WAIT + 1)
    (leader,) = lead(world, executor)
    world.kill(executor)
    assert world.ask(TakeOver(10, 5, "{}")) == 1
    assert world.ask(form(leader)) is None
    assert (world.status("a"), world.status("b")) == ("queued", "queued")
    assert world.ask(Look(("batch",))) == {}


def test_a_batch_that_is_formed_again_is_the_same(world: World) -> None:
    """The answer was lost, and whoever asked for it asks again."""
    executor = world.enlist()
    queued(world, "a", "b")
    world.pass_time(WAIT + 1)
    (leader,) = lead(world, executor)
    command = form(leader)
    assert world.ask(command) == world.ask(command)
    assert world.positions("a") == world.positions("b") == ["1"]


def test_no_item_is_in_two_batches_and_none_is_lost(world: World) -> None:
    executor = world.enlist()
    keys = [f"i{n:02}" for n in range(40)]
    queued(world, *keys)
    world.pass_time(WAIT + 1)
    leaders = lead(world, executor, 4)
    forms = [partial(world.ask, form(leader, f"batch{n}", size=6)) for n, leader in enumerate(leaders)]
    texts = together(forms)
    seen = [item.id for text in texts for item in items(text or "")]
    assert len(seen) == len(set(seen))
    assert {leader.workflow_id for leader in leaders} <= set(seen)
    left = {key for key in keys if world.status(key) == "queued"}
    assert left | set(seen) == set(keys)
    assert left.isdisjoint(seen)


def test_a_batch_that_nobody_runs_is_in_line(world: World) -> None:
    executor = world.enlist()
    queued(world, "a")
    world.pass_time(WAIT + 1)
    (leader,) = lead(world, executor)
    world.ask(form(leader))
    assert world.claim(executor, names=("greet[]",), queues=QUEUES) == ["batch"]


# ── The end ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_items_end_with_their_batch_in_one_commit(world: World) -> None:
    those, batch = formed(world, "a", "b", "c")
    failure = Outcome(Status.FAILED, error='"no"')
    assert world.write(batch, step(), end=shares(world, *those, b=failure)).written
    ends = world.ask(Look(("a", "b", "c", "batch")))
    assert {key: (it.status, it.output, it.error) for key, it in ends.items()} == {
        "a": ("succeeded", "1", None),
        "b": ("failed", None, '"no"'),
        "c": ("succeeded", "1", None),
        "batch": ("succeeded", "null", None),
    }
    assert world.row("a").ended_at is not None
    world.pass_time(1e6)
    assert world.claim(world.enlist(), names=("greet", "greet[]"), queues=QUEUES) == []


def test_a_fenced_batch_ends_no_item(world: World) -> None:
    those, batch = formed(world, "a", "b")
    end = shares(world, *those)
    world.ask(Cancel("batch"))
    assert not world.write(batch, end=end).written
    assert (world.status("a"), world.status("b")) == ("waiting", "waiting")


def test_an_item_that_was_cancelled_stays_cancelled(world: World) -> None:
    those, batch = formed(world, "a", "b")
    end = shares(world, *those)
    world.ask(Cancel("b"))
    assert world.write(batch, end=end).written
    assert (world.status("a"), world.status("b")) == ("succeeded", "cancelled")


def test_the_next_workflow_of_an_items_id_is_left_alone(world: World) -> None:
    those, batch = formed(world, "a", "b")
    end = shares(world, *those)
    world.ask(Cancel("b"))
    assert world.ask(Delete("b")) == 1
    assert world.start("b", executor=world.enlist(), nonce=7 << 20).created
    assert world.end(Guard("b", world.row("b").claim), Park(None)).parked
    assert world.write(batch, end=end).written
    assert world.status("b") == "waiting"


def test_an_end_that_is_written_again_is_the_same(world: World) -> None:
    """Its answer was lost: a store may find that it is done, or that it is fenced; the items have ended once."""
    those, batch = formed(world, "a", "b")
    end = shares(world, *those)
    assert world.write(batch, end=end).written
    before = [world.row(key) for key in those]
    world.write(batch, end=end)
    assert [world.row(key) for key in those] == before


@pytest.mark.parametrize("end", [Outcome(Status.HELD, error="{}"), None])
def test_items_of_a_batch_that_ends_without_them_are_woken(world: World, end: Outcome | None) -> None:
    those, batch = formed(world, "a", "b")
    if end is None:
        world.ask(Cancel("batch"))
    else:
        assert world.write(batch, end=end).written
    assert world.ask(Wake(None)) == 2
    assert sorted(world.claim(world.enlist(), queues=QUEUES)) == those
    assert not any(world.row(key).fresh for key in those), "their journals say which batch it was"


def test_an_item_that_has_been_in_a_batch_joins_no_other(world: World) -> None:
    """It is in line again because its batch was cancelled or its deadline has passed, and ends by itself."""
    executor = world.enlist()
    those, _ = formed(world, "a", "b", executor=executor)
    world.ask(Cancel("batch"))
    assert world.ask(Wake(None)) == 2
    queued(world, "c", "d", delay=0.0, priority=9)
    claim = Claim(executor, ("greet",), (), "v1", 1, QUEUES)
    (leader,) = (it.row for it in world.ask(claim))
    assert leader.id == "c"
    text = world.ask(form(Guard(leader.id, leader.claim), "second"))
    assert [item.id for item in items(text or "")] == ["c", "d"]
    assert sorted(world.claim(executor, queues=QUEUES)) == those


def test_a_batch_of_the_dead_is_taken_over_with_its_items(world: World) -> None:
    executor = world.enlist()
    those, batch = formed(world, "a", "b", executor=executor)
    world.write(batch, step())
    world.kill(executor)
    assert world.ask(TakeOver(10, 5, "{}")) == 1
    assert world.claim(world.enlist(), names=("greet[]", "greet"), queues=QUEUES) == ["batch"]
    assert world.positions("batch") == ["1"]
    assert [item.id for item in items(world.row("batch").input)] == those


# ── Ripening ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def ripen(world: World, size: int) -> int:
    return world.ask(Ripen(("q",), (("greet", size, WAIT),)))


def test_a_full_batch_need_not_wait(world: World) -> None:
    executor = world.enlist()
    queued(world, *"abcde")
    assert ripen(world, 6) == 0
    assert lead(world, executor, 9) == []
    assert ripen(world, 2) == 2
    assert [it.workflow_id for it in lead(world, executor, 9)] == ["a", "b"]


def test_who_has_begun_takes_his_company_before_others_begin(world: World) -> None:
    """In line or running, he will take all but his own place of it; so nobody begins early without a full batch."""
    executor = world.enlist()
    queued(world, *"abc")
    assert ripen(world, 3) == 1
    queued(world, *"de")
    assert ripen(world, 3) == 0  # one is in line, and takes two of four
    (leader,) = lead(world, executor, 9)
    queued(world, "f")
    assert ripen(world, 3) == 1  # one runs, and leaves three of five
    queued(world, *"gh")
    assert ripen(world, 3) == 0
    assert [item.id for item in items(world.ask(form(leader, executor=executor, size=3)) or "")] == ["a", "b", "c"]
    assert ripen(world, 3) == 1
    assert ripen(world, 3) == 0


def test_each_partition_and_function_fills_its_own(world: World) -> None:
    queued(world, "a")
    queued(world, "b", partition="p")
    queued(world, "c", name="another")
    queued(world, "d", delay=3 * WAIT)
    assert ripen(world, 2) == 0
    queued(world, "e", partition="p")
    assert ripen(world, 2) == 1
    assert world.ask(Ripen((), ())) == 0


def test_two_that_let_begin_let_begin_once(durable: World) -> None:
    queued(durable, *(f"i{n}" for n in range(20)))
    both: list[Callable[[], int]] = [partial(ripen, durable, 10)] * 2
    assert sum(together(both)) >= 2
    executor = durable.enlist()
    assert len(lead(durable, executor, 99)) <= 4
