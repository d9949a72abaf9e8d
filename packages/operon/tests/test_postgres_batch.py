"""The batch statement, attacked: each law holds, and fails to as soon as the words that uphold it are taken out.

A scenario brings about the one order of events that matters: a trigger or an open transaction stops a statement where
others must come in between.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.pq.abc import PGresult

from children import PATIENCE, eventually
from conformance.world import SUCCESS, World, start, step
from operon.core.commands import Advance, HandBack, LaneCommand, Load, TakeOver
from operon.core.rows import Advanced, Guard, Park, Started, record_parameters
from operon.core.sql import pyformat
from operon.core.states import Status
from operon.stores.postgres import PostgresStore, writes
from operon.stores.postgres.session import SQL, Address, Session, Values

SETTINGS = {"lock_timeout": "0", "enable_seqscan": "off", "deadlock_timeout": "20ms"}
STOP = """
create function public.stop() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock_shared(42);
    return new;
end $$;
create trigger stop before insert on operon.steps for each row execute function public.stop();
"""

STOP_AT_THE_SECOND = """
create function public.stop_at_the_second() returns trigger language plpgsql as $$
begin
    if current_setting('test.first', true) = 'passed' then
        perform pg_advisory_xact_lock_shared(42);
    end if;
    perform set_config('test.first', 'passed', true);
    return new;
end $$;
create trigger stop before insert on operon.workflows for each row execute function public.stop_at_the_second();
"""
STOPPED = ("advisory", "transactionid", "speculative token")


@dataclass
class Lab:
    """A world, and the statement under test beside it."""

    world: World
    url: str
    writes_beside: bool = False
    """The bystander has an entry too, so that where the others only write, `records` carries them."""

    def perform(self, *commands: LaneCommand) -> list[writes.Answer]:
        """Carry out commands in one batch; a bystander keeps it from being a single one."""
        entries = (step("1"),) if self.writes_beside else ()
        with closing(Session(Address(self.url, "test", SETTINGS))) as session:
            return writes.perform(session, [*commands, Advance("bystander", 1, entries)])[:-1]

    @contextmanager
    def under_way(self, *commands: LaneCommand, stopped_by: str) -> Generator[Callable[[], list[writes.Answer]]]:
        """Begin a batch, and go on once it is stopped by a lock of this kind; the function given waits for its end."""
        with ThreadPoolExecutor(1) as threads:
            answers = threads.submit(self.perform, *commands)
            with psycopg.connect(self.url, autocommit=True) as observer:
                while not waiting(observer, stopped_by):
                    assert not answers.done(), answers.result(PATIENCE)
            yield partial(answers.result, PATIENCE)

    @contextmanager
    def transaction(self) -> Generator[psycopg.Connection]:
        """Keep a transaction open that commits at the end."""
        with psycopg.connect(self.url) as connection:
            yield connection


def waiting(observer: psycopg.Connection[Any], *events: str) -> int:
    """Count the sessions under test that wait for a lock of one of these kinds."""
    sessions = "select from pg_stat_activity where datname = current_database() and application_name = 'operon test'"
    return len(observer.execute(f"{sessions} and wait_event = any(%s)".encode(), [list(events)]).fetchall())


@pytest.fixture
def lab(postgres_url: str) -> Iterator[Lab]:
    with closing(PostgresStore(postgres_url)) as store:
        store.open()
        world = World(store, lambda _: None)
        world.run("bystander")
        yield Lab(world, postgres_url)


def nothing_lands_after_a_takeover(lab: Lab) -> None:
    """Whoever takes a workflow over has loaded all that its former owner will ever have written."""
    world, executor = lab.world, lab.world.enlist()
    world.run("w", executor=executor)
    with lab.transaction() as gate:
        gate.execute(STOP)
    with lab.transaction() as gate:
        gate.execute("select pg_advisory_xact_lock(42)")
        with lab.under_way(Advance("w", 1, (step("1"),)), stopped_by="advisory") as finish:
            world.kill(executor)
            loaded = take_over(lab)
            gate.commit()
            finish()
    loaded = loaded or take_over(lab)
    assert loaded == [world.positions()]


def take_over(lab: Lab) -> list[list[str]]:
    """Take what the dead hold, claim it, and load its journal; nothing if it cannot be had."""
    if not lab.world.ask(TakeOver(10, poison=5, error="")):
        return []
    with lab.transaction() as connection:
        connection.execute("update operon.workflows set ready_at = now() where ready_at is not null")
    assert lab.world.claim(lab.world.enlist()) == ["w"]
    return [lab.world.positions()]


def an_old_claim_writes_nothing(lab: Lab) -> None:
    """A zombie's entries and outcome are refused, whatever the new owner does."""
    world, executor = lab.world, lab.world.enlist()
    world.run("w", executor=executor)
    world.ask(HandBack(executor))
    world.claim(executor)
    for end in (None, SUCCESS):
        answers = lab.perform(Advance("w", 1, (step("1"),), end))
        assert (answers, world.positions(), world.status()) == ([Advanced(written=False)], [], "running")


