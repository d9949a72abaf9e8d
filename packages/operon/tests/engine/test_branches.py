"""Concurrent code in an async workflow replays to the same records, wherever it was killed.

Each program runs once; then, for every prefix of its journal, the workflow is set up as a crash would have left it and
replayed. What the code sees in the replay must begin with exactly what it saw the first time.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import random
import time
from asyncio import as_completed as bare_as_completed
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import uvloop
from msgspec.structs import replace

from children import PATIENCE
from engine.late import LateStore
from operon import Handle, Operon, aio
from operon.core.commands import Advance, Bury, Describe, Enlist, Find, Load, Start
from operon.core.rows import Entry, Filter, Kind, NewWorkflow, Outcome, Process, WorkflowRow
from operon.core.states import Status
from operon.errors import BadValue
from operon.stores.memory import Clock, MemoryStore

Seen = list[str]
Program = Callable[["World"], Awaitable[None] | None]
"""A body, of either colour."""
Loops = Callable[[], asyncio.AbstractEventLoop]
Stores = Callable[[int], MemoryStore]
"""Make a store, of a seed."""
HIDDEN = (Kind.ATTEMPT, Kind.WAKE)


def prompt(_: int) -> MemoryStore:
    """Answer at once."""
    return MemoryStore(Clock(time.time))


def late(seed: int) -> MemoryStore:
    """Answer late, from another thread, in an order of chance."""
    return LateStore(Clock(time.time), seed)


def slow(seed: int) -> MemoryStore:
    """Answer each time so late that what is due in some milliseconds is due before."""
    return LateStore(Clock(time.time), seed, (400,))


class World:
    """What a program may do: steps of random length, and saying what it sees."""

    def __init__(self, app: Operon, seen: Seen, seed: int) -> None:
        self.seen = seen
        self.rng = random.Random(seed)
        self.serial = itertools.count()

        @app.step(name="work")
        async def work(name: str) -> str:
            for _ in range(self.rng.randrange(6)):
                await asyncio.sleep(0)
            return f"{name}#{seed}.{next(self.serial)}"

        @app.step(name="hang")
        async def hang(name: str) -> str:
            await asyncio.Event().wait()
            return name

        @app.workflow(name="child")
        async def child(n: int) -> str:
            for _ in range(n):
                await work("in a child")
            return f"child {n}"

        @app.step(name="press")
        def press(name: str) -> str:
            for _ in range(self.rng.randrange(6)):
                os.sched_yield()
            return f"{name}#{seed}.{next(self.serial)}"

        self.work, self.hang, self.child, self.press = work, hang, child, press

    async def do(self, name: str) -> None:
        self.seen.append(await self.work(name))

    async def line(self, name: str, steps: int = 3) -> None:
        for n in range(steps):
            await self.do(f"{name}{n}")


async def gathered(world: World) -> None:
    await asyncio.gather(world.line("a"), world.line("b"))
    await world.do("end")


async def task_group(world: World) -> None:
    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(world.line(name, 2))
    await world.do("end")


async def as_completed(world: World) -> None:
    tasks = [asyncio.create_task(world.work(name)) for name in "abcd"]
    for earliest in asyncio.as_completed(tasks):
        await world.do(f"after {(await earliest)[0]}")


async def as_completed_coroutines(world: World) -> None:
    for earliest in asyncio.as_completed([world.work(name) for name in "abcd"]):
        await world.do(f"after {(await earliest)[0]}")


async def as_completed_late(world: World) -> None:
    tasks = [asyncio.create_task(world.work(name)) for name in "abcdefgh"]
    await asyncio.gather(*tasks)
    for earliest in asyncio.as_completed(tasks):  # all at once
        await world.do(f"after {(await earliest)[0]}")


async def wait_sets(world: World) -> None:
    pending = {asyncio.create_task(world.work(name)) for name in "abcdefgh"}
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await world.do(f"after {task.result()[0]}")


async def queue(world: World) -> None:
    items: asyncio.Queue[str] = asyncio.Queue()

    async def produce(name: str) -> None:
        for n in range(2):
            await items.put(await world.work(f"{name}{n}"))

    async def consume(name: str) -> None:
        for _ in range(3):
            await world.do(f"{name} got {(await items.get()).partition('#')[0]}")

    await asyncio.gather(produce("p"), produce("q"), produce("r"), consume("x"), consume("y"))


async def semaphore(world: World) -> None:
    limit = asyncio.Semaphore(2)

    async def limited(name: str) -> None:
        async with limit:
            await world.line(name, 2)

    await asyncio.gather(*(limited(name) for name in "abcd"))


async def wait_for(world: World) -> None:
    for n in range(2):
        try:
            await asyncio.wait_for(world.hang(f"h{n}"), 0.02)
        except TimeoutError:
            world.seen.append("timed out")
        await world.do(f"after {n}")


async def cancelled(world: World) -> None:
    hung = asyncio.create_task(world.hang("h"))
    await world.line("a", 2)
    hung.cancel()
    try:
        await hung
    except asyncio.CancelledError:
        world.seen.append("cancelled")
    await world.do("end")


async def sleeps(world: World) -> None:
    async def nap(name: str, seconds: float) -> None:
        await aio.sleep(seconds)
        world.seen.append(f"woke {name}")
        await world.do(name)

    await asyncio.gather(nap("late", 0.03), nap("early", 0.01), world.line("a"))


async def nested(world: World) -> None:
    async def pair(name: str) -> None:
        await asyncio.gather(world.line(f"{name}l", 2), world.line(f"{name}r", 2))
        await world.do(name)

    await asyncio.gather(pair("a"), pair("b"))


PROGRAMS = [
    gathered,
    task_group,
    as_completed,
    as_completed_coroutines,
    as_completed_late,
    wait_sets,
    queue,
    semaphore,
    wait_for,
    cancelled,
    sleeps,
    nested,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_replay_sees_what_the_first_run_saw(program: Program, seed: int) -> None:
    """Killed after any record, the workflow goes on from the same past, and ends."""
    check_replays(program, seed)


def check_replays(
    program: Program, seed: int, loops: Loops = asyncio.SelectorEventLoop, stores: Stores = prompt
) -> None:
    """Run a program, and again from each prefix of its journal."""
    journal, seen = run(program, seed, (), loops=loops, stores=stores)
    assert [entry.ordinal for entry in journal] == sorted({entry.ordinal for entry in journal})
    for length in range(len(journal) + 1):
        again, seen_again = run(program, seed + 100 + length, journal[:length], loops=loops, stores=stores)
        assert timeless(again[:length]) == timeless(journal[:length])
        if length == len(journal):
            assert seen_again == seen
        values, values_again = valued(seen), valued(seen_again)
        fresh = next((n for n, text in enumerate(values_again) if f"#{seed}." not in text), len(values_again))
        assert values_again[:fresh] == values[:fresh], f"after {length} records"


def test_an_order_that_no_replay_can_repeat_is_refused_at_once() -> None:
    """Asyncio's own `as_completed` would begin coroutines in the order of a set: the first run says what to write."""
    told: list[str] = []

    async def program(world: World) -> None:
        coroutines = [world.work(name) for name in "ab"]
        try:
            next(iter(bare_as_completed(coroutines)))
        except BadValue as error:
            told.append(str(error))
        for coroutine in coroutines:
            coroutine.close()

    run(program, 1, ())
    assert "asyncio.as_completed(...)" in told[0]


