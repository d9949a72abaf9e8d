"""Random programs of pools: what a body is told the first time, every replay is told, wherever the first was killed.

As `test_programs` does for asyncio: each program runs once, and goes on from every prefix of its journal.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import operon
from engine.test_branches import Stores, World, late, prompt, run, timeless
from engine.test_programs import by_line
from operon.core.rows import WorkflowRow

pytestmark = pytest.mark.usefixtures("patient")


@dataclass(frozen=True)
class Node:
    """One construct, what is inside, and a number that it is drawn with."""

    kind: str
    inside: tuple[Node, ...] = ()
    number: int = 0

    def __repr__(self) -> str:
        return f"{self.kind}{self.number}({', '.join(map(repr, self.inside))})"


LEAVES = ("step", "sleep", "now", "child", "handle", "plain", "fail")
BRANCHES = ("sequence", "mapped", "completed", "first", "polled", "given_up", "left", "apart")


def nodes() -> st.SearchStrategy[Node]:
    leaf = st.builds(Node, st.sampled_from(LEAVES), st.just(()), st.integers(0, 3))

    def around(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        inside = st.lists(inner, min_size=1, max_size=3).map(tuple)
        return st.builds(Node, st.sampled_from(BRANCHES), inside, st.integers(0, 3))

    return st.recursive(leaf, around, max_leaves=7)


class Play:
    """Performs a node, and says what the body is told."""

    def __init__(self, world: World) -> None:
        self.world = world

    def told(self, where: str, what: str) -> None:
        self.world.seen.append(f"{where} {what}")

    def perform(self, node: Node, where: str) -> str:
        """Do what a node says, and tell its place."""
        getattr(self, node.kind)(node, where)
        return where

    def say(self, node: Node, where: str) -> str:
        """Do what a node says, and tell how that went; for a pool gives up what comes after an error."""
        try:
            return self.perform(node, where)
        except LookupError as error:
            return repr(error)

    # ── Leaves ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def step(self, node: Node, where: str) -> None:
        self.told(where, self.world.press(f"s{node.number}"))

    def sleep(self, node: Node, where: str) -> None:
        operon.sleep(node.number * 0.004)
        self.told(where, "woke")

    def now(self, _: Node, where: str) -> None:
        self.told(where, str(operon.now()))

    def child(self, node: Node, where: str) -> None:
        self.told(where, operon.start(self.world.child, node.number).result())

    def handle(self, node: Node, where: str) -> None:
        handle = operon.start(self.world.child, node.number)
        self.step(node, where)
        self.told(where, handle.result())

    def plain(self, _: Node, where: str) -> None:
        del where

    def fail(self, node: Node, where: str) -> None:
        self.step(node, where)
        raise LookupError(where)

    # ── Around them ──────────────────────────────────────────────────────────────────────────────────────────────────

    def sequence(self, node: Node, where: str) -> None:
        for n, each in enumerate(node.inside):
            self.perform(each, f"{where}.{n}")

    def mapped(self, node: Node, where: str) -> None:
        places = [f"{where}.{n}" for n in range(len(node.inside))]
        with ThreadPoolExecutor(node.number + 1) as pool:
            for said in pool.map(self.say, node.inside, places):
                self.told(where, f"has {said}")

    def completed(self, node: Node, where: str) -> None:
        def use(futures: dict[Future[str], str]) -> None:
            for future in as_completed(futures):
                self.outcome(where, futures[future], future)

        self.pooled(node, where, use)

    def first(self, node: Node, where: str) -> None:
        def use(futures: dict[Future[str], str]) -> None:
            left = set(futures)
            while left:
                done, left = wait(left, return_when=FIRST_COMPLETED)
                for place in sorted(futures[future] for future in done):
                    self.told(where, f"has {place}, {len(left)} left")
                self.step(node, where)

        self.pooled(node, where, use)

    def polled(self, node: Node, where: str) -> None:
        def use(futures: dict[Future[str], str]) -> None:
            while not all(future.done() for future in futures):
                operon.sleep(0.002)
                self.told(where, f"sees {sum(future.done() for future in futures)}")

        self.pooled(node, where, use)

    def given_up(self, node: Node, where: str) -> None:
        def use(futures: dict[Future[str], str]) -> None:
            self.step(node, where)
            for future in futures:
                self.told(where, f"{future.done()} {future.cancel()} {future.cancelled()}")

        self.pooled(node, where, use, silent=True)

    def left(self, node: Node, where: str) -> None:
        """Leave pieces of work to themselves, on a pool that nobody waits for."""
        pool = ThreadPoolExecutor(node.number + 1)
        for n, each in enumerate(node.inside):
            pool.submit(self.perform, each, f"{where}.{n}")
        pool.shutdown(wait=False)

    def apart(self, node: Node, where: str) -> None:
        """Go on beside a pool, and look at it afterwards."""

        def use(futures: dict[Future[str], str]) -> None:
            for _ in range(node.number):
                self.step(node, where)
            for future, place in futures.items():
                self.outcome(where, place, future)

        self.pooled(node, where, use)

    def pooled(
        self, node: Node, where: str, use: Callable[[dict[Future[str], str]], None], *, silent: bool = False
    ) -> None:
        play = Play(World.__new__(World)) if silent else self
        if silent:
            play.world.__dict__.update(vars(self.world) | {"seen": []})
        with ThreadPoolExecutor(node.number + 1) as pool:
            use({pool.submit(play.perform, each, f"{where}.{n}"): f"{where}.{n}" for n, each in enumerate(node.inside)})

    def outcome(self, where: str, place: str, future: Future[str]) -> None:
        error = future.exception()
        self.told(where, f"has {place} {error!r}")


@pytest.mark.parametrize("stores", [prompt, late], ids=["prompt", "late"])
@given(root=nodes(), seed=st.integers(1, 99))
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
)
def test_a_replay_of_any_program_of_pools_is_told_what_the_first_run_was(stores: Stores, root: Node, seed: int) -> None:
    """Killed after any record, the workflow is told again what it was told before, and ends, and is not held."""

    def program(world: World) -> None:
        play = Play(world)
        try:
            play.perform(root, "r")
        except LookupError as error:
            play.told("r", repr(error))
        play.told("end", world.press("end"))

    born: dict[str, WorkflowRow] = {}
    journal, seen = run(program, seed, (), born, stores=stores)
    for length in range(len(journal) + 1):
        again, seen_again = run(program, seed + 100 + length, journal[:length], dict(born), stores=stores)
        assert timeless(again[:length]) == timeless(journal[:length])
        if length == len(journal):
            assert by_line(seen_again) == by_line(seen), f"{root}, seed {seed}"
