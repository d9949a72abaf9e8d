"""Waits: none is lost, none ends early, and a run leaves when it does nothing else, and only then."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal, cast

import pytest

import operon
from children import PATIENCE, eventually, joined
from engine.conftest import MakeApp
from engine.stubborn import Stubborn, fine
from operon import Operon, aio
from operon.core.commands import Advance, Command, Delete, Look, Start
from operon.core.journal import Run
from operon.core.recording import Wait
from operon.core.rows import Advanced, Kind, NewWorkflow, Outcome, Park
from operon.core.states import Status
from operon.engine.clock import WallClock
from operon.engine.timerthread import TimerThread
from operon.engine.waits import Waits
from operon.errors import NotLaunched, StoreUnavailable, Suspended, WorkflowCancelled, WorkflowTimedOut


@pytest.fixture
def database() -> Stubborn:
    return Stubborn()


def parks(command: Command[Any]) -> bool:
    return isinstance(command, Advance) and isinstance(command.end, Park)


def test_a_branch_at_work_is_not_parked_for_its_sleeping_sibling(make: MakeApp) -> None:
    """What one branch does between two operations is not mistaken for rest, however long another one sleeps."""
    app = make()
    ran: list[int] = []

    @app.step
    async def work(n: int) -> None:
        ran.append(n)

    @app.workflow
    async def flow() -> None:
        async def worker() -> None:
            for n in range(20):
                await aio.sleep(0.01)
                await work(n)

        done = asyncio.create_task(worker())
        sleeper = asyncio.create_task(aio.sleep(3600))
        await done
        sleeper.cancel()

    with app:
        operon.start(flow.using(key="w")).result(PATIENCE)
        assert operon.describe("w").attempts == 1
    assert ran == list(range(20))


def test_a_branch_whose_record_is_being_written_is_not_parked_for_its_sleeping_sibling(
    make: MakeApp, database: Stubborn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on as soon as that is written: what it did then, in a run that is parked, would be done once more."""
    app, ask, worked, passed = make(), database.ask, threading.Event(), threading.Event()
    ran: list[int] = []

    @app.step
    async def work() -> None:
        ran.append(1)
        worked.set()

    @app.workflow
    async def flow() -> None:
        sleeper = asyncio.create_task(aio.sleep(3600))
        await aio.sleep(0.02)
        await work()
        sleeper.cancel()

    def wakes(command: Command[Any]) -> bool:
        return isinstance(command, Advance) and any(entry.kind is Kind.WAKE for entry in command.entries)

    def answer(command: Command[Any]) -> Any:
        if parks(command):
            assert worked.wait(PATIENCE)
        return ask(command)

    with app:
        engine: Any = app._engine
        monkeypatch.setattr(database, "ask", answer)
        database.holds = lambda command: wakes(command) or parks(command)
        handle = operon.start(flow)
        assert database.arrived.wait(PATIENCE)
        engine.timers.after(4 * engine.settings.grace, passed.set)
        assert passed.wait(PATIENCE)
        for _ in range(100):  # turns of the loop, in which the run would be parked
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), engine.loop.running()).result(PATIENCE)
        database.go.set()
        handle.result(PATIENCE)
    assert ran == [1]


def test_a_run_is_parked_once_the_last_short_wait_is_over(make: MakeApp) -> None:
    """A wait that ends, and a branch that ends with it, leave nobody behind who would park the run: the end does."""
    app = make()

    @app.workflow
    async def flow() -> None:
        await asyncio.gather(aio.sleep(0.02), aio.sleep(3600))

    with app:
        operon.start(flow.using(key="w"))
        eventually(lambda: operon.describe("w").status == "waiting")


@pytest.mark.parametrize("errors", ["raise", "return"])
def test_who_gathers_many_is_replayed_once(make: MakeApp, errors: Literal["raise", "return"]) -> None:
    """Not once for each that ends before the last."""
    app, many, begun = make(), 6, list[int]()
    gates = [threading.Event() for _ in range(many)]

    @app.workflow
    def child(number: int) -> int:
        gates[number].wait(PATIENCE)
        return number

    @app.workflow
    def parent() -> int:
        begun.append(1)
        handles = [operon.start(child, number) for number in range(many)]
        results = operon.gather(*handles) if errors == "raise" else operon.gather(*handles, errors="return")
        return sum(it for it in results if isinstance(it, int))

    with app:
        handle = operon.start(parent.using(key="w"))
        for ended, gate in enumerate(gates, 1):
            eventually(lambda: operon.describe("w").status == "waiting")
            gate.set()
            eventually(lambda ended=ended: operon.count(status="succeeded") >= ended)
        assert handle.result(PATIENCE) == sum(range(many))
    assert len(begun) == 2


