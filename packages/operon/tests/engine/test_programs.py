"""Random programs of asyncio: what a body is told the first time, every replay is told, wherever the first was killed.

A program is drawn by Hypothesis and run once; then, for every prefix of its journal, the workflow is set up as a crash
would have left it, and goes on from there.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import operon
from engine.test_branches import Stores, World, late, prompt, run, timeless
from operon import aio
from operon.core.rows import WorkflowRow

pytestmark = pytest.mark.usefixtures("patient")
Line = Callable[[World, str], Awaitable[None]]


@dataclass(frozen=True)
class Node:
    """One construct, what is inside, and a number that it is drawn with."""

    kind: str
    inside: tuple[Node, ...] = ()
    number: int = 0

    def __repr__(self) -> str:
        return f"{self.kind}{self.number}({', '.join(map(repr, self.inside))})"


LEAVES = ("step", "sleep", "hang", "now", "random", "child", "handle", "plain", "thread", "napping", "callback")
BRANCHES = (
    *("sequence", "timeout", "wait_for", "gather", "group", "first", "wait", "shield", "cancel", "failing"),
    *("completed", "deadline", "scope", "cancelled_group", "shielded_scope"),
)


def nodes() -> st.SearchStrategy[Node]:
    leaf = st.builds(Node, st.sampled_from(LEAVES), st.just(()), st.integers(0, 3))

    def around(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        inside = st.lists(inner, min_size=1, max_size=3).map(tuple)
        return st.builds(Node, st.sampled_from(BRANCHES), inside, st.integers(0, 3))

    return st.recursive(leaf, around, max_leaves=6)


class Play:
    """Performs a node, and says what the body is told."""

    def __init__(self, world: World) -> None:
        self.world = world

    def told(self, where: str, what: str) -> None:
        self.world.seen.append(f"{where} {what}")

    async def perform(self, node: Node, where: str) -> None:
        try:
            await getattr(self, node.kind)(node, where)
        except TimeoutError:
            self.told(where, "is late")
        except asyncio.CancelledError:
            self.told(where, "is cancelled")
            raise
        except (RuntimeError, ExceptionGroup):
            self.told(where, "fails")

    async def perform_all(self, root: Node) -> None:
        """Perform a whole program.

        A scope of anyio lets a cancellation through to which one of asyncio was added within the same turn of the loop.
        """
        try:
            await self.perform(root, "r")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            while task is not None and task.cancelling():
                task.uncancel()
        await self.world.do("end")

    async def all(self, node: Node, where: str) -> None:
        for n, each in enumerate(node.inside):
            await self.perform(each, f"{where}.{n}")

    def tasks(self, node: Node, where: str) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self.perform(each, f"{where}.{n}")) for n, each in enumerate(node.inside)]

    # ── Leaves ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def step(self, node: Node, where: str) -> None:
        self.told(where, await self.world.work(f"s{node.number}"))

    async def sleep(self, node: Node, where: str) -> None:
        await aio.sleep(node.number * 0.004)
        self.told(where, "woke")

    async def hang(self, node: Node, _: str) -> None:
        async with asyncio.timeout(0.003 + node.number * 0.004):
            await self.world.hang("h")

    async def thread(self, node: Node, where: str) -> None:
        self.told(where, await asyncio.to_thread(self.world.press, f"t{node.number}"))

    async def napping(self, node: Node, where: str) -> None:
        def nap() -> str:
            operon.sleep(node.number * 0.004)
            return self.world.press("nap")

        self.told(where, await asyncio.to_thread(nap))

    async def now(self, _: Node, where: str) -> None:
        self.told(where, str(await aio.now()))

    async def random(self, _: Node, where: str) -> None:
        self.told(where, str(await aio.uuid4()))

    async def child(self, node: Node, where: str) -> None:
        self.told(where, await self.world.child(node.number))

    async def handle(self, node: Node, where: str) -> None:
        self.told(where, await (await aio.start(self.world.child, node.number)))

    async def plain(self, node: Node, where: str) -> None:
        await asyncio.sleep(node.number * 0.003)
        self.told(where, "slept")

    async def callback(self, node: Node, where: str) -> None:
        loop, tasks = asyncio.get_running_loop(), list[asyncio.Task[None]]()

        def call(turns: int) -> None:
            if turns:
                loop.call_soon(call, turns - 1)
            else:
                tasks.append(loop.create_task(self.step(node, f"{where}.called")))

        call(2 * node.number + 1)
        try:
            await self.step(node, where)
        finally:
            await asyncio.gather(*tasks, return_exceptions=True)

    # ── Around them ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def sequence(self, node: Node, where: str) -> None:
        await self.all(node, where)

    async def timeout(self, node: Node, where: str) -> None:
        async with asyncio.timeout(0.002 + node.number * 0.004):
            await self.all(node, where)

    async def wait_for(self, node: Node, where: str) -> None:
        await asyncio.wait_for(self.all(node, where), 0.002 + node.number * 0.004)

    async def gather(self, node: Node, where: str) -> None:
        await asyncio.gather(*(self.perform(each, f"{where}.{n}") for n, each in enumerate(node.inside)))

    async def group(self, node: Node, where: str) -> None:
        async with asyncio.TaskGroup() as group:
            for n, each in enumerate(node.inside):
                group.create_task(self.perform(each, f"{where}.{n}"))

    async def failing(self, node: Node, where: str) -> None:
        async def fail() -> None:
            await self.step(node, where)
            raise RuntimeError(where)

        async def group() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.all(node, where))
                group.create_task(fail())

        await asyncio.create_task(group())  # Python 3.11 leaves a task marked as cancelled whose group has failed

    async def first(self, node: Node, where: str) -> None:
        tasks = self.tasks(node, where)
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self.told(where, f"has {[n for n, task in enumerate(tasks) if task in done]}")
        await self.end(tasks)

    async def wait(self, node: Node, where: str) -> None:
        tasks = self.tasks(node, where)
        done, _ = await asyncio.wait(tasks, timeout=0.002 + node.number * 0.004)
        self.told(where, f"has {[n for n, task in enumerate(tasks) if task in done]}")
        await self.end(tasks)

    async def end(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)  # a gather would tell a scope of anyio the cancellation of a task of its own

    async def shield(self, node: Node, where: str) -> None:
        inner = asyncio.create_task(self.all(node, where))
        try:
            async with asyncio.timeout(0.002 + node.number * 0.004):
                await asyncio.shield(inner)
        finally:
            await asyncio.gather(inner, return_exceptions=True)

    async def completed(self, node: Node, where: str) -> None:
        async def one(n: int, each: Node) -> int:
            await self.perform(each, f"{where}.{n}")
            return n

        for earliest in asyncio.as_completed([one(n, each) for n, each in enumerate(node.inside)]):
            self.told(where, f"has {await earliest}")

    async def deadline(self, node: Node, where: str) -> None:
        deadline = asyncio.get_running_loop().time() + 0.002 + node.number * 0.004
        await self.step(node, where)
        async with asyncio.timeout_at(deadline):
            await self.all(node, where)

    async def scope(self, node: Node, where: str) -> None:
        with anyio.move_on_after(0.002 + node.number * 0.004) as scope:
            await self.all(node, where)
        self.told(where, f"was cancelled: {scope.cancelled_caught}")

    async def cancelled_group(self, node: Node, where: str) -> None:
        async with anyio.create_task_group() as group:
            for n, each in enumerate(node.inside):
                group.start_soon(self.perform, each, f"{where}.{n}")
            await self.step(node, where)
            group.cancel_scope.cancel()

    async def shielded_scope(self, node: Node, where: str) -> None:
        with anyio.move_on_after(0.002 + node.number * 0.004):
            try:
                await self.world.hang("h")
            finally:
                with anyio.CancelScope(shield=True):
                    await self.all(node, where)

    async def cancel(self, node: Node, where: str) -> None:
        tasks = self.tasks(node, where)
        await self.step(node, where)
        await self.end(tasks)


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
def test_a_replay_of_any_program_is_told_what_the_first_run_was(stores: Stores, root: Node, seed: int) -> None:
    """Killed after any record, the workflow is told again what it was told before, and ends, and is not held."""

    async def program(world: World) -> None:
        await Play(world).perform_all(root)

    born: dict[str, WorkflowRow] = {}
    journal, seen = run(program, seed, (), born, stores=stores)
    for length in range(len(journal) + 1):
        again, seen_again = run(program, seed + 100 + length, journal[:length], dict(born), stores=stores)
        assert timeless(again[:length]) == timeless(journal[:length])
        if length == len(journal):
            assert by_line(seen_again) == by_line(seen), f"{root}, seed {seed}"


def by_line(seen: list[str]) -> dict[str, list[str]]:
    """What each line was told until the body ended; those that are cancelled together say so in any order."""
    told: dict[str, list[str]] = {}
    for text in itertools.takewhile(lambda text: not text.startswith("end#"), seen):
        where, _, what = text.partition(" ")
        told.setdefault(where, []).append(what)
    return told
