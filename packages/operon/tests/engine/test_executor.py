"""The executor: its lease outlives slow statements, what is due is claimed in time, and what is lost is found."""

from __future__ import annotations

import threading
import time
from typing import Any, TypeVar

import pytest

import operon
from children import PATIENCE, eventually
from engine.conftest import MakeApp, crash
from engine.stubborn import Stubborn, nothing
from operon import Operon, aio
from operon.core import context
from operon.core.commands import Beat, Bury, Claim, Command, HandBack, Start
from operon.errors import StoreUnavailable, WorkflowHeld

T = TypeVar("T")


@pytest.fixture
def database() -> Stubborn:
    return Stubborn()


def test_the_lease_is_renewed_while_a_claim_hangs(make: MakeApp, database: Stubborn) -> None:
    """A statement that waits for a lock does not cost the process everything that it runs."""
    app = make()

    @app.workflow
    def flow() -> None: ...

    with app:
        database.holds = lambda command: isinstance(command, Claim)
        operon.start(flow.using(delay=0.01))
        assert database.arrived.wait(PATIENCE)
        before = sum(isinstance(it, Beat) for it in database.asked)
        eventually(lambda: sum(isinstance(it, Beat) for it in database.asked) > before + 3)
        database.go.set()


def test_what_is_claimed_while_a_start_takes_its_place_is_handed_back(make: MakeApp, database: Stubborn) -> None:
    """It would wait here behind that, though it counts as running: another process may have a place for it."""
    app, inside, go = make(threads=1, lease=60), threading.Event(), threading.Event()

    @app.workflow
    def flow() -> None:
        inside.set()
        assert go.wait(PATIENCE)

    def due() -> bool:
        it = database.tables.workflows.get("late")
        return it is not None and it.row.ready_at is not None and it.row.ready_at <= time.time()

    with app:
        database.holds = lambda command: isinstance(command, Claim) and due()
        late = operon.start(flow.using(key="late", delay=0.01))
        assert database.arrived.wait(PATIENCE)
        first = operon.start(flow.using(key="first"))
        assert inside.wait(PATIENCE)
        database.go.set()
        eventually(lambda: any(isinstance(it, HandBack) for it in database.asked))
        eventually(lambda: operon.describe("late").status == "queued")
        go.set()
        operon.gather(first, late)


def sleeper(app: Operon) -> Any:
    @app.workflow(name="sleeper")
    def flow(seconds: float) -> float:
        operon.sleep(seconds)
        return seconds

    return flow


def test_every_sleeper_wakes_in_time(make: MakeApp) -> None:
    """One that wakes makes nobody forget the next, though the heart beats once an hour by itself."""
    app = make(lease=10_800)
    flow = sleeper(app)
    with app:
        handles = [operon.start(flow, seconds) for seconds in (0.2, 0.4, 0.6)]
        assert [handle.result(PATIENCE) for handle in handles] == [0.2, 0.4, 0.6]


def test_sleepers_of_a_dead_process_wake_in_time(make: MakeApp, database: Stubborn) -> None:
    """What is due next is asked again after each: nobody here parked them, and a heartbeat is an hour away."""
    first, second = make("first"), make("second", lease=10_800)
    flow = sleeper(first)
    sleeper(second)
    first.launch()
    naps = [3600.6, 3600.9, 3601.2]
    ids = [operon.start(flow, seconds).id for seconds in naps]
    eventually(lambda: operon.count(status="waiting") == 3)
    crash(first)
    database.clock.advance(3600)
    with second:
        assert [operon.retrieve(it).result(PATIENCE) for it in ids] == naps


def test_what_waits_for_the_loop_is_not_handed_back(make: MakeApp, database: Stubborn) -> None:
    """A claim that is not run yet is no lost claim, however many heartbeats its loop or thread is busy."""
    app = make(lease=0.25)
    blocked, go = threading.Event(), threading.Event()

    @app.workflow
    async def rude() -> None:
        blocked.set()
        go.wait(20)

    @app.workflow
    async def polite() -> None: ...

    with app:
        operon.start(rude)
        assert blocked.wait(PATIENCE)
        handle = operon.start(polite.using(key="w"))
        before = sum(isinstance(it, Beat) for it in database.asked)
        eventually(lambda: sum(isinstance(it, Beat) for it in database.asked) > before + 5)
        assert not any(isinstance(it, HandBack) for it in database.asked)
        go.set()
        handle.result(PATIENCE)
        assert operon.describe("w").attempts == 1


class Slow(Stubborn):
    """Commits a start, and takes its time to say so."""

    def ask(self, command: Command[T]) -> T:
        answer = super().ask(command)
        if isinstance(command, Start):
            self.arrived.set()
            assert self.go.wait(20)
        return answer


class TestSlow:
    """On a store that is slow to answer."""

    @pytest.fixture
    def database(self) -> Slow:
        return Slow()

    def test_a_start_that_is_not_answered_yet_is_not_lost(self, make: MakeApp, database: Slow) -> None:
        """However many heartbeats find its row before the process knows that it runs it."""
        app = make(lease=0.25)

        @app.workflow
        def flow() -> str:
            return "done"

        with app:
            starting = threading.Thread(target=lambda: operon.start(flow.using(key="w")))
            starting.start()
            assert database.arrived.wait(PATIENCE)
            before = sum(isinstance(it, Beat) for it in database.asked)
            eventually(lambda: sum(isinstance(it, Beat) for it in database.asked) > before + 5)
            database.go.set()
            starting.join(PATIENCE)
            assert operon.retrieve("w", flow).result(PATIENCE) == "done"
            assert operon.describe("w").attempts == 1
        assert not any(isinstance(it, HandBack) for it in database.asked)


