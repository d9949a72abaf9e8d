"""What the work costs on Postgres, counted: statements, round trips, commits, and those of them that write.

None of it depends on how fast the machine is. Who needs fewer writes it down here.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

import operon
from children import PATIENCE, eventually
from counting import Till
from engine.stepping import stepping
from operon import Operon
from operon.core.commands import KeepSchedule, Schedules
from operon.core.timetable import Template
from operon.embedded import Postgres
from operon.engine.executor import BEATS_A_LEASE
from operon.engine.settings import Settings

RARE = {"configure", "erase", "forget", "strip", "stripped", "prune_executors", "prune_admissions"}
"""What a connection costs once, and what is swept once a minute."""
WARM = 7
"""After so many times a statement is prepared on its connection, which costs a round trip once."""


@pytest.fixture
def till(counting_postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[Till]:
    made = Till(counting_postgres, re.sub(r"\W+", "_", request.node.name).lower()[:60])
    yield made
    made.close()


@pytest.fixture
def app(till: Till) -> Iterator[Operon]:
    made = Operon("app", database=till.url, lease=3600.0, grace=0.05)
    yield made
    made.close()


def steps_alone(steps: int) -> tuple[str, ...]:
    return ("start", *["write"] * (steps - 1), "write_and_finish") if steps else ("start", "finish")


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("steps", [0, 1, 10])
def test_a_workflow_of_n_steps_is_n_plus_1_commits(app: Operon, till: Till, steps: int, colour: str) -> None:
    """Alone, each is one statement and one round trip; a peer needs 8 + 10 N statements. Without steps it is two."""
    flow = stepping(app, colour)

    def act() -> None:
        till.ended(operon.start(flow, steps).id)

    with app:
        act()
        cost = till.least(act, len(steps_alone(steps)))
    assert cost.statements == steps_alone(steps)
    assert cost.sums == (len(steps_alone(steps)),) * 4


def test_a_start_is_one_commit(app: Operon, till: Till) -> None:
    gate = threading.Event()

    @app.workflow
    def flow() -> None:
        assert gate.wait(PATIENCE)

    with app:
        operon.start(flow)
        cost = till.least(lambda: operon.start(flow), 1)
        gate.set()
    assert cost.statements == ("start",)
    assert cost.sums == (1, 1, 1, 1)


def test_a_transaction_costs_one_statement_more_than_the_users(app: Operon, till: Till) -> None:
    """In a workflow, and alone: begin, the user's statements, one of ours, commit; alone it is one commit in all."""

    @app.transaction
    def add(tx: psycopg.Connection[Any]) -> int:
        tx.execute("select 1 as users")
        return 1

    @app.workflow
    def flow() -> int:
        return add() + add()

    with app:
        for _ in range(WARM):
            flow()
            add()
        alone, within = till.least(add, 4), till.least(flow, 10)
    assert kinds(*alone.statements) == ["begin", "users", "settle", "commit"]
    assert alone.sums == (4, 4, 1, 1)
    assert kinds(*within.statements) == ["start", *["begin", "users", "record", "commit"] * 2, "finish"]
    assert within.sums == (10, 10, 4, 4)


def kinds(*statements: str) -> list[str]:
    return [
        "users" if "users" in it else it.split(maxsplit=1)[0].rstrip(";") if it.startswith(("begin", "commit")) else it
        for it in statements
    ]


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_child_is_three_commits_more(app: Operon, till: Till, colour: str) -> None:
    """Its start, its parent's note of it, its end; the note of what it returned rides with its parent's end.

    Were the note of it in the commit of its start, there would be one less.
    """

    @app.workflow
    def child() -> int:
        return 1

    @app.workflow
    async def achild() -> int:
        return 1

    @app.workflow
    def parent() -> int:
        return child()

    @app.workflow
    async def aparent() -> int:
        return await achild()

    def act() -> None:
        till.ended(operon.start(parent if colour == "sync" else aparent).id)

    with app:
        act()
        cost = till.least(act, 5)
    assert cost.counts == Counter(start=2, write=1, finish=1, write_and_finish=1)
    assert cost.sums == (5, 5, 5, 5)


SLEEPERS = 5


def test_a_sleeper_costs_one_claim_and_its_journal_more(app: Operon, till: Till) -> None:
    """Started, asleep, parked: three commits. Due: one claim, one journal, the end; no claim because it slept.

    And what the heartbeat finds that is sent when it is due, maybe before the claim: that it is, and that it runs.
    """

    @app.workflow
    def flow(seconds: float) -> None:
        operon.sleep(seconds)

    def act(seconds: float, ids: list[str]) -> None:
        ids.append(operon.start(flow, seconds).id)
        till.ended(ids[-1])

    counts, ids, stayed = Counter[str](), list[str](), 0
    with app:
        act(0.2, ids)
        for _ in range(SLEEPERS):
            while True:
                cost = till.cost(partial(act, 0.2 * 2.0**stayed, ids))
                if till.ask("select claim > 1 from operon.workflows where id = %s", ids[-1])[0]:
                    break
                stayed += 1  # it came too late to leave for so short a time
                assert stayed < 8, "nobody leaves"
            counts += cost.counts
    once = {"start": 1, "write": 1, "finish": 2, "load": 1}
    looks = {"claim": 2, "beat": 1, "running": 1, "look": 1, "find": 1}
    """The first of the claims by its own clock, the other because the heartbeat says that it is due."""
    assert {name: counts[name] for name in once} == {name: SLEEPERS * each for name, each in once.items()}
    assert all(counts[name] <= (SLEEPERS + 1 + stayed) * most for name, most in looks.items()), counts
    assert not counts.keys() - once.keys() - looks.keys() - RARE