def a_recorded_position_stays_as_it_is(lab: Lab) -> None:
    """A command that would write another thing there is refused as a whole, its outcome included."""
    world = lab.world
    world.write(world.run("w"), step("1", output="first"))
    answers = lab.perform(Advance("w", 1, (step("1", output="second"), step("2")), SUCCESS))
    assert (answers, world.positions(), world.status()) == ([Advanced(written=False)], ["1"], "running")


def a_recorded_position_keeps_company_out(lab: Lab) -> None:
    """A command that would write another thing there writes nothing else either."""
    world = lab.world
    world.write(world.run("w"), step("1", output="first"))
    answers = lab.perform(Advance("w", 1, (step("1", output="second"), step("2"))))
    assert (answers, world.positions()) == ([Advanced(written=False)], ["1"])


def a_record_that_is_too_new_to_be_seen_wins(lab: Lab) -> None:
    """It commits while the batch waits for its lock: newer than the batch's snapshot, so the batch is sent again."""
    world = lab.world
    guard = world.run("w")
    with lab.transaction() as user:
        user.execute(pyformat(SQL["record"]).encode(), record_parameters(guard, step("1", output="the user's")))
        with lab.under_way(Advance("w", 1, (step("1"),)), stopped_by="transactionid") as finish:
            user.commit()
            answers = finish()
    assert answers == [Advanced(written=False)]


def no_outcome_without_its_record(lab: Lab) -> None:
    """A record that commits while the batch waits for its lock is newer than the batch's snapshot, and yet wins."""
    world = lab.world
    guard = world.run("w")
    with lab.transaction() as user:
        user.execute(pyformat(SQL["record"]).encode(), record_parameters(guard, step("1", output="the user's")))
        with lab.under_way(Advance("w", 1, (step("1"),), SUCCESS), stopped_by="transactionid") as finish:
            user.commit()
            answers = finish()
    assert (answers, world.status()) == ([Advanced(written=False)], "running")
    assert [entry.output for entry in world.ask(Load("w"))] == ["the user's"]


def nobody_sleeps_through_an_end(lab: Lab) -> None:
    """What ended before the park is seen by it, though it was not over when the park's statement began."""
    world = lab.world
    world.run("child")
    world.run("w")
    with lab.transaction() as other:
        other.execute("update operon.workflows set status = %s where id = 'child'", [Status.SUCCEEDED.code])
        with lab.under_way(Advance("w", 1, (), Park(None, ("child",))), stopped_by="transactionid") as finish:
            other.commit()
            answers = finish()
    assert (answers, world.status()) == ([Advanced(written=True)], "running")


def no_child_of_a_fenced_parent(lab: Lab) -> None:
    """A run that has lost its claim starts nothing."""
    (answer,) = lab.perform(start("child", parent=Guard("bystander", 2)))
    assert isinstance(answer, Started)
    assert answer.refused
    assert lab.world.claim(lab.world.enlist()) == []


def keys_are_inserted_in_one_order(lab: Lab) -> None:
    """Two lanes that start the same keys wait for each other in line, never in a circle: each stops after its first."""
    with lab.transaction() as gate:
        gate.execute(STOP_AT_THE_SECOND)
    orders = ["a", "b"], ["b", "a"]
    with (
        closing(Session(Address(lab.url, "test", SETTINGS))) as one,
        closing(Session(one.address)) as two,
        ThreadPoolExecutor(2) as threads,
        psycopg.connect(lab.url, autocommit=True) as observer,
        lab.transaction() as gate,
    ):
        gate.execute("select pg_advisory_xact_lock(42)")
        started = list[Future[list[writes.Answer]]]()
        for lane, order in zip((one, two), orders, strict=True):
            started.append(threads.submit(writes.perform, lane, [*map(start, order)]))
            both = len(started)
            eventually(lambda both=both: waiting(observer, *STOPPED) == both, "it waits at its second key")
        gate.commit()
        created = [[isinstance(it, Started) and it.created for it in each.result(PATIENCE)] for each in started]
    assert created == [[True, True], [False, False]]


