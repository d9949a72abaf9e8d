"""Whatever is asked of a store, in any order, it answers as the store in memory does."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, Phase, reject, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec import Struct
from msgspec.structs import astuple, replace

from conformance.world import NAMES, World, process
from operon.core import commands as c
from operon.core.rows import Entry, Filter, Guard, Kind, NewWorkflow, Outcome, Park
from operon.core.states import Status
from operon.stores.memory import MemoryStore
from operon.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

T = TypeVar("T")

TICK = 10.0
"""Between two commands; whatever ends between two ticks ends in their middle, far from the drift of a real clock."""
CHOICES = st.integers(0, 59)
KEYS = st.sampled_from("abcdef")
SPANS = st.sampled_from([0.0, 5.0, 35.0, 1e6])
ENDS = st.sampled_from(sorted(set(Status) - {Status.RUNNING, Status.WAITING}))
TEXTS = st.none() | st.sampled_from(['"1"', '"\\u0000"'])
SOME_KEYS = st.lists(KEYS, max_size=3).map(tuple)
FILTERS = st.builds(
    Filter,
    name=st.sampled_from([None, *NAMES, "other"]),
    status=st.none() | st.lists(st.sampled_from(Status), max_size=3).map(tuple),
    parent=st.none() | KEYS,
    user=st.sampled_from([None, "ada"]),
    attributes=st.sampled_from([(), (("size", "3"),)]),
    limit=st.integers(1, 9),
)


def commands(model: MemoryStore) -> st.SearchStrategy[c.Command[Any]]:
    """Commands that often concern what is there: claims that are held, executors that live, beats as they are.

    What is there is looked up as each command is drawn: to make a strategy takes longer than to ask two stores.
    """
    workflows, peers = model.tables.workflows, model.tables.executors
    executors = one_of(lambda: [*peers, 99])
    held = KEYS.map(lambda key: Guard(key, workflows[key].row.claim if key in workflows else 1))
    guards = held | st.builds(Guard, KEYS, st.integers(0, 3))
    beats = one_of(lambda: [*((peer.id, peer.beat) for peer in peers.values()), (99, 0)])
    parks = st.builds(Park, st.none() | SPANS.map(lambda span: model.clock() + span), SOME_KEYS)
    news = st.builds(
        NewWorkflow,
        id=KEYS,
        name=st.sampled_from([*NAMES, "other"]),
        input=st.just("[]"),
        digest=st.sampled_from(["d", "e"]),
        nonce=st.integers(1, 3),
        executor=st.none() | executors,
        delay=SPANS,
        timeout=st.none() | SPANS,
        instance=st.sampled_from([None, None, "Billing/eu"]),
        parent=st.none() | guards,
        user=st.sampled_from([None, "ada"]),
        roles=st.sampled_from([(), ("clerk", "admin")]),
        pin=st.sampled_from([None, None, "v2"]),
        attributes=st.sampled_from([None, '{"size": 3}']),
    )
    return st.one_of(
        st.builds(c.Start, news),
        st.builds(_advance, guards, st.lists(entries(), max_size=3), st.none() | parks | _outcomes()),
        st.builds(
            c.Claim,
            executors,
            names=st.sampled_from([NAMES, (*NAMES, "other")]),
            instances=st.sampled_from([(), ("Billing/eu",)]),
            version=st.sampled_from(["v1", "v2"]),
            limit=st.integers(1, 3),
        ),
        st.builds(c.Cancel, KEYS, st.booleans()),
        st.builds(c.Wake, st.none() | SOME_KEYS),
        st.builds(c.Enlist, st.builds(process, st.just(75.0))),
        st.builds(c.Beat, executors, st.just(75.0)),
        st.builds(c.Bury, st.lists(beats, max_size=2, unique=True).map(tuple), st.booleans()),
        st.builds(c.TakeOver, st.just(100), st.integers(0, 3), st.just('"poison"')),  # which go first is open
        st.builds(c.HandBack, executors, st.none() | st.lists(guards, max_size=2).map(tuple), st.booleans()),
        st.builds(c.Retire, executors),
        st.builds(c.Look, SOME_KEYS),
        st.builds(c.Find, FILTERS),
        st.builds(c.Count, FILTERS),
    )


def one_of(look: Callable[[], Sequence[T]]) -> st.SearchStrategy[T]:
    """One of those that are there when it is drawn."""
    return CHOICES.map(lambda number: (there := look())[number % len(there)])


def entries() -> st.SearchStrategy[Entry]:
    return st.builds(
        Entry,
        position=st.sampled_from(["1", "2", "1/1", "1#1"]),
        ordinal=st.integers(1, 2),
        kind=st.sampled_from([Kind.STEP, Kind.SLEEP]),
        name=st.just("fetch"),
        digest=st.sampled_from(["", "d"]),
        output=TEXTS,
        error=TEXTS,
        child=st.none() | KEYS,
        after=st.none() | SPANS,
        elapsed=SPANS,
    )


def _outcomes() -> st.SearchStrategy[Outcome]:
    return st.builds(Outcome, ENDS, TEXTS, TEXTS)


def _advance(guard: Guard, written: list[Entry], end: Outcome | Park | None) -> c.Advance:
    """Make an advance that names each position once, and an instant only where one is meant."""
    once = {it.position: it if it.kind is Kind.SLEEP else replace(it, after=None) for it in written}
    return c.Advance(guard.workflow_id, guard.claim, tuple(once.values()), end)


class Comparison(RuleBasedStateMachine):
    """Asks two stores the same."""

    def __init__(self, fresh: Callable[[Callable[[], float]], World], seen: Callable[[Any], Any]) -> None:
        super().__init__()
        self.now = 1_700_000_000.0
        self.model = MemoryStore(lambda: self.now)
        self.world = fresh(lambda: self.now)
        self.seen = seen
        self.commands = commands(self.model)
        self.begun = time.monotonic()

    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        if self.drifted():
            reject()
        self.now += TICK
        self.world.pass_time(TICK)
        self.compare(data.draw(self.commands))

    @invariant()
    def all_rows_and_journals_are_alike(self) -> None:
        self.compare(c.Find(Filter()))
        self.compare(c.Executors())
        for key in self.model.tables.workflows:
            self.compare(c.Load(key))

    def compare(self, command: c.Command[Any]) -> None:
        answers = self.seen(self.world.ask(command)), self.seen(self.model.ask(command))
        assert self.drifted() or answers[0] == answers[1], command

    def drifted(self) -> bool:
        """Whether the machine stood still: a database's own clock has gone on, and the model's has not."""
        return time.monotonic() - self.begun > TICK / 4

    def teardown(self) -> None:
        self.world.store.close()


def test_sqlite_answers_as_memory_does(tmp_path: Path) -> None:
    numbers = count(1)

    def fresh(clock: Callable[[], float]) -> World:
        world = World(SqliteStore(f"{tmp_path}/{next(numbers)}.db", clock=clock), lambda _: None)
        world.store.open()
        return world

    compare(lambda: Comparison(fresh, lambda answer: answer), examples=24)


def test_postgres_answers_as_memory_does(request: pytest.FixtureRequest) -> None:
    """Its clock is its own, so instants are compared by whether they are there."""
    emptied: Callable[[], World] = request.getfixturevalue("emptied")

    def fresh(_: Callable[[], float]) -> World:
        world = emptied()
        world.store.open()
        return world

    compare(lambda: Comparison(fresh, timeless), examples=8)


def compare(machine: Callable[[], Comparison], examples: int) -> None:
    chosen = settings(
        max_examples=examples,
        stateful_step_count=40,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        phases=(Phase.generate,),  # to shrink forty steps of a Postgres takes minutes, and they can be read
    )
    run_state_machine_as_test(cast("type[Comparison]", machine), settings=chosen)  # any factory will do


def timeless(answer: Any) -> Any:
    """Take the instants out of an answer, wherever they are."""
    match answer:
        case float():
            return "an instant"
        case Entry(kind=Kind.SLEEP):
            return timeless(replace(answer, kind=Kind.STEP, output=None))
        case [*parts]:
            return [timeless(part) for part in parts]
        case Struct():
            return timeless(astuple(answer))
        case _:
            return answer