def timeless(entries: tuple[Entry, ...]) -> list[Entry]:
    return [replace(entry, started_at=0, ended_at=0) for entry in entries]


def valued(seen: Seen) -> Seen:
    """What came out of steps, each time another value."""
    return [text for text in seen if "#" in text]


def run(
    program: Program,
    seed: int,
    past: tuple[Entry, ...],
    born: dict[str, WorkflowRow] | None = None,
    *,
    loops: Loops = asyncio.SelectorEventLoop,
    stores: Stores = prompt,
) -> tuple[tuple[Entry, ...], Seen]:
    """Run a program to its end, from a past that a dead process left; the children that it had are kept in `born`."""
    store = stores(seed)
    born = {} if born is None else born
    seen: Seen = []
    app = Operon("app", database=store, grace=30, version="1")
    world = World(app, seen, seed)

    async def awaited() -> int:
        if (body := program(world)) is not None:
            await body
        return len(seen)

    def blocking() -> int:
        program(world)
        return len(seen)

    body: Any = awaited if inspect.iscoroutinefunction(program) else blocking
    flow = cast("Any", app.workflow(name="program")(body))

    store.open()
    dead = store.ask(Enlist(Process("app", "elsewhere", 1, "x", "1", 60)))
    digest: str = flow.function.signature.digest("{}")
    store.ask(Start(NewWorkflow("w", "program", "{}", digest, 1, executor=dead)))
    if past:
        assert store.ask(Advance("w", 1, past)).written
    for child in [born[str(entry.child)] for entry in past if entry.kind is Kind.START]:
        store.ask(Start(NewWorkflow(child.id, child.name, child.input, child.digest, 2, executor=dead)))
        if any(entry.kind is Kind.RESULT and entry.child == child.id for entry in past):
            store.ask(Advance(child.id, 1, (), Outcome(Status.SUCCEEDED, output=child.output)))
    store.ask(Bury(((dead, 0),), proven=True))

    async def main() -> None:
        async with app:
            handle: Handle[int] = await aio.retrieve("w", flow)
            assert await handle.wait(30) <= len(seen)

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(main())
    row = store.ask(Describe("w"))
    assert row is not None
    assert row.status is Status.SUCCEEDED
    born.update((each.id, each) for each in store.ask(Find(Filter(limit=1000))) if each.id not in born)
    return store.ask(Load("w")), seen