def test_who_gathers_hears_of_a_failure_before_the_last_has_ended(make: MakeApp) -> None:
    app, gates, last = make(), [threading.Event() for _ in range(3)], threading.Event()

    @app.workflow
    def child(number: int) -> None:
        gates[number].wait(PATIENCE)
        if number == 1:
            raise ValueError(number)
        last.wait(PATIENCE if number == 2 else 0)

    @app.workflow
    def parent() -> None:
        operon.gather(*(operon.start(child, number) for number in range(3)))

    with app:
        handle = operon.start(parent.using(key="w"))
        eventually(lambda: operon.describe("w").status == "waiting")
        gates[1].set()  # it fails, but the code waits for another first
        eventually(lambda: operon.count(status="failed") == 1)
        gates[0].set()
        with pytest.raises(ValueError, match="1"):
            handle.result(PATIENCE)
        last.set()
        gates[2].set()


@pytest.mark.parametrize("how", ["late", "cancelled"])
def test_who_is_parked_hears_at_once_of_a_child_that_is_stopped(
    make: MakeApp, overdue: Callable[[Operon, str], None], how: str
) -> None:
    """Though the child's body goes on for a while, and no heartbeat comes."""
    app, go = make(lease=3600), threading.Event()

    @app.step
    def hold() -> None:
        assert go.wait(PATIENCE)

    @app.workflow
    def child() -> None:
        hold()

    @app.workflow
    def parent() -> str:
        try:
            operon.start(child.using(key="c", timeout=3600)).result()
        except (WorkflowCancelled, WorkflowTimedOut) as error:
            return type(error).__name__
        return "nothing"

    with app:
        handle = operon.start(parent.using(key="w"))
        eventually(lambda: operon.describe("w").status == "waiting")
        if how == "cancelled":
            operon.cancel("c")
        else:
            overdue(app, "c")
        assert handle.result(PATIENCE) == ("WorkflowTimedOut" if how == "late" else "WorkflowCancelled")
        go.set()


def test_a_child_that_ends_while_its_parent_parks_cuts_no_sleep_short(make: MakeApp, database: Stubborn) -> None:
    """A refused parking wakes who waits for the child, and not who waits for an instant."""
    app = make()
    release = threading.Event()
    woke: list[float] = []

    @app.workflow
    def child() -> None:
        release.wait(20)

    @app.workflow
    async def flow() -> None:
        handle = await aio.start(child)

        async def nap() -> None:
            await aio.sleep(1.0)
            woke.append(time.monotonic())

        await asyncio.gather(nap(), handle)

    database.holds = parks
    with app:
        begun = time.monotonic()
        handle = operon.start(flow.using(key="w"))
        assert database.arrived.wait(PATIENCE)
        release.set()
        eventually(lambda: operon.count(status="succeeded") == 1)
        database.holds = lambda _: False
        database.go.set()
        handle.result(PATIENCE)
    assert woke[-1] - begun >= 1.0


class Parker:
    """Parks when it is told to, by the test's hand."""

    def __init__(self) -> None:
        self.parks: list[tuple[Run, Park]] = []
        self.flight: Future[Advanced] = Future()

    def park(self, run: Run, park: Park) -> Future[Advanced]:
        self.parks.append((run, park))
        return self.flight

    def now(self) -> float:
        return time.monotonic()

    def executes(self, workflow_id: str) -> bool:
        return workflow_id == "here"

    def quietly(self, run: Run, call: Any) -> None:
        del run
        call()


@pytest.fixture
def parker() -> Parker:
    return Parker()


@pytest.fixture
def waits(database: Stubborn, parker: Parker) -> Any:
    timers = TimerThread(WallClock())
    timers.start()
    yield Waits(timers, database, parker, 0.02)
    timers.stop()