def a_branch_may_write_beside_another(lab: Lab) -> None:
    """Several commands of one workflow that only write ride together, and only what does not fit is refused."""
    world = lab.world
    world.run("w")
    answers = lab.perform(
        Advance("w", 1, (step("1"),)), Advance("w", 2, (step("2"),)), Advance("w", 1, (step("3", after=5.0),))
    )
    assert [isinstance(answer, Advanced) and answer.written for answer in answers] == [True, False, True]
    assert world.positions() == ["1", "3"]


MUTANTS: dict[str, tuple[Callable[[Lab], None], str, str]] = {
    "the lock is dropped": (nothing_lands_after_a_takeover, "order by id for no key update", "order by id"),
    "the fence is dropped": (
        an_old_claim_writes_nothing,
        "where (id, claim) not in (select id, claim from locked where status = 1)\n        or op in",
        "where op in",
    ),
    "a position may be written twice": (
        a_recorded_position_stays_as_it_is,
        "        or op in (select op from known where not same)\n",
        "",
    ),
    "an outcome without its record": (
        no_outcome_without_its_record,
        "        and op not in (select op from lacking)\n",
        "",
    ),
    "park without looking": (nobody_sleeps_through_an_end, "        and op not in (select op from over)\n", ""),
    "a child of anybody": (
        no_child_of_a_fenced_parent,
        "where parent is null or (parent, parent_claim) in (select id, claim from locked where status = 1)",
        "where true",
    ),
    "starts unsorted": (keys_are_inserted_in_one_order, 'order by id collate "C"\n    on conflict', "on conflict"),
}
RECORDS: dict[str, tuple[Callable[[Lab], None], str, str]] = {
    "the lock is dropped": MUTANTS["the lock is dropped"],
    "the fence is dropped": (
        an_old_claim_writes_nothing,
        "where (workflow_id, claim) not in (select id, claim from locked where status = 1)\n        or op in",
        "where op in",
    ),
    "a position may be written twice": (
        a_recorded_position_keeps_company_out,
        *MUTANTS["a position may be written twice"][1:],
    ),
    "what is lacking is not told": (
        a_record_that_is_too_new_to_be_seen_wins,
        "union all select 'lacking', op, null, null from lacking\n",
        "",
    ),
}
"""Of the statement that only writes."""
LAWS = [*dict.fromkeys(law for law, _, _ in MUTANTS.values()), a_branch_may_write_beside_another]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law_holds(lab: Lab, law: Callable[[Lab], None]) -> None:
    law(lab)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_law_needs_every_word(lab: Lab, mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law, words, others = MUTANTS[mutant]
    assert words in SQL["batch"]
    monkeypatch.setitem(SQL, "batch", SQL["batch"].replace(words, others))
    with pytest.raises((AssertionError, psycopg.errors.DeadlockDetected)):
        law(lab)


@pytest.mark.parametrize(
    "law", [*(law for law, _, _ in RECORDS.values()), a_branch_may_write_beside_another], ids=lambda law: law.__name__
)
def test_law_holds_for_records(lab: Lab, law: Callable[[Lab], None]) -> None:
    lab.writes_beside = True
    law(lab)


@pytest.mark.parametrize("mutant", RECORDS)
def test_law_needs_every_word_for_records(lab: Lab, mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law, words, others = RECORDS[mutant]
    assert words in SQL["records"]
    monkeypatch.setitem(SQL, "records", SQL["records"].replace(words, others))
    lab.writes_beside = True
    with pytest.raises(AssertionError):
        law(lab)


def test_a_park_looks_only_after_it_has_locked(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one statement with the lock, the look would be at a snapshot from before it."""

    def run_second(session: Session, _: tuple[str, Values], second: tuple[str, Values]) -> PGresult:
        name, values = second
        return session.run(name, values, (1,) * len(values))

    monkeypatch.setattr(Session, "run_both", run_second)
    with pytest.raises(AssertionError):
        nobody_sleeps_through_an_end(lab)
