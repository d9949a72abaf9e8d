"""A journal is append-only, its first writer wins, and only who holds the claim writes."""

from __future__ import annotations

import threading
from functools import partial
from itertools import count

import pytest
from msgspec.structs import replace

from children import eventually
from conformance.world import SUCCESS, World, step, together
from operon.core.commands import Cancel, HandBack, Load, TakeOver
from operon.core.rows import Advanced, Entry, Guard, Kind, Outcome, Park
from operon.core.states import Status

FENCED = Advanced(written=False)


def test_entries_are_read_in_the_order_of_completion(world: World) -> None:
    guard = world.run()
    world.write(guard, step("1", ordinal=3), step("2", ordinal=1))
    world.write(guard, step("10", ordinal=2))
    assert world.positions() == ["2", "10", "1"]
    assert world.ask(Load("nobody")) == ()


def test_every_field_of_an_entry_is_kept(world: World) -> None:
    guard = world.run()
    written = Entry(
        "2/1#1",
        7,
        Kind.TRANSACTION,
        "debit",
        "digest",
        "1",
        '{"e": 1}',
        "child",
        None,
        2.5,
        3,
        "v1/3.11",
        "serializable",
    )
    world.write(guard, written)
    (read,) = world.ask(Load("w"))
    assert read.ended_at - read.started_at == pytest.approx(2.5, abs=1e-3)
    assert read.elapsed == pytest.approx(2.5, abs=1e-3)
    assert replace(read, started_at=0.0, ended_at=0.0, elapsed=2.5) == written


def test_a_claim_that_was_lost_is_fenced(world: World) -> None:
    """What a zombie writes after its workflow was claimed by another never lands."""
    old = world.run()
    executor = world.row().executor or 0
    world.ask(HandBack(executor))
    world.claim(executor)
    assert world.write(old, step(), end=SUCCESS) == FENCED
    assert (world.status(), world.positions()) == ("running", [])
    assert world.write(Guard("w", 2), step()).written


@pytest.mark.parametrize("claim", [0, 2, 7])
def test_a_claim_that_never_was_is_fenced(world: World, claim: int) -> None:
    world.run()
    assert world.write(Guard("w", claim), step()) == FENCED
    assert world.write(Guard("nobody", 1), step()) == FENCED
    assert world.end(Guard("nobody", 1)) == FENCED


@pytest.mark.parametrize(
    "end", [SUCCESS, Outcome(Status.FAILED, error="{}"), Outcome(Status.HELD), Outcome(Status.QUEUED), Park(None)]
)
def test_who_no_longer_runs_writes_no_more(world: World, end: Outcome | Park) -> None:
    """The claim's number alone is no permission: the row must be running."""
    guard = world.run()
    assert world.end(guard, end).written
    before = world.row()
    assert world.write(guard, step(), end=Outcome(Status.FAILED)) == FENCED
    assert (world.row(), world.positions()) == (before, [])


def test_the_first_writer_of_a_position_wins(world: World) -> None:
    """The loser is told, and nothing of what it sent is kept: neither its other entries nor its end."""
    guard = world.run()
    world.write(guard, step("1", output="first"))
    assert world.write(guard, step("2"), step("1", output="second"), step("3"), end=SUCCESS) == FENCED
    assert (world.status(), world.positions()) == ("running", ["1"])
    assert world.ask(Load("w"))[0].output == "first"


def test_what_another_claim_wrote_is_not_mine(world: World) -> None:
    """Even the same words: whoever loaded the journal before they were written must load it again."""
    world.write(world.run(), step("1"))
    executor = world.row().executor or 0
    world.ask(HandBack(executor))
    world.claim(executor)
    assert world.write(Guard("w", 2), step("1")) == FENCED


def test_a_repeated_advance_is_written_once_and_answered_alike(world: World) -> None:
    """A lost answer is repeated: the same entry under the same claim counts as written, and keeps its instant."""
    guard, nap = world.run(), Entry("2", 2, Kind.SLEEP, "sleep", after=5.0)
    first = world.write(guard, step("1"), nap)
    world.pass_time(3)
    before = world.ask(Load("w"))
    again = world.write(guard, step("1"), nap, step("3"))
    assert again.written
    assert again.instants == pytest.approx(first.instants)
    assert world.ask(Load("w"))[:2] == before
    assert world.positions() == ["1", "2", "3"]


