"""The inbox before the lanes, with lanes that only note what they carry: who goes together, who waits, who is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from queue import SimpleQueue
from threading import Lock
from typing import Any

import pytest

from children import PATIENCE, eventually
from conformance.world import SUCCESS, start, step, together
from operon.core.commands import Advance
from operon.core.rows import Advanced, Started
from operon.errors import StoreError
from operon.stores.postgres import lanes
from operon.stores.postgres.lanes import Lanes, Settle, Ticket

WRITTEN = Advanced(written=True)


class Slow:
    """A lane that carries a batch when it is let go; what is to meet a lock is given by its key and position."""

    def __init__(self, *locked: tuple[str, str]) -> None:
        self.batches: SimpleQueue[list[Ticket]] = SimpleQueue()
        self.patients: SimpleQueue[Ticket] = SimpleQueue()
        self.gate: SimpleQueue[BaseException | None] = SimpleQueue()
        self.unlocked: SimpleQueue[None] = SimpleQueue()
        self.locked = locked

    def carry(self, tickets: Sequence[Ticket], settle: Settle) -> Sequence[Ticket]:
        self.batches.put([*tickets])
        if error := self.gate.get(timeout=PATIENCE):
            raise error
        locked = [ticket for ticket in tickets if named(ticket) in self.locked]
        done = [ticket for ticket in tickets if ticket not in locked]
        settle(done, [WRITTEN] * len(done))
        return locked

    def carry_patiently(self, ticket: Ticket, settle: Settle) -> None:
        self.patients.put(ticket)
        self.unlocked.get(timeout=PATIENCE)
        settle([ticket], [StoreError("it was locked")])

    def close(self) -> None:
        pass

    def next(self) -> list[tuple[str, str]]:
        """Wait for the next batch, and give what is in it."""
        return [named(ticket) for ticket in self.batches.get(timeout=PATIENCE)]

    def finish(self, error: BaseException | None = None) -> None:
        self.gate.put(error)


def named(ticket: Ticket) -> tuple[str, str]:
    entries = getattr(ticket.command, "entries", ())
    return ticket.key, ",".join(entry.position for entry in entries)


def write(key: str, *positions: str, end: Any = None) -> Advance:
    return Advance(key, 1, tuple(step(position) for position in positions), end)


@pytest.fixture
def lane() -> Slow:
    return Slow()


@pytest.fixture
def inbox(lane: Slow) -> Iterator[Lanes]:
    with closing(Lanes([lane])) as made:
        yield made


def test_what_arrives_while_a_batch_is_under_way_goes_in_the_next(lane: Slow, inbox: Lanes) -> None:
    first = inbox.submit(write("a", "1"))
    assert lane.next() == [("a", "1")]
    others = [inbox.submit(write(key, "1")) for key in "bcd"]
    lane.finish()
    assert lane.next() == [("b", "1"), ("c", "1"), ("d", "1")]
    lane.finish()
    assert [future.result(PATIENCE) for future in (first, *others)] == [WRITTEN] * 4


def test_records_of_a_workflow_go_together_until_one_must_wait(lane: Slow, inbox: Lanes) -> None:
    """What does more than write, or writes the same, waits, and what is behind it too; neighbours go."""
    inbox.submit(write("x", "1"))
    lane.next()
    futures = [
        *(inbox.submit(write("a", position)) for position in ("1", "2", "2", "3")),
        inbox.submit(write("b", "1", "1")),
        inbox.submit(write("b", "2")),
        inbox.submit(write("c", "1")),
        inbox.submit(write("c", "2", end=SUCCESS)),
        inbox.submit(start("d")),
        inbox.submit(write("d", "1")),
    ]
    lane.finish()
    assert lane.next() == [("a", "1"), ("a", "2"), ("b", "1,1"), ("c", "1"), ("d", "")]
    lane.finish()
    assert lane.next() == [("a", "2"), ("a", "3"), ("b", "2"), ("c", "2"), ("d", "1")]
    lane.finish()
    assert [future.result(PATIENCE) for future in futures] == [WRITTEN] * len(futures)


def test_commands_that_are_submitted_together_are_carried_together(lane: Slow, inbox: Lanes) -> None:
    futures = inbox.submit_many([write(key, "1") for key in "abc"])
    assert lane.next() == [("a", "1"), ("b", "1"), ("c", "1")]
    lane.finish()
    assert [future.result(PATIENCE) for future in futures] == [WRITTEN] * 3
    assert not inbox.submit_many([])


def test_a_batch_has_a_largest_size(lane: Slow, inbox: Lanes) -> None:
    futures = inbox.submit_many([write(str(n), "1") for n in range(lanes.LARGEST + 1)])
    assert len(lane.next()) == lanes.LARGEST
    lane.finish()
    assert len(lane.next()) == 1
    lane.finish()
    assert all(future.result(PATIENCE).written for future in futures)


def test_an_end_waits_for_every_record_that_waits_for_a_lock() -> None:
    """Two records of one workflow have met locks: that one of them is written lets nothing ahead of the other."""
    lane = Slow(("a", "1"), ("a", "2"))
    with closing(Lanes([lane])) as inbox:
        futures = [*inbox.submit_many([write("a", "1"), write("a", "2"), write("b", "1")])]
        assert len(lane.next()) == 3
        futures.append(inbox.submit(write("a", "3", end=SUCCESS)))
        lane.finish()
        for _ in range(2):
            lane.patients.get(timeout=PATIENCE)
        lane.unlocked.put(None)
        eventually(lambda: any(future.done() for future in futures[:2]), "one of them is written")
        futures.append(inbox.submit(write("c", "1")))
        assert lane.next() == [("c", "1")]
        lane.unlocked.put(None)
        lane.finish()
        assert lane.next() == [("a", "3")]
        lane.finish()
        assert [type(future.exception(PATIENCE)) for future in futures[:2]] == [StoreError] * 2
        assert [future.result(PATIENCE) for future in futures[2:]] == [WRITTEN] * 3


def test_whoever_is_told_finds_the_way_free() -> None:
    """A workflow's next record goes ahead on another lane while the answers of its last batch are still given."""
    one, other = Slow(), Slow()
    other.batches, other.gate = one.batches, one.gate
    with closing(Lanes([one, other])) as inbox:
        answers: SimpleQueue[Any] = SimpleQueue()

        def told(_: Future[Any]) -> None:
            second = inbox.submit(write("a", "2"))
            assert one.next() == [("a", "2")]
            one.finish()
            answers.put(second.result(PATIENCE))

        first = inbox.submit(write("a", "1"))
        assert one.next() == [("a", "1")]
        first.add_done_callback(told)
        one.finish()
        assert answers.get(timeout=PATIENCE) == WRITTEN