@pytest.mark.parametrize("first", ["one", "other"])
@pytest.mark.parametrize("leaves", ["one", "other"])
def test_apps_that_share_a_loop_number_each_task_once(first: str, leaves: str) -> None:
    """So a replay beside fewer apps finds the records; and the loop has its own factory back with the last of them."""
    apps = {name: Operon(name, database=MemoryStore(Clock(time.time)), grace=30) for name in ("one", "other")}

    @apps["one"].step
    async def note(what: str) -> str:
        return what

    @apps["one"].workflow
    async def flow() -> list[str]:
        return [*await asyncio.gather(note("a"), note("b"))]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = loop.get_task_factory()
        order = [apps[first], *(app for name, app in apps.items() if name != first)]
        for app in order:
            await app.__aenter__()
        handle = await aio.start(flow.using(key="w"))
        assert await asyncio.wait_for(handle, PATIENCE) == ["a", "b"]
        engine: Any = apps["one"]._engine
        entries = engine.store.ask(Load("w"))
        await apps[leaves].__aexit__(None, None, None)
        assert loop.get_task_factory() is not before
        for name, app in apps.items():
            if name != leaves:
                await app.__aexit__(None, None, None)
        assert loop.get_task_factory() is before
        assert sorted(entry.position for entry in entries) == ["1/1", "2/1"]

    asyncio.run(main())


def test_a_factory_of_ours_behind_another_opens_no_second_branch() -> None:
    """As where somebody has put one of their own between those of two apps."""
    app, other = (Operon(name, database=MemoryStore(Clock(time.time)), grace=30) for name in ("app", "other"))

    @app.step
    async def note(what: str) -> str:
        return what

    @app.workflow
    async def flow() -> list[str]:
        return [*await asyncio.gather(note("a"), note("b"))]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with other:
            inner: Any = loop.get_task_factory()

            def between(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
                return inner(loop, coro, **options)

            loop.set_task_factory(between)
            async with app:
                handle = await aio.start(flow.using(key="w"))
                assert await asyncio.wait_for(handle, PATIENCE) == ["a", "b"]
                engine: Any = app._engine
                entries = engine.store.ask(Load("w"))
            loop.set_task_factory(inner)
        assert sorted(entry.position for entry in entries) == ["1/1", "2/1"]

    asyncio.run(main())


def past_ours(loop: asyncio.AbstractEventLoop) -> Any:
    """A factory of the program that makes its tasks itself."""
    del loop

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=loop, **options)

    return make


def around_ours(loop: asyncio.AbstractEventLoop) -> Any:
    """One that has them made by what it found, as those do that trace tasks."""
    inner: Any = loop.get_task_factory()

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Future[Any]:
        made: asyncio.Future[Any] = inner(loop, coro, **options)
        return made

    return make


def none(loop: asyncio.AbstractEventLoop) -> Any:
    del loop


@pytest.mark.parametrize("loops", [asyncio.SelectorEventLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("factory", [past_ours, around_ours, none])
@pytest.mark.parametrize("leaves", ["one", "other"])
def test_a_factory_that_the_program_sets_after_the_launch_makes_branches(
    factory: Any, leaves: str, loops: Loops
) -> None:
    """Ours stays in front, whichever of two apps leaves first; the program's is the loop's own again with the last."""
    apps = {name: Operon(name, database=MemoryStore(Clock(time.time)), grace=30) for name in ("one", "other")}
    flows: dict[str, Any] = {}
    for name, app in apps.items():

        @app.step
        async def note(what: str) -> str:
            return what

        @app.workflow
        async def flow(note: Any = note) -> list[str]:
            return [*await asyncio.gather(note("a"), note("b"))]

        flows[name] = flow

    async def positions(name: str, key: str) -> list[str]:
        handle = await aio.start(flows[name].using(key=key))
        assert await asyncio.wait_for(handle, PATIENCE) == ["a", "b"]
        engine: Any = apps[name]._engine
        return sorted(entry.position for entry in engine.store.ask(Load(key)))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await apps["one"].__aenter__()
        its = factory(loop)
        loop.set_task_factory(its)
        await apps["other"].__aenter__()
        stays = "other" if leaves == "one" else "one"
        assert await positions("one", "w") == await positions("other", "w") == ["1/1", "2/1"]
        await apps[leaves].__aexit__(None, None, None)
        assert await positions(stays, "v") == ["1/1", "2/1"]
        loop.set_task_factory(its)
        assert await positions(stays, "u") == ["1/1", "2/1"]
        await apps[stays].__aexit__(None, None, None)
        assert loop.get_task_factory() is its

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(main())
