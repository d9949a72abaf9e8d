"""A workflow that is cancelled, or passes its deadline, hears of it and cleans up: asleep, and if its process dies."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, cast

import pytest

import operon
from children import PATIENCE, eventually
from engine.conftest import MakeApp, crash
from operon import Operon, aio
from operon.core.commands import Beat, Bury, Cleaned, CleanUp, Command, Executors
from operon.engine.cleaning import Cleaning
from operon.errors import Cancelled, StepTimedOut, StoreUnavailable, WorkflowCancelled, WorkflowTimedOut

Overdue = Callable[[Operon, str], None]


class Saga:
    """A workflow in both colours that has booked something, waits somewhere, and undoes it when it is cancelled."""

    def __init__(self, app: Operon, seen: list[str], colour: str, waits: str) -> None:
        self.app = app
        self.seen = seen
        self.inside = threading.Event()
        self.free = threading.Event()
        self.waits = waits

        @app.step(name="note")
        def note(what: str) -> str:
            seen.append(what)
            return what

        @app.step(name="anote")
        async def anote(what: str) -> str:
            seen.append(what)
            return what

        @app.step(name="hold")
        def hold() -> None:
            seen.append("hold")
            self.inside.set()
            self.free.wait(60)

        @app.workflow(name="slow")
        def slow() -> None:
            operon.sleep(3600)

        @app.workflow(name="saga")
        def saga() -> None:
            note("book")
            child = operon.start(slow) if waits == "result" else None
            try:
                if child is not None:
                    child.result()
                elif waits == "step":
                    hold()
                else:
                    operon.sleep(3600)
                note("never")
            except Cancelled:
                note("undo")
                raise
            finally:
                note("finally")

        @app.workflow(name="asaga")
        async def asaga() -> None:
            await anote("book")
            child = await aio.start(slow) if waits == "result" else None
            try:
                async with asyncio.TaskGroup() as group:
                    if child is not None:
                        group.create_task(aside(child))
                    else:
                        group.create_task(aio.call(hold) if waits == "step" else aio.sleep(3600))
                await anote("never")
            except* Cancelled:
                await anote("undo")
                raise
            finally:
                await anote("finally")

        async def aside(child: Any) -> None:
            await child

        self.saga: Any = saga if colour == "sync" else asaga

    def asleep(self) -> None:
        """Wait until it waits, and no process runs it."""
        if self.waits == "step":
            assert self.inside.wait(30)
            crash(self.app)
            self.free.set()
        else:
            eventually(lambda: operon.describe("w").status == "waiting")


CLEAN = ["book", "undo", "finally"]


@pytest.fixture(params=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(params=["sleep", "result"])
def waits(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def program(make: MakeApp, colour: str, waits: str) -> Callable[..., Saga]:
    seen: list[str] = []

    def one(**options: Any) -> Saga:
        return Saga(make(**options), seen, colour, waits)

    return one


def test_who_is_cancelled_asleep_cleans_up(program: Callable[..., Saga]) -> None:
    it = program()
    with it.app:
        handle = operon.start(it.saga.using(key="w"))
        it.asleep()
        operon.cancel("w")
        with pytest.raises(WorkflowCancelled):
            handle.result(30)
        eventually(lambda: it.seen == CLEAN)
        assert operon.describe("w").status == "cancelled"
        assert [step.name for step in operon.steps("w")][:1] == ["note" if it.saga.name == "saga" else "anote"]
    with program().app:
        assert it.seen == CLEAN


def test_who_passes_its_deadline_asleep_cleans_up(program: Callable[..., Saga], overdue: Overdue) -> None:
    it = program()
    with it.app:
        handle = operon.start(it.saga.using(key="w", timeout=3600))
        it.asleep()
        overdue(it.app, "w")
        with pytest.raises(WorkflowTimedOut):
            handle.result(30)
        eventually(lambda: it.seen == CLEAN)
        assert operon.describe("w").status == "failed"


def test_who_is_cancelled_while_nothing_runs_cleans_up_at_the_next_launch(program: Callable[..., Saga]) -> None:
    """Also what the process that died had in its hands."""
    first = program(lease=0.3)
    first.app.launch()
    operon.start(first.saga.using(key="w"))
    first.asleep()
    crash(first.app)
    quiet = program(lease=0.3)
    quiet.app.launch(run=False)
    operon.cancel("w")
    assert first.seen == ["book"]
    quiet.app.close()
    with program(lease=0.3).app:
        eventually(lambda: first.seen == CLEAN)


def test_who_is_cancelled_when_its_process_has_died_cleans_up(make: MakeApp, colour: str) -> None:
    """Its lease has not run out, so it still counts as running."""
    seen: list[str] = []
    it = Saga(make(lease=1.0), seen, colour, "step")
    it.app.launch()
    operon.start(it.saga.using(key="w"))
    it.asleep()
    quiet = make(lease=1.0)
    quiet.launch(run=False)
    assert operon.describe("w").status == "running"
    operon.cancel("w")
    quiet.close()
    with Saga(make(lease=1.0), seen, colour, "step").app:
        eventually(lambda: seen == ["book", "hold", "undo", "finally"])


class Undoing:
    """A workflow in both colours whose clean-up may stick, and waits asleep, or in a step until it is let go on."""

    def __init__(self, app: Operon, seen: list[str], *, asleep: bool, sticks: bool) -> None:
        self.app = app
        self.inside, self.go, self.stuck, self.free = (threading.Event() for _ in range(4))
        self.keys: dict[str, str] = {}
        """Of the steps, each as it was done last."""

        @app.step(name="undo")
        def undo() -> None:
            self.keys["undo"] = str(operon.context().idempotency_key)
            seen.append("undo")
            if sticks:
                self.stuck.set()
                assert self.free.wait(60)

        @app.step(name="hold")
        def hold() -> None:
            self.keys["hold"] = str(operon.context().idempotency_key)
            self.inside.set()
            assert self.go.wait(60)

        @app.workflow(name="flow")
        def flow() -> None:
            try:
                operon.sleep(3600) if asleep else hold()
            except Cancelled:
                undo()
                seen.append("undone")

        @app.workflow(name="aflow")
        async def aflow() -> None:
            try:
                await (aio.sleep(3600) if asleep else aio.call(hold))
            except Cancelled:
                await aio.call(undo)
                seen.append("undone")

        self.hold = hold
        self.flows: dict[str, Any] = {"sync": flow, "async": aflow}

    def stopped(self, colour: str, how: str, overdue: Overdue) -> None:
        """Start it, and let it be cancelled, or pass its deadline, where it waits."""
        operon.start(self.flows[colour].using(key="w", timeout=3600))
        eventually(lambda: operon.describe("w").status == "waiting") if "asleep" in how else self.inside.wait(30)
        operon.cancel("w") if "cancelled" in how else overdue(self.app, "w")
        eventually(lambda: operon.describe("w").ended_at is not None)
        self.go.set()


@pytest.mark.parametrize("how", ["cancelled asleep", "cancelled running", "late asleep", "late running"])
def test_a_clean_up_whose_process_dies_is_begun_anew(make: MakeApp, colour: str, how: str, overdue: Overdue) -> None:
    seen: list[str] = []
    asleep = "asleep" in how
    app = make(lease=0.3)
    it = Undoing(app, seen, asleep=asleep, sticks=True)
    app.launch()
    it.stopped(colour, how, overdue)
    assert it.stuck.wait(30)
    crash(app)
    other = make(lease=0.3)
    again = Undoing(other, seen, asleep=asleep, sticks=False)
    with other:
        eventually(lambda: seen[:3] == ["undo", "undo", "undone"])
        it.free.set()
        assert operon.describe("w").status == ("cancelled" if "cancelled" in how else "failed")
    assert again.keys["undo"] == it.keys["undo"] != it.keys.get("hold"), "wherever it hears"


def test_a_clean_up_elsewhere_has_no_key_of_what_was_under_way(make: MakeApp, colour: str) -> None:
    """What was begun and not recorded may have reached who knows it by its key; what undoes it is something else."""
    seen: list[str] = []
    app = make(lease=0.3)
    it = Undoing(app, seen, asleep=False, sticks=False)
    app.launch()
    operon.start(it.flows[colour].using(key="w"))
    assert it.inside.wait(30)
    crash(app)
    quiet = make(lease=60)
    quiet.launch(run=False)
    operon.cancel("w")
    quiet.close()
    other = make(lease=2)  # it looks every 0.4 seconds, and sees then that the other is dead
    again = Undoing(other, seen, asleep=False, sticks=False)
    with other:
        eventually(lambda: seen == ["undo", "undone"])
    it.go.set()
    assert again.keys["undo"] != it.keys["hold"]


@pytest.mark.parametrize("how", ["cancelled asleep", "cancelled running", "late asleep", "late running"])
def test_a_body_that_has_cleaned_up_is_done(make: MakeApp, colour: str, how: str, overdue: Overdue) -> None:
    """Nobody has to let it hear again, whoever dies after that."""
    seen: list[str] = []
    app, asleep = make(lease=60), "asleep" in how
    it = Undoing(app, seen, asleep=asleep, sticks=False)
    with app:
        it.stopped(colour, how, overdue)
        eventually(lambda: seen == ["undo", "undone"])
        engine: Any = app._engine
        eventually(lambda: not engine.runs.claims() and not engine.cleaning)
        engine.service.stop()
        store = engine.store
        store.ask(Bury(tuple((peer.id, peer.beat) for peer in store.ask(Executors())), proven=True))
        assert not store.ask(Beat(0, 0.0)).untidy


@pytest.mark.parametrize("sticks", [False, True])
def test_who_begins_while_clean_ups_are_taken_cleans_up_once(
    make: MakeApp, colour: str, overdue: Overdue, *, sticks: bool
) -> None:
    """What is taken may have begun, and been cancelled, when it was said already what runs here."""
    seen: list[str] = []
    app = make(lease=60)
    it = Undoing(app, seen, asleep=False, sticks=sticks)
    with app:
        engine: Any = app._engine
        engine.service.stop_claiming()
        taking = engine.cleaning.begin()
        command = next(taking)
        it.stopped(colour, "cancelled running", overdue)
        assert it.stuck.wait(30) if sticks else eventually(lambda: not engine.runs.claims())
        while isinstance(command, CleanUp):
            command = _sent(taking, engine.store.ask(command))
        it.free.set()
        eventually(lambda: not engine.runs.claims() and not engine.cleaning)
        assert seen == ["undo", "undone"]
        assert not engine.store.ask(Beat(engine.executor, 1.0)).untidy


def test_who_could_not_say_that_it_has_cleaned_up_says_so_later(make: MakeApp) -> None:
    with make(lease=60) as app:
        engine: Any = app._engine
        engine.service.stop_claiming()
        saying, cleaned = engine.cleaning.done("w"), Cleaned(engine.executor, "w")
        assert next(saying) == cleaned
        with pytest.raises(StopIteration):
            saying.throw(StoreUnavailable("It is away."))
        for _ in range(2):
            assert next(engine.cleaning.begin()) == cleaned
        assert _sent(engine.cleaning.begin(), None, None) is None


def test_who_could_not_say_so_where_it_ran_cleans_up_once(
    make: MakeApp, colour: str, overdue: Overdue, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, failures = list[str](), ["once"]
    app = make()
    it = Undoing(app, seen, asleep=False, sticks=False)
    with app:
        engine: Any = app._engine

        def failing(answer: Callable[..., Any]) -> Callable[..., Any]:
            def answered(command: Command[Any], *then: Any) -> Any:
                if isinstance(command, Cleaned) and failures:
                    failures.pop()
                    raise StoreUnavailable("It is away.")
                return answer(command, *then)

            return answered

        monkeypatch.setattr(engine.store, "ask", failing(engine.store.ask))
        monkeypatch.setattr(engine.store, "submit", failing(engine.store.submit))
        it.stopped(colour, "cancelled running", overdue)
        eventually(lambda: not failures and not engine.runs.claims() and not engine.cleaning)
        eventually(lambda: not engine.store.ask(Beat(engine.executor, 1.0)).untidy)
        assert seen == ["undo", "undone"]


def nothing(*, asynchronous: bool) -> int:
    """Have no place free."""
    del asynchronous
    return 0


def test_a_clean_up_that_is_noted_by_a_former_name_is_noted_again() -> None:
    """A process that was taken for dead goes on as another executor, and has taken its own clean-ups over as that."""
    engine = SimpleNamespace(
        executor=1,
        alive=True,
        program=SimpleNamespace(functions={}),
        places=SimpleNamespace(free=nothing),
    )
    cleaning = Cleaning(cast("Any", engine))
    noting = cleaning.done("w")
    assert next(noting) == Cleaned(1, "w")
    engine.executor = 2
    with pytest.raises(StopIteration):
        noting.send(None)
    assert list(cleaning.begin()) == [Cleaned(2, "w")]
    assert list(cleaning.begin()) == []


def test_a_replay_that_goes_on_is_told_where_it_was(
    make: MakeApp, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes; one that does not go on is told where it is, and that is logged."""
    app, seen = make(lease=60), list[str]()
    at, go = SimpleQueue[int](), threading.Semaphore(0)

    @app.step
    def note(n: int) -> int:
        return n

    @app.workflow
    def flow() -> None:
        for n in range(6):
            note(n)
            at.put(n)
            assert go.acquire(timeout=PATIENCE)
        try:
            operon.sleep(3600)
        except Cancelled:
            seen.append("undone")

    with app:
        engine: Any = app._engine
        engine.settings = replace(engine.settings, cleanup=CLEANUP)
        looks = at_hand(monkeypatch, engine.timers)
        for key, steps, looked in (("w1", 6, 1), ("w2", 1, 2)):
            go.release(6)
            operon.start(flow.using(key=key))
            eventually(lambda key=key: operon.describe(key).status == "waiting")
            assert [at.get(timeout=PATIENCE) for _ in range(6)] == [*range(6)]
            operon.cancel(key)
            for n in range(steps):
                assert at.get(timeout=PATIENCE) == n
                for _ in range(looked):
                    looks.get(timeout=PATIENCE)()
                go.release()
            eventually(lambda: not engine.cleaning and not engine.store.ask(Beat(engine.executor, 60.0)).untidy)
            while not looks.empty():  # what comes later is told nobody
                looks.get_nowait()()
            assert seen == ["undone"]
    assert [record.getMessage() for record in caplog.records if "does not go on" in record.getMessage()] == [
        "w2 hears of its end before it is where it was: its replay does not go on."
    ]