def test_an_interrupt_leaves_what_is_not_settled_to_be_asked_again(lane: Slow, inbox: Lanes) -> None:
    """The thread that carries for all is gone; whoever comes next carries what it had, and it says so."""

    def lead() -> None:
        with pytest.raises(KeyboardInterrupt):
            inbox.ask(write("a", "1"))

    def others() -> None:
        assert lane.next() == [("a", "1")]
        submitted = inbox.submit(write("b", "1"))
        lane.finish(KeyboardInterrupt())
        batch = lane.batches.get(timeout=PATIENCE)
        assert [(ticket.key, ticket.again) for ticket in batch] == [("a", True), ("b", False)]
        lane.finish()
        assert submitted.result(PATIENCE) == WRITTEN

    together([lead, others])


def test_an_interrupt_among_the_answers_keeps_nobody_from_his(lane: Slow, inbox: Lanes) -> None:
    """A thread that was handed the lane is interrupted while it tells the others."""

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    def lead() -> None:
        assert lane.next() == [("x", "1")]
        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(inbox.ask, write("a", "1"))
            eventually(lambda: inbox.waiting == 1, "it is in line")
            futures = inbox.submit_many([write(key, "1") for key in "bcd"])
            futures[0].add_done_callback(interrupt)
            lane.finish()
            assert len(lane.next()) == 4
            lane.finish()
            assert isinstance(asked.exception(PATIENCE), KeyboardInterrupt)
        assert [future.result(PATIENCE) for future in reversed(futures)] == [WRITTEN] * 3
        after = inbox.submit(write("b", "2"))
        assert lane.next() == [("b", "2")]
        lane.finish()
        assert after.result(PATIENCE) == WRITTEN

    together([lead, lambda: inbox.ask(write("x", "1"))])


class Checking:
    """A lane that fails where two commands of a workflow are under way that may not be."""

    def __init__(self, under_way: Counter[str], mutex: Lock, seen: dict[str, list[int]]) -> None:
        self.under_way, self.mutex, self.seen = under_way, mutex, seen

    def carry(self, tickets: Sequence[Ticket], settle: Settle) -> Sequence[Ticket]:
        with self.mutex:
            for ticket in tickets:
                assert isinstance(ticket.command, Advance)
                assert not self.under_way[ticket.key]
                self.seen[ticket.key].append(int(ticket.command.entries[0].position))
            self.under_way.update(ticket.key for ticket in tickets)
        with self.mutex:
            self.under_way.subtract(ticket.key for ticket in tickets)
        settle(tickets, [Started(created=True, outcome=SUCCESS, name="", digest="")] * len(tickets))
        return ()

    def carry_patiently(self, ticket: Ticket, settle: Settle) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


def test_a_workflows_commands_go_one_after_the_other_whoever_brings_them() -> None:
    """Two lanes, and threads that ask and submit: of each workflow one at a time, and in order."""
    seen: dict[str, list[int]] = {f"w{n}": [] for n in range(12)}
    under_way, mutex = Counter[str](), Lock()
    with closing(Lanes([Checking(under_way, mutex, seen) for _ in range(2)])) as inbox:

        def bring(keys: Sequence[str], *, asks: bool) -> None:
            futures: list[Future[Any]] = []
            for n in range(200):
                commands = [write(key, str(n), end=SUCCESS) for key in keys]
                if asks:
                    for command in commands:
                        inbox.ask(command)
                else:
                    futures += inbox.submit_many(commands) if n % 2 else map(inbox.submit, commands)
            for future in futures:
                future.result(PATIENCE)

        keys = [*seen]
        together(
            [
                lambda: bring(keys[:4], asks=False),
                lambda: bring(keys[4:8], asks=False),
                lambda: bring(keys[8:10], asks=True),
                lambda: bring(keys[10:], asks=True),
            ]
        )
    assert seen == {key: [*range(200)] for key in seen}