def begun(database: Stubborn, *keys: str) -> None:
    for key in keys:
        database.ask(Start(NewWorkflow(key, "flow", "{}", "", 1, executor=1)))


def running(database: Stubborn) -> Run:
    begun(database, "w")
    return Run(cast("Any", None), database.tables.workflows["w"].row)


def test_nothing_ends_a_wait_while_its_run_is_being_parked(database: Stubborn, waits: Waits, parker: Parker) -> None:
    """Whether the row waits is decided by the commit alone: until it is known, the body does not go on."""
    run = running(database)
    begun(database, "child")
    waiting = waits.begin(Wait(run, None, ("child",)))
    eventually(lambda: bool(parker.parks))
    waits.ended("child", Outcome(Status.SUCCEEDED))
    assert not waiting.future.done()
    parker.flight.set_result(Advanced(written=True, parked=True))
    assert isinstance(waiting.future.exception(5), Suspended)


def test_a_dead_run_begins_no_wait(database: Stubborn, waits: Waits) -> None:
    """A branch that comes to its wait after the others were told to leave is told too."""
    run = running(database)
    waits.abandon(run, run.die(Suspended("gone")))
    assert isinstance(waits.begin(Wait(run, time.monotonic() + 3600)).future.exception(5), Suspended)


def test_a_held_outcome_is_not_remembered(database: Stubborn, waits: Waits) -> None:
    """Held is not the end: who waits after it was resumed does not hear of the past."""
    begun(database, "w")
    waits.ended("w", Outcome(Status.HELD))
    assert not waits.begin(Wait(None, None, ("w",))).future.done()


def test_how_it_has_ended_is_remembered_where_that_is_short(database: Stubborn, waits: Waits) -> None:
    """Of a long result only that it is there, for whoever is about to wait to ask for: it may have megabytes."""
    waits.ended("short", Outcome(Status.SUCCEEDED, output="1"))
    waits.ended("long", Outcome(Status.SUCCEEDED, output=f'"{"x" * 5000}"'))
    assert waits.begin(Wait(None, None, ("short",))).future.result(0) == {
        "short": Outcome(Status.SUCCEEDED, output="1")
    }
    assert waits.begin(Wait(None, None, ("long",))).future.result(0) == {}
    assert waits._recent["long"][1] is None


def test_ten_thousand_waits_look_together(database: Stubborn, parker: Parker) -> None:
    """The safety net costs a statement a second, however many wait; each is told what is its own."""
    timers = TimerThread(WallClock())
    waits = Waits(timers, database, parker, 0.02)
    keys = [f"w{n}" for n in range(10_000)]
    begun(database, *keys)
    waiting = [waits.begin(Wait(None, None, (key,))) for key in keys]
    timers.start()  # no sooner, so that all who wait come to their first look together
    looks = eventually(lambda: len(them := [it for it in database.asked if isinstance(it, Look)]) >= 3 and them)
    assert {len(look.ids) for look in looks} == {len(keys)}
    database.ask(Advance("w77", 1, (), Outcome(Status.SUCCEEDED)))
    assert waiting[77].future.result(PATIENCE)["w77"].status is Status.SUCCEEDED
    assert not waiting[78].future.done()
    timers.stop()


def test_a_wait_for_what_is_there_no_more_ends(database: Stubborn, waits: Waits) -> None:
    """Whoever waits for a workflow that is deleted meanwhile, elsewhere, hears of no end: he is to look for himself."""
    begun(database, "w", "other")
    waiting, other = waits.begin(Wait(None, None, ("w",))), waits.begin(Wait(None, None, ("other",)))
    database.ask(Advance("w", 1, (), Outcome(Status.SUCCEEDED)))
    database.ask(Delete("w"))
    assert waiting.future.result(PATIENCE) == {}
    assert not other.future.done()


def test_a_wait_goes_on_while_the_database_does_not_answer(database: Stubborn, waits: Waits) -> None:
    """No answer is not the answer that nothing is there."""
    begun(database, "w")
    database.refuses = lambda command: StoreUnavailable("away") if isinstance(command, Look) else None
    waiting = waits.begin(Wait(None, None, ("w",)))
    eventually(lambda: sum(isinstance(command, Look) for command in database.asked) >= 2)
    assert not waiting.future.done()
    database.refuses = fine
    database.ask(Advance("w", 1, (), Outcome(Status.SUCCEEDED)))
    assert waiting.future.result(PATIENCE)["w"].status is Status.SUCCEEDED


