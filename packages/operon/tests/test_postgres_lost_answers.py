"""A connection is lost after a commit was sent and before its answer came: everything still happens exactly once.

A trigger keeps the commit pending, as a slow disk or a synchronous replica would, until the test lets it go; by then
the store has reconnected and sent its command again.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Self, TypeVar

import psycopg
import pytest

from children import PATIENCE, eventually
from conformance.world import SUCCESS, World, start, step
from operon.core.commands import Advance, Command, Count, HandBack, Load, StartMany
from operon.core.rows import Advanced, Filter, Guard, Outcome, Park
from operon.core.states import Status
from operon.stores.postgres import PostgresStore, writes
from operon.stores.postgres.session import Address, Session
from relaying import Relay

T = TypeVar("T")

KEY = 42
SLOW_COMMIT = """
create function public.wait_for_the_test() returns trigger language plpgsql as $$
begin
    perform set_config('lock_timeout', '0', true), pg_advisory_xact_lock_shared(42);
    return null;
end $$;
create constraint trigger slow after insert or update on operon.workflows deferrable initially deferred
    for each row execute function public.wait_for_the_test();
create constraint trigger slow after insert on operon.steps deferrable initially deferred
    for each row execute function public.wait_for_the_test();
"""


@pytest.fixture
def relay(postgres_url: str) -> Iterator[Relay]:
    with closing(Relay(postgres_url)) as made:
        yield made


@pytest.fixture
def world(postgres_url: str, relay: Relay) -> Iterator[World]:
    with closing(PostgresStore(relay.url)) as store:
        store.open()
        with psycopg.connect(postgres_url) as connection:
            connection.execute(SLOW_COMMIT)
        yield World(store, lambda _: None)


class Pending:
    """Holds up every commit of the engine until it is let go."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def __enter__(self) -> Self:
        self._connection.execute("select pg_advisory_lock(%s)", (KEY,))
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def wait_until(self, *events: str) -> None:
        """Look at the sessions of the engine until one of them waits for one of these."""
        query = """
            select from pg_stat_activity
            where datname = current_database() and application_name like 'operon%%' and wait_event = any(%s)
        """
        eventually(lambda: self._connection.execute(query, [list(events)]).fetchall(), f"one waits for {events}")


def lose(world: World, url: str, relay: Relay, command: Command[T]) -> T:
    """Ask, and lose the connection while the commit is pending; it commits only after it was sent again."""
    with ThreadPoolExecutor(1) as threads, Pending(url) as pending:
        answer = threads.submit(world.ask, command)
        pending.wait_until("advisory")
        relay.cut()
        # The second attempt waits for the first, or for what it has locked.
        pending.wait_until("transactionid", "tuple", "speculative token")
        pending.__exit__()
        return answer.result(PATIENCE)


def test_a_start_happens_once_and_is_mine(world: World, postgres_url: str, relay: Relay) -> None:
    executor = world.enlist()
    answer = lose(world, postgres_url, relay, start("w", executor=executor))
    assert answer.created
    assert (world.row().claim, world.status()) == (1, "running")


def test_many_are_started_once_and_are_mine(world: World, postgres_url: str, relay: Relay) -> None:
    rows = tuple(start(f"w{n}", dedupe=f"d{n}").row for n in range(3))
    answers = lose(world, postgres_url, relay, StartMany(rows))
    assert [answer.created for answer in answers] == [True, True, True]
    assert world.ask(Count(Filter())) == 3


def test_who_replaces_does_so_once_and_not_itself(world: World, postgres_url: str, relay: Relay) -> None:
    world.start("first", dedupe="d")
    answer = lose(world, postgres_url, relay, start("second", dedupe="d", replace=True))
    assert answer.created
    assert (world.status("first"), world.status("second")) == ("cancelled", "queued")


def test_a_record_happens_once_and_is_mine(world: World, postgres_url: str, relay: Relay) -> None:
    guard = world.run()
    answer = lose(world, postgres_url, relay, Advance("w", 1, (step("1", after=60.0), step("2"))))
    assert answer.written
    recorded = world.ask(Load("w"))
    assert [entry.position for entry in recorded] == ["1", "2"]
    assert answer.instants == (float(recorded[0].output or 0),)
    assert world.end(guard).written


@pytest.mark.parametrize("written", [(), (step("1"),)], ids=["alone", "with its record"])
@pytest.mark.parametrize(
    ("end", "status"),
    [
        (SUCCESS, "succeeded"),
        (Outcome(Status.FAILED, error='"no"'), "failed"),
        (Outcome(Status.HELD, error='"why"'), "held"),
        (Outcome(Status.QUEUED), "queued"),
        (Park(4e9), "waiting"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_end_happens_once_and_is_mine(
    world: World, postgres_url: str, relay: Relay, written: tuple[()], end: Outcome | Park, status: str
) -> None:
    world.run()
    answer = lose(world, postgres_url, relay, Advance("w", 1, written, end))
    assert answer == Advanced(written=True, parked=isinstance(end, Park))
    assert world.status() == status


def test_what_another_did_meanwhile_is_not_mine(world: World, postgres_url: str, relay: Relay) -> None:
    """The commit that was lost was another's: a cancellation is no success of mine."""
    world.run()
    with ThreadPoolExecutor(1) as threads, psycopg.connect(postgres_url) as canceller:
        canceller.execute("update operon.workflows set status = 6, claim = claim + 1")
        answer = threads.submit(world.ask, Advance("w", 1, (step("1"),), SUCCESS))
        with Pending(postgres_url) as pending:
            pending.wait_until("transactionid")
        relay.cut()
        canceller.commit()
        assert answer.result(PATIENCE) == Advanced(written=False)
    assert (world.status(), world.positions()) == ("cancelled", [])


def test_the_same_outcome_under_another_claim_is_not_mine(world: World, postgres_url: str) -> None:
    """My end never arrived; who took over came to the same end. I have lost the run, and must be told so."""
    guard = world.run(executor=(executor := world.enlist()))
    world.ask(HandBack(executor))
    world.claim(executor)
    assert world.end(Guard("w", 2)).written
    with closing(Session(Address(postgres_url, "test"))) as session:
        mine = writes.perform(session, [Advance("w", guard.claim, (), SUCCESS)], again=True)
        theirs = writes.perform(session, [Advance("w", 2, (), SUCCESS)], again=True)
    assert (mine, theirs) == ([Advanced(written=False)], [Advanced(written=True)])


def test_without_answers_a_whole_batch_happens_once(world: World, relay: Relay, postgres_url: str) -> None:
    executor = world.enlist()
    with Pending(postgres_url) as pending:
        futures = [world.store.submit(start(f"w{n}", executor=executor)) for n in range(100)]
        pending.wait_until("advisory")
        relay.cut()
        pending.wait_until("transactionid", "tuple", "speculative token")
    assert all(future.result(PATIENCE).created for future in futures)