def test_of_racing_writers_of_a_position_one_wins(world: World) -> None:
    guard = world.run()
    answers = together([partial(world.write, guard, step("1", output=str(n))) for n in range(8)])
    assert sum(answer.written for answer in answers) == 1
    winner = next(str(n) for n, answer in enumerate(answers) if answer.written)
    assert world.ask(Load("w"))[0].output == winner


def test_an_outcome_comes_with_its_records_in_one(world: World) -> None:
    executor = world.enlist()
    guard = world.run(executor=executor)
    assert world.write(guard, step("1"), step("2"), end=Outcome(Status.SUCCEEDED, output="9")).written
    row = world.row()
    assert (row.status, row.output, row.executor, row.ready_at) == ("succeeded", "9", executor, None)
    assert row.ended_at is not None
    assert row.ended_at >= row.created_at
    assert world.positions() == ["1", "2"]


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(Status.SUCCEEDED, output="1"),
        Outcome(Status.SUCCEEDED),
        Outcome(Status.FAILED, error='{"type": "E"}'),
        Outcome(Status.CANCELLED),
        Outcome(Status.HELD, error='{"type": "Divergence"}'),
    ],
)
def test_an_outcome_stands_as_it_was_given(world: World, outcome: Outcome) -> None:
    """With the executor that ran it last."""
    executor = world.enlist()
    guard = world.run(executor=executor)
    world.end(guard, outcome)
    row = world.row()
    assert Outcome(row.status, row.output, row.error) == outcome
    assert (row.executor, row.ready_at, row.ended_at is not None) == (executor, None, outcome.status.ended)
    assert world.claim(world.enlist()) == []


def test_a_run_handed_back_is_ready_at_once(world: World) -> None:
    guard = world.run()
    world.end(guard, Outcome(Status.QUEUED))
    assert world.claim(world.enlist()) == ["w"]
    assert world.row().claim == guard.claim + 1


def test_instants_are_the_stores(world: World) -> None:
    """`after` counts from the moment of the record, by the clock that wakes sleepers, not by the caller's."""
    guard = world.run()
    begin = world.now()
    naps = [Entry(str(n), n, Kind.SLEEP, "sleep", after=after) for n, after in ((1, 0.0), (3, 60.0))]
    answer = world.write(guard, naps[0], step("2"), naps[1])
    now, later = answer.instants
    assert begin <= now <= world.now()
    assert later == pytest.approx(now + 60, abs=1e-3)
    recorded = [float(entry.output or "") for entry in world.ask(Load("w")) if entry.kind is Kind.SLEEP]
    assert recorded == list(answer.instants)


def test_an_entry_of_any_order_or_branch_has_its_place(world: World) -> None:
    guard = world.run()
    for ordinal, position in enumerate(["1", "2/1", "2/10", "2/2", "2/1#1", "2/1~", "1/1/1"], 1):
        assert world.write(guard, step(position, ordinal=ordinal)).written
    assert world.positions() == ["1", "2/1", "2/10", "2/2", "2/1#1", "2/1~", "1/1/1"]


def test_an_advance_of_nothing_says_whether_the_claim_is_held(world: World) -> None:
    guard = world.run()
    assert world.write(guard) == Advanced(written=True)
    world.ask(Cancel("w"))
    assert world.write(guard) == FENCED


def test_nothing_lands_after_a_takeover(world: World) -> None:
    """Records race with the takeover of their executor: what was acknowledged is in the journal, the rest is not."""
    executor = world.enlist()
    guard, over = world.run(executor=executor), threading.Event()

    def write_until_fenced() -> int:
        for n in count(1):
            late = over.is_set()
            if not world.write(guard, step(str(n))).written:
                return n
            assert not late, "it was written after the takeover"
        raise AssertionError

    def take_over() -> int:
        try:
            eventually(lambda: len(world.positions()) >= 3, "three are written")
            world.kill(executor)
            eventually(lambda: world.ask(TakeOver(10, 3, "{}")), "it is taken over, between two statements")
            return len(world.positions())
        finally:
            over.set()

    fenced_at, seen = together([write_until_fenced, take_over])
    assert seen == fenced_at - 1 == len(world.positions())