ITEMS = 20


def test_an_item_of_a_queue_is_admitted_by_itself(app: Operon, till: Till) -> None:
    """Two commits for the item, one for its admission; and looks at the queue, which write nothing.

    It would be enough to look once: it is looked again when the item ends, and when its process hears its own word.
    Its start is news for the others, where this process has claimed it before it is told, and its end is.
    """
    queue = app.queue("line", concurrency=5)

    @app.workflow
    def flow() -> int:
        return 1

    def act() -> None:
        for _ in range(ITEMS):
            till.ended(operon.enqueue(queue, flow).id)

    with app:
        act()
        cost = till.least(act, 6 * ITEMS, 3)
    looks = [cost.counts[name] for name in ("claim", "admit", "opening")]
    assert (cost.counts["start"], cost.counts["finish"]) == (ITEMS, ITEMS)
    news = 2 * ITEMS
    assert cost.counts["shout"] <= news + 1, cost.counts
    assert max(looks) <= news + cost.counts["shout"] + 3, cost.counts
    assert max(looks) - min(looks) <= 1, "each once"
    assert not cost.counts.keys() - {"start", "finish", "claim", "admit", "opening", "shout"} - RARE
    assert cost.writes <= 3 * ITEMS + cost.counts["shout"] + 1


def test_a_hundred_steps_at_once_are_few_commits(app: Operon, till: Till) -> None:
    """The first result goes at once, the others together; a commit more for the end, unless it rides with them.

    Two would be enough, were nothing written before all that are awaited have ended.
    """

    @app.step
    async def one(n: int) -> int:
        return n

    @app.workflow
    async def flow() -> int:
        return sum(await asyncio.gather(*[one(n) for n in range(100)]))

    def act() -> None:
        till.ended(operon.start(flow).id)

    with app:
        act()
        cost = till.least(act, 4)
    assert cost.counts["start"] == 1
    assert len(cost.statements) <= 4, cost.statements
    assert cost.sums == (len(cost.statements),) * 4


# ── What goes on by itself ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def beating(till: Till) -> Iterator[Operon]:
    made = Operon("app", database=till.url, lease=3600.0)
    yield made
    made.close()


def beats(till: Till) -> int:
    return int(till.ask("select sum(beat) from operon.executors")[0])


def beat_on(app: Operon, till: Till, number: int) -> None:
    """Have it beat so often, which it does not do by itself meanwhile: none is under way when the counting begins."""
    engine: Any = app._engine
    for _ in range(number):
        wanted = beats(till) + 1
        engine.service.beat()
        eventually(lambda wanted=wanted: beats(till) >= wanted, "a heartbeat")


def test_a_heartbeat_is_three_seconds() -> None:
    """So what a heartbeat costs, it costs 20 times a minute."""
    assert Settings().ttl / BEATS_A_LEASE >= 3


def test_an_idle_process_issues_one_statement_a_heartbeat(beating: Operon, till: Till) -> None:
    """Nothing to do costs nothing but the heartbeat: with 20 queues and 20 schedules, too.

    A schedule that is due, and that nobody here can fire, is among them.
    """
    for n in range(20):
        beating.queue(f"queue {n}", concurrency=n + 1)

    @beating.workflow
    def flow() -> int:
        return 1

    for n in range(20):
        beating.schedule(f"{n} 0 1 1 *", name=f"schedule {n}")(flow)

    with beating:
        flow()
        host = beating.host
        assert host is not None
        (row,) = host.store.ask(Schedules("schedule 7"))
        plan = replace(row.plan, name="of another app", call=Template("elsewhere", "{}"))
        assert host.store.ask(KeepSchedule(replace(row, plan=plan, next_at=1.0, turn=1)))
        cost = till.least(lambda: beat_on(beating, till, 5), 5)
    assert cost.statements == ("beat",) * 5
    assert cost.commits == cost.writes == 5


def test_a_full_queue_with_a_line_costs_what_an_idle_process_costs(beating: Operon, till: Till) -> None:
    """The heartbeat says whether there is room: nobody looks in vain, which would lock the queue, and so write."""
    queue = beating.queue("line", concurrency=1)
    gate, begun = threading.Event(), threading.Event()

    @beating.workflow
    def flow() -> None:
        begun.set()
        assert gate.wait(PATIENCE)

    with beating:
        for _ in range(10):
            operon.enqueue(queue, flow)
        assert begun.wait(PATIENCE)
        cost = till.least(lambda: beat_on(beating, till, 5), 5)
        gate.set()
    assert cost.statements == ("beat",) * 5
    assert cost.commits == cost.writes == 5