CLEANUP = 7777.0


def at_hand(monkeypatch: pytest.MonkeyPatch, timers: Any) -> SimpleQueue[Callable[[], object]]:
    """Keep what is to be called when the time of a clean-up is over, for the test to call."""
    kept, after = SimpleQueue[Callable[[], object]](), timers.after

    def put(seconds: float, call: Callable[[], object]) -> object:
        if seconds != CLEANUP:
            return after(seconds, call)
        kept.put(call)
        return None

    monkeypatch.setattr(timers, "after", put)
    return kept


def _sent(op: Any, *answers: Any) -> Any:
    """Give an operation what it asks for; answers what it asks for next, or None when it is over."""
    command = None
    for answer in answers:
        try:
            command = op.send(answer)
        except StopIteration:
            return None
    return command


def test_what_a_clean_up_raises_changes_nothing(make: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app = make()

    @app.workflow
    def flow() -> None:
        try:
            operon.sleep(3600)
        finally:
            raise ValueError("no")

    with app:
        operon.start(flow.using(key="w"))
        eventually(lambda: operon.describe("w").status == "waiting")
        operon.cancel("w")
        eventually(lambda: any("The clean-up of w" in it.message for it in caplog.records))
        assert operon.describe("w").status == "cancelled"


def test_a_clean_up_in_which_the_code_has_changed_is_none(make: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    first, second = make(), make()

    @first.workflow(name="flow")
    def flow() -> None:
        operon.now()
        operon.sleep(3600)

    @second.workflow(name="flow")
    def other() -> None:
        operon.uuid4()
        seen.append("other")

    with first:
        operon.start(flow.using(key="w"))
        eventually(lambda: operon.describe("w").status == "waiting")
    quiet = make()
    quiet.launch(run=False)
    operon.cancel("w")
    quiet.close()
    with second:
        eventually(lambda: any("The clean-up of w" in it.message for it in caplog.records))
        assert operon.describe("w").status == "cancelled"
    assert not seen


# ── Steps of a clean-up ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("asleep", [False, True])
def test_a_step_of_a_clean_up_is_a_step(make: MakeApp, colour: str, *, asleep: bool) -> None:
    """It is tried again, has its time and arguments of its own, and its key is that of no other operation."""
    app, keys = make(lease=60), list[str]()
    inside, go, free = threading.Event(), threading.Event(), threading.Event()
    items, seen = [1, 2], list[Any]()

    @app.step
    def hold() -> None:
        inside.set()
        assert go.wait(60)

    @app.step(retries=2, backoff=0)
    def undo(given: list[int]) -> None:
        doing = operon.context()
        keys.append(str(doing.idempotency_key))
        given.clear()
        if doing.attempt == 1:
            raise ConnectionError("away for a moment")

    @app.step(timeout=0.05)
    def hang() -> None:
        free.wait(PATIENCE)

    @app.workflow(name="sync")
    def flow() -> None:
        try:
            operon.sleep(3600) if asleep else hold()
        except Cancelled:
            undo(items)
            undo(items)
            try:
                hang()
            except StepTimedOut:
                seen.append("late")
            raise

    @app.workflow(name="async")
    async def aflow() -> None:
        try:
            await (aio.sleep(3600) if asleep else aio.call(hold))
        except Cancelled:
            await aio.call(undo, items)
            await aio.call(undo, items)
            try:
                await aio.call(hang)
            except StepTimedOut:
                seen.append("late")
            raise

    with app:
        operon.start((flow if colour == "sync" else aflow).using(key="w"))
        eventually(lambda: operon.describe("w").status == "waiting" if asleep else inside.is_set())
        operon.cancel("w")
        go.set()
        eventually(lambda: seen == ["late"])
        free.set()
    assert items == [1, 2]
    assert keys[0] == keys[1] != keys[2] == keys[3]
    assert all(key.startswith("w:") for key in keys)


def test_what_a_clean_up_raises_is_logged_where_the_body_runs(make: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app = make()
    it = Undoing(app, [], asleep=False, sticks=False)

    @app.workflow
    def flow() -> None:
        try:
            cast("Any", it.hold)()
        except Cancelled:
            raise ValueError("the bank is away") from None

    with app:
        operon.start(flow.using(key="w"))
        assert it.inside.wait(30)
        operon.cancel("w")
        it.go.set()
        eventually(lambda: any("The clean-up of w" in record.message for record in caplog.records))


def test_who_is_cancelled_in_its_last_lines_is_said_not_to_have_heard(
    make: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app, inside, go = make(), threading.Event(), threading.Event()

    @app.workflow
    def flow() -> None:
        inside.set()
        assert go.wait(60)

    with app:
        operon.start(flow.using(key="w"))
        assert inside.wait(30)
        operon.cancel("w")
        go.set()
        eventually(lambda: any("it has not heard of it" in record.message for record in caplog.records))


@pytest.mark.parametrize("asleep", [False, True])
def test_a_clean_up_that_takes_too_long_is_over(
    make: MakeApp, monkeypatch: pytest.MonkeyPatch, *, asleep: bool
) -> None:
    app, seen = make(lease=60), list[str]()

    @app.step
    async def undo() -> None:
        seen.append("undo")
        await asyncio.get_running_loop().create_future()

    @app.workflow
    async def flow() -> None:
        try:
            seen.append("in")
            await (aio.sleep(3600) if asleep else asyncio.get_running_loop().create_future())
        except Cancelled:
            await undo()

    with app:
        engine: Any = app._engine
        engine.settings = replace(engine.settings, cleanup=CLEANUP)
        looks, clock = at_hand(monkeypatch, engine.timers), engine.clock
        operon.start(flow.using(key="w"))
        eventually(lambda: operon.describe("w").status == "waiting" if asleep else seen == ["in"])
        operon.cancel("w")
        eventually(lambda: "undo" in seen)
        engine.clock = lambda: clock() + 2 * CLEANUP

        def over() -> bool:
            while not looks.empty():
                looks.get_nowait()()
            return not engine.runs.claims() and not engine.cleaning

        eventually(over)
        assert not engine.store.ask(Beat(engine.executor, 1.0)).untidy
        assert seen.count("undo") == 1