class Forgetful(Stubborn):
    """Claims, and loses the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0

    def ask(self, command: Command[T]) -> T:
        answer = super().ask(command)
        if isinstance(command, Claim) and answer and not self.lost:
            self.lost += 1
            raise StoreUnavailable("the answer was lost")
        return answer


class TestForgetful:
    """On a store that forgets."""

    @pytest.fixture
    def database(self) -> Forgetful:
        return Forgetful()

    def test_a_claim_whose_answer_was_lost_is_found(self, make: MakeApp, database: Forgetful) -> None:
        """Two heartbeats find what the store says runs here and does not."""
        app = make(lease=0.5)

        @app.workflow
        def flow() -> str:
            return "done"

        with app:
            assert operon.start(flow.using(delay=0.05)).result(PATIENCE) == "done"
        assert database.lost == 1


def test_who_was_declared_dead_begins_anew(make: MakeApp, database: Stubborn) -> None:
    """Its runs are left, what it held is taken over, and it goes on under another id."""
    app = make(lease=0.5)
    inside, go = threading.Event(), threading.Event()
    rounds: list[int] = []

    @app.step
    def work() -> int:
        rounds.append(1)
        if len(rounds) == 1:
            inside.set()
            go.wait(20)
        return len(rounds)

    @app.workflow
    def flow() -> int:
        return work()

    with app:
        engine: Any = app._engine
        before = engine.executor
        handle = operon.start(flow.using(key="w"))
        assert inside.wait(PATIENCE)
        with database._lock:
            database.apply(Bury(((before, database.tables.executors[before].beat),), proven=True))
        eventually(lambda: engine.executor != before)
        assert handle.result(PATIENCE) == 2
        go.set()
        assert operon.describe("w").executor == engine.executor
        assert operon.describe("w").output == 2


def test_a_run_that_is_taken_up_again_here_is_left(make: MakeApp, database: Stubborn) -> None:
    """The same process may claim what it was taken from: the earlier run waits no longer, and gives its place back."""
    app = make(lease=60, grace=30)
    left: list[int] = []

    @app.workflow(name="flow")
    async def flow() -> None:
        run: Any = context.branch()
        try:
            await aio.sleep(25)
        finally:
            left.append(run.run.guard.claim)

    with app:
        engine: Any = app._engine
        operon.start(flow.using(key="w"))
        eventually(lambda: engine.runs.get("w") is not None and engine.runs["w"].waits)
        with database._lock:
            database.apply(HandBack(engine.executor))
        engine.nudge()
        eventually(lambda: len(left) == 1)
        assert engine.runs["w"].guard.claim == left[0] + 1
        operon.cancel("w")


def test_closing_does_not_wait_for_a_database_that_is_gone(make: MakeApp, database: Stubborn) -> None:
    app = make()

    @app.workflow
    def flow() -> None: ...

    app.launch()
    database.holds = lambda _: True
    closing = threading.Thread(target=app.close, args=(0.1,), daemon=True)
    closing.start()
    closing.join(15)
    assert not closing.is_alive()
    database.go.set()


def test_what_kills_its_processes_is_held_and_the_others_go_on(make: MakeApp, database: Stubborn) -> None:
    """It is taken over as often as allowed, then left to a person, who is told why."""
    go = threading.Event()
    begun: list[str] = []

    def program() -> tuple[Operon, Any]:
        app = make(lease=0.2, max_takeovers=1)

        @app.workflow(name="body")
        def body(*, deadly: bool) -> str:
            if deadly:
                begun.append("deadly")
                go.wait(20)
            return "fine"

        return app, body

    for times in (1, 2):
        app, body = program()
        app.launch()
        operon.start(body.using(key="w", on_duplicate="first"), deadly=True)
        eventually(lambda times=times: len(begun) == times)
        crash(app)
    app, body = program()
    with app:
        eventually(lambda: operon.describe("w").status == "held")
        assert "taken over once" in str(operon.describe("w").error)
        with pytest.raises(WorkflowHeld, match=r"beside that\. Cancel it, or delete it and start it again\.$"):
            operon.retrieve("w").result(PATIENCE)
        assert operon.start(body, deadly=False).result(PATIENCE) == "fine"
        go.set()
    assert len(begun) == 2


def test_sleepers_that_are_due_close_together_wake_without_a_heartbeat(make: MakeApp, database: Stubborn) -> None:
    """A process knows when each workflow that it has parked is due, and not of the first of them only."""
    app = make(lease=3600, grace=0.01)

    @app.workflow
    def flow(n: int) -> int:
        operon.sleep(0.3 + n * 0.007)
        return n

    with app:
        database.holds = lambda command: isinstance(command, Beat)
        try:
            handles = [operon.start(flow, n) for n in range(20)]
            assert [handle.result(PATIENCE) for handle in handles] == list(range(20))
        finally:
            database.holds = nothing
            database.go.set()