def test_the_end_of_a_wait_is_told_once(database: Stubborn, waits: Waits) -> None:
    """Many who end it at the same moment do not stumble over each other, nor over one who stopped waiting."""
    begun(database, "w")
    for _ in range(200):
        waiting = waits.begin(Wait(None, None, ("w",)))
        barrier = threading.Barrier(3)
        failures: list[BaseException] = []

        def end(waiting: Any = waiting, barrier: Any = barrier, failures: Any = failures) -> None:
            barrier.wait(PATIENCE)
            try:
                waits.end(waiting, {})
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=end) for _ in range(2)]
        for thread in threads:
            thread.start()
        barrier.wait(PATIENCE)
        waiting.future.cancel()
        for thread in threads:
            joined(thread)
        assert not failures


def test_closing_tells_who_waits(make: MakeApp) -> None:
    """A thread that waits for a result when the app closes is told, and does not hang."""
    app = make()
    told: Future[BaseException] = Future()

    @app.workflow
    def flow() -> None: ...

    app.launch()
    handle = operon.start(flow.using(delay=3600))

    def wait() -> None:
        try:
            handle.result(PATIENCE)
        except BaseException as error:
            told.set_result(error)

    threading.Thread(target=wait, daemon=True).start()
    engine: Any = app._engine
    eventually(lambda: bool(engine.waits._watchers))
    app.close()
    assert isinstance(told.result(PATIENCE), NotLaunched)


def test_a_distant_deadline_keeps_no_run_alive(make: MakeApp) -> None:
    """What has ended is forgotten, whatever its deadline was."""
    app = make()
    seen: list[weakref.ref[Any]] = []

    @app.workflow
    def flow() -> None:
        engine: Any = app._engine
        seen.append(weakref.ref(next(iter(engine.runs.all()))))

    with app:
        for _ in range(3):
            flow.using(timeout=86400)()
        assert len(seen) == 3
        eventually(lambda: gc.collect() >= 0 and not any(it() for it in seen), "a run is kept")


def test_cancelled_timers_do_not_pile_up() -> None:
    timers = TimerThread(WallClock())
    for _ in range(50_000):
        timers.after(3600, lambda: None).cancel()
    assert len(timers._heap) < 5000


def test_a_timer_that_fails_in_whatever_way_stops_no_other(caplog: Any) -> None:
    """The clock survives what no `except Exception` catches."""
    timers, rang = TimerThread(WallClock()), threading.Event()

    def leaves() -> None:
        raise Suspended("gone")

    timers.after(0, leaves)
    timers.after(0, rang.set)
    timers.start()
    assert rang.wait(PATIENCE)
    timers.stop()


def test_a_thread_that_computes_is_not_parked(make: MakeApp) -> None:
    """A branch on a thread works until it waits, whatever the others do: it is not left in the middle."""
    app = make()
    tried: list[int] = []
    seen = threading.Event()

    @app.step
    def work() -> None: ...

    def compute() -> None:
        tried.append(1)
        work()
        seen.wait(0.3)
        work()

    @app.workflow
    async def flow() -> None:
        sleeper = asyncio.create_task(aio.sleep(3600))
        await aio.call(compute)
        sleeper.cancel()

    with app:
        operon.start(flow).result(PATIENCE)
    assert len(tried) == 1


def test_two_threads_that_wait_are_parked(make: MakeApp) -> None:
    app = make()

    @app.workflow
    async def flow(seconds: float) -> str:
        await asyncio.gather(aio.call(operon.sleep, seconds), aio.call(operon.sleep, seconds + 0.1))
        return "slept"

    with app:
        operon.start(flow.using(key="w"), 3600)
        eventually(lambda: operon.describe("w").status == "waiting")
        assert operon.start(flow, 0.5).result(PATIENCE) == "slept"


def test_what_a_thread_raises_reaches_its_caller(make: MakeApp) -> None:
    """StopIteration, too, which asyncio's futures refuse: the caller does not wait for ever."""
    nobody: Any = iter(())

    async def main() -> None:
        with pytest.raises(RuntimeError):
            await asyncio.wait_for(aio.call(next, nobody), PATIENCE)

    with make():
        asyncio.run(main())
