"""The store's clock is set, forward or back, under processes that run: everything goes on, and nothing twice."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from children import PATIENCE, eventually
from engine.conftest import MakeApp, crash
from operon import Operon, enqueue, sleep, start
from operon.core.commands import Executors, Schedules
from operon.engine.clock import WallClock
from operon.engine.offset import Offset
from operon.stores.memory import Clock, MemoryStore

HOUR = 3600.0
START = datetime(2026, 3, 4, 12, 0, 30, tzinfo=UTC).timestamp()


@pytest.fixture
def clock() -> Clock:
    begun = time.monotonic()
    return Clock(lambda: START + time.monotonic() - begun)


@pytest.fixture
def database(clock: Clock) -> MemoryStore:
    return MemoryStore(clock)


def beat(app: Operon, times: int = 1) -> None:
    """Let a process beat so often, each time when it has acted on the beat before."""
    engine: Any = app._engine
    for _ in range(times):
        before = engine.store.tables.executors[engine.executor].beat
        engine.service.beat()
        eventually(lambda before=before: engine.store.tables.executors[engine.executor].beat > before)
        eventually(lambda: engine.service._pulse is None)


def alive(database: MemoryStore) -> int:
    return sum(peer.alive for peer in database.ask(Executors()))


def test_who_beats_seldom_is_not_dead_because_the_clock_is_put_forward(
    make: MakeApp, database: MemoryStore, clock: Clock
) -> None:
    """All leases run out then. Dead is who stands still for longer than a beat takes, not who was seen twice."""
    watched, observer = make("watched", lease=HOUR), make("observer", lease=HOUR)
    with watched, observer:
        clock.advance(2 * HOUR)
        beat(observer, times=4)
        assert alive(database) == 2


def test_what_a_process_left_is_taken_over_within_a_lease_though_the_clock_is_put_back(
    make: MakeApp, database: MemoryStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def program(name: str) -> tuple[Operon, Any]:
        app = make(name, lease=0.5)

        @app.workflow(name="body")
        def body() -> str:
            if len(began) < 1:
                began.append(name)
                eventually(lambda: app._engine is None)
            return name

        return app, body

    began: list[str] = []
    (dying, body), (living, _) = program("dying"), program("living")
    with dying:
        start(body.using(key="w"))
        eventually(lambda: began == ["dying"])
        living.launch()
        crash(dying)
    clock.advance(-HOUR)
    eventually(lambda: database.tables.workflows["w"].row.status.ended)
    assert began == ["dying"]
    eventually(lambda: "put back" in caplog.text, "the clock is seen to be put back")


def test_a_sleep_takes_its_time_whatever_was_done_to_the_clock(make: MakeApp, clock: Clock) -> None:
    """Also before the next heartbeat: what the store answers to the record says what its clock shows."""
    app = make(lease=HOUR, grace=10.0)

    @app.workflow
    def nap(by: float) -> float:
        clock.advance(by)
        before = time.monotonic()
        sleep(0.2)
        return time.monotonic() - before

    with app:
        assert nap(-HOUR) >= 0.2
        assert 0.2 <= nap(HOUR) < PATIENCE


def test_a_backlog_goes_on_though_the_clock_is_put_back(make: MakeApp, clock: Clock) -> None:
    """What was ready, and what waits for a rate, waits no hour."""
    app = make(lease=HOUR, threads=1)
    queue = app.queue("q", rate=(1, 0.2))
    passed: list[int] = []

    @app.workflow
    def body(number: int) -> None:
        passed.append(number)
        eventually(lambda: len(passed) > 1 or moved)

    moved: list[bool] = []
    with app:
        handles = [start(body, 1)]
        eventually(lambda: passed == [1])
        handles += [start(body, 2), enqueue(queue, body, 3), enqueue(queue, body, 4)]
        clock.advance(-HOUR)
        beat(app)
        moved.append(True)
        for handle in handles:
            handle.result(PATIENCE)
    assert sorted(passed) == [1, 2, 3, 4]


def test_a_schedule_goes_on_when_a_clock_that_was_a_day_ahead_is_put_right(
    make: MakeApp, database: MemoryStore, clock: Clock
) -> None:
    """It would be silent for that day otherwise. What was fired by the wrong clock is not fired again."""
    app = make(lease=HOUR)
    seen: list[str] = []

    @app.schedule("0 * * * *")  # so seldom that none comes due by itself meanwhile
    @app.workflow(name="tick")
    def tick(at: datetime) -> None:
        seen.append(f"{at:%d %H:%M}")

    def planned() -> datetime:
        (row,) = database.ask(Schedules("tick"))
        return datetime.fromtimestamp(row.next_at or 0.0, UTC)

    with app:
        began = planned()
        clock.advance(24 * HOUR)
        beat(app)
        eventually(lambda: len(seen) == 1)
        eventually(lambda: planned().day == began.day + 1)
        clock.advance(-24 * HOUR)
        beat(app)
        eventually(lambda: planned().day == began.day)
        for hour in (1, 2):
            clock.advance(HOUR)
            beat(app)
            eventually(lambda hour=hour: len(seen) == 1 + hour)
    assert len(set(seen)) == 3


def test_how_far_a_clock_was_put_back_is_known_whatever_an_answer_took() -> None:
    """Late answers look like a clock that was put back; only what cannot be that is one."""
    ticks = [100.0]

    class Ticking(WallClock):
        def monotonic(self) -> float:
            return ticks[0]

    offset = Offset(Ticking())
    offset.looked(1000.0, 100.0)
    ticks[0] = 150.0
    offset.looked(1000.5, 100.5)
    assert offset.put_back() == 0.0, "the answer came late"
    assert offset.now() == 1000.5
    ticks[0] = 151.0
    offset.looked(900.0, 150.0)
    assert offset.put_back() == pytest.approx(150.0, abs=51), "it may have been told at any time before"
    assert offset.put_back() == 0.0
    offset.looked(5000.0, 151.0)
    assert offset.put_back() == 0.0
    offset.observe(5000.9)
    assert offset.now() == 5000.0
    offset.observe(4000.0)
    assert offset.now() == 4000.0
