"""A schedule starts one workflow at each planned instant: over restarts, overlaps, and clocks that jump."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from msgspec.structs import replace

from children import PATIENCE, eventually
from engine.conftest import MakeApp, crash
from engine.gates import Gate
from operon import Client, Operon, Routes, aio, find, now, remote, schedules, start
from operon.core.commands import Fire, KeepSchedule, Schedules
from operon.core.cron import Cron
from operon.errors import BadValue, DeclarationError, KeyConflict, NotFound, NotInWorkflow
from operon.stores.memory import Clock, MemoryStore

START = datetime(2026, 10, 24, 12, 0, 30, tzinfo=UTC)
LONDON = ZoneInfo("Europe/London")


class Time:
    """The time of a store in memory, and the apps on it."""

    def __init__(self) -> None:
        self.clock = Clock(start=START.timestamp())
        self.store = MemoryStore(self.clock)
        self.apps: list[Operon] = []

    def app(self, name: str = "app", **options: Any) -> Operon:
        app = Operon(name, database=self.store, grace=0.05, **options)
        self.apps.append(app)
        return app

    def jump(self, **span: float) -> None:
        """Let the clock jump, and have every process notice."""
        self.clock.advance(timedelta(**span).total_seconds())
        self.beat()

    def beat(self) -> None:
        for app in self.apps:
            if app.host is not None:
                app.host.replan()

    def row(self, name: str) -> Any:
        (row,) = self.store.ask(Schedules(name))
        return row

    def past(self, name: str) -> None:
        """Wait until a schedule waits for an instant to come."""
        eventually(lambda: self.row(name).next_at is None or self.row(name).next_at > self.clock())

    def runs(self, name: str) -> list[str]:
        """When the runs of a schedule were planned, in UTC."""
        prefix = f"schedule:{name}:"
        return sorted(key.removeprefix(prefix) for key in self.store.tables.workflows if key.startswith(prefix))

    def done(self, name: str, count: int) -> None:
        """Wait until so many runs of a schedule have ended, and there are no more."""
        self.past(name)
        keys = [f"schedule:{name}:{at}" for at in self.runs(name)]
        assert len(keys) == count, keys
        eventually(lambda: all(self.store.tables.workflows[key].row.status.ended for key in keys))


@pytest.fixture
def time() -> Iterator[Time]:
    made = Time()
    yield made
    for app in made.apps:
        app.close(drain=5)


def minutely(app: Operon, seen: list[datetime], **options: Any) -> None:
    @app.schedule("* * * * *", tz="Europe/London", **options)
    @app.workflow(name="tick")
    def tick(at: datetime) -> None:
        seen.append(at)


def test_each_instant_is_fired_once_with_the_planned_time(time: Time) -> None:
    """Aware, in the schedule's zone, and by the store's clock: two processes make no two of it."""
    seen: list[datetime] = []
    apps = [time.app(), time.app()]
    for app in apps:
        minutely(app, seen)
        app.launch()
    assert time.runs("tick") == [], "a first launch begins now"
    for minute in range(1, 5):
        time.jump(minutes=1)
        time.done("tick", minute)
    assert seen == [(START.replace(second=0) + timedelta(minutes=n)).astimezone(LONDON) for n in range(1, 5)]
    assert {at.tzinfo for at in seen} == {LONDON}
    assert time.runs("tick")[0] == "2026-10-24T12:01:00Z"


def test_the_instant_after_a_firing_is_learnt_at_once(make: MakeApp) -> None:
    """With this lease, a heartbeat would be twelve minutes away."""
    seen: list[datetime] = []
    first, second = make(lease=3600.0), make(lease=3600.0)
    for app in (first, second):

        @app.schedule("* * * * * *")
        @app.workflow(name="tick")
        def tick(at: datetime) -> None:
            seen.append(at)

        app.launch()
    eventually(lambda: len(seen) >= 3)
    told = [*seen]
    assert len(told) == len(set(told))


# ── What was missed ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("catch_up", "expected"), [("skip", 0), ("one", 1), ("all", 250)])
def test_what_was_missed_is_made_up_for_as_it_was_said(time: Time, catch_up: Any, expected: int) -> None:
    """None, the latest, or each, in order and one after the other, however many commits that takes."""
    seen: list[datetime] = []
    running: list[int] = []

    def declared() -> Operon:
        app = time.app()

        @app.schedule("* * * * *", catch_up=catch_up)
        @app.workflow(name="tick")
        def tick(at: datetime) -> None:
            running.append(1)
            assert len(running) == 1, "one after the other"
            seen.append(at)
            running.pop()

        return app

    with declared():
        pass
    time.clock.advance(250 * 60)
    with declared():
        time.done("tick", expected)
    first, last = START.replace(second=0) + timedelta(minutes=1), START.replace(second=0) + timedelta(minutes=250)
    assert seen == {"skip": [], "one": [last], "all": [first + timedelta(minutes=n) for n in range(250)]}[catch_up]


@pytest.mark.parametrize("catch_up", ["skip", "one", "all"])
def test_what_comes_a_little_late_was_not_missed(time: Time, catch_up: Any) -> None:
    """A restart that takes less than a lease loses nothing."""
    seen: list[datetime] = []
    first = time.app()
    minutely(first, seen, catch_up=catch_up)
    with first:
        pass
    time.clock.advance(44)
    second = time.app()
    minutely(second, seen, catch_up=catch_up)
    with second:
        time.done("tick", 1)


@pytest.mark.parametrize("overlap", ["skip", "queue", "replace"])
def test_missed_ones_that_are_all_made_up_for_do_not_keep_each_other_out(time: Time, overlap: Any) -> None:
    """They come together because nobody was there, and not because one took too long."""
    seen: list[datetime] = []
    for minutes in (0, 3):
        time.clock.advance(60 * minutes)
        app = time.app()
        minutely(app, seen, catch_up="all", overlap=overlap)
        with app:
            time.done("tick", minutes)
    assert len(seen) == 3
    assert time.row("tick").skipped == 0


@pytest.mark.parametrize("cron", ["0 * * * *", "30 12,13,14 * * *", "*/10 * * * *"])
def test_a_clock_that_jumps_an_hour_fires_nothing_twice_and_misses_nothing(time: Time, cron: str) -> None:
    seen: list[datetime] = []
    app = time.app()

    @app.schedule(cron, catch_up="all")
    @app.workflow(name="tick")
    def tick(at: datetime) -> None:
        seen.append(at)

    with app:
        for minutes in (5, 30, 60, -60, 15, 10, 40, -30, -60, 60, 90, 60):
            time.jump(minutes=minutes)
            time.past("tick")
            eventually(lambda: len(seen) == len(time.runs("tick")))
        end = time.clock()
    assert sorted(at.timestamp() for at in seen) == list(takewhile(end.__ge__, Cron(cron).after(START.timestamp())))


# ── When the one before has not ended ────────────────────────────────────────────────────────────────────────────────


class Slow:
    """A workflow that goes on until it is told, every minute."""

    def __init__(self, time: Time, **options: Any) -> None:
        self.time = time
        self.go = threading.Semaphore(0)
        self.began: list[datetime] = []
        app = time.app(lease=3600.0)

        @app.schedule("* * * * *", **options)
        @app.workflow(name="slow")
        def slow(at: datetime) -> None:
            self.began.append(at)
            self.go.acquire()

        self.app = app

    def minute(self) -> None:
        self.time.jump(minutes=1)
        self.time.past("slow")


def test_skip_leaves_out_what_overlaps_and_says_so(time: Time) -> None:
    slow = Slow(time, overlap="skip")
    with slow.app:
        for _ in range(3):
            slow.minute()
        found = schedules.describe("slow")
        assert (found.skipped, found.skipped_at) == (2, START.replace(second=0) + timedelta(minutes=3))
        assert time.runs("slow") == ["2026-10-24T12:01:00Z"]
        slow.go.release()
        time.done("slow", 1)
        slow.go.release()
        slow.minute()
        time.done("slow", 2)
        assert schedules.describe("slow").last == "schedule:slow:2026-10-24T12:04:00Z"


def test_queue_begins_each_when_the_one_before_has_ended(time: Time) -> None:
    """Its end wakes the next one: with this lease, a heartbeat would be twelve minutes away."""
    slow = Slow(time, overlap="queue")
    with slow.app:
        for _ in range(3):
            slow.minute()
        eventually(lambda: len(slow.began) == 1)
        assert [row.status for row in find(name="slow")] == ["waiting", "waiting", "running"]
        for count in (2, 3):
            slow.go.release()
            eventually(lambda count=count: len(slow.began) == count)
        slow.go.release()
        time.done("slow", 3)
    assert slow.began == sorted(slow.began)


def test_replace_cancels_the_one_before(time: Time) -> None:
    began: set[datetime] = set()
    app = time.app()

    @app.schedule("* * * * *", overlap="replace")
    @app.workflow(name="slow")
    async def slow(at: datetime) -> None:
        began.add(at)
        await aio.sleep(10_000)

    with app:
        for count in range(1, 4):
            time.jump(minutes=1)
            time.past("slow")
            eventually(lambda count=count: len(began) == count)
        eventually(lambda: [row.status for row in find(name="slow")][1:] == ["cancelled", "cancelled"])
        assert find(name="slow")[0].status in {"running", "waiting"}


# ── What code declares ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pause_outlives_a_launch_and_nothing_of_it_is_caught_up(time: Time) -> None:
    seen: list[datetime] = []
    app = time.app()
    minutely(app, seen, catch_up="all")
    with app:
        schedules.pause("tick")
        assert schedules.describe("tick").next_at is None
        time.jump(hours=1)
    second = time.app()
    minutely(second, seen, catch_up="all")
    with second:
        assert schedules.describe("tick").paused
        time.jump(hours=1)
        schedules.resume("tick")
        schedules.resume("tick")
        assert time.runs("tick") == []
        time.jump(minutes=1)
        time.done("tick", 1)


def test_another_time_in_the_code_begins_anew_and_the_same_goes_on(time: Time) -> None:
    def declared(cron: str, tz: str = "UTC") -> Operon:
        app = time.app()

        @app.schedule(cron, tz=tz, catch_up="all")
        @app.workflow(name="tick")
        def tick() -> None: ...

        return app

    with declared("0 13 * * *"):
        assert time.row("tick").next_at == START.replace(hour=13, second=0, minute=0).timestamp()
    time.clock.advance(7200)
    with declared("0 13 * * *"):
        time.done("tick", 1)
    time.clock.advance(86_400)
    with declared("0 9 * * *", "Asia/Kolkata"):
        assert time.runs("tick") == ["2026-10-24T13:00:00Z"]
        assert schedules.describe("tick").next_at == datetime(2026, 10, 26, 9, tzinfo=ZoneInfo("Asia/Kolkata"))


def test_a_schedule_that_the_code_lost_is_silent_and_lives_while_another_version_has_it(time: Time) -> None:
    """A rolling deploy: the new version neither fires nor deletes what the old one declares."""
    old, new = time.app(version="1"), time.app(version="2")
    for app, names in ((old, ("kept", "gone")), (new, ("kept",))):
        for name in ("kept", "gone"):

            @app.workflow(name=name)
            def body() -> None: ...

            if name in names:
                app.schedule("* * * * *")(body)
    old.launch()
    new.launch()
    time.jump(minutes=1)
    time.done("gone", 1)
    time.done("kept", 1)
    old.close()
    time.jump(minutes=1)
    time.done("kept", 2)
    assert len(time.runs("gone")) == 1
    assert "gone" in [it.name for it in schedules.list()]
    schedules.delete("gone")
    with pytest.raises(NotFound, match="There is no schedule 'gone'"):
        schedules.delete("gone")


def test_two_apps_that_run_declare_a_schedule_alike(time: Time) -> None:
    def declared(name: str, cron: str) -> Operon:
        app = time.app(name)

        @app.schedule(cron)
        @app.workflow(name="tick")
        def tick() -> None: ...

        return app

    with declared("one", "* * * * *"):
        with declared("two", "* * * * *"):
            pass
        with pytest.raises(DeclarationError, match="one and two declare the schedule 'tick' differently"):
            declared("two", "0 * * * *").launch()
    with declared("two", "0 * * * *"):
        assert schedules.describe("tick").app == "two"


def test_parts_have_schedules_too_and_a_queue_is_gone_through(time: Time) -> None:
    app = time.app()
    slow = app.queue("slow", concurrency=1)
    part = Routes("billing")

    @part.schedule("@hourly", queue=slow)
    @part.workflow(name="billing.invoice")
    def invoice() -> None: ...

    app.include(part)
    with app:
        slow.pause()
        time.jump(hours=1)
        time.past("billing.invoice")
        queued = find(queue="slow")
        found = schedules.describe("billing.invoice")
    assert [row.status for row in queued] == ["queued"]
    assert (found.queue, found.function, found.declared) == ("slow", invoice.name, True)


def test_a_process_that_runs_nothing_fires_nothing_and_one_of_some_queues_all(time: Time) -> None:
    seen: list[datetime] = []
    idle, busy = time.app(), time.app()
    for app in (idle, busy):
        app.queue("other")
        minutely(app, seen)
    idle.launch(run=False)
    time.jump(minutes=1)
    beat = time.store.tables.executors[1].beat
    eventually(lambda: time.store.tables.executors[1].beat > beat)
    assert time.runs("tick") == []
    busy.launch(run=["other"])
    time.done("tick", 1)


def test_a_schedule_that_cannot_be_fired_here_is_in_no_others_way(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[datetime] = []
    app = time.app()
    minutely(app, seen)

    @app.schedule("* * * * *")
    @app.workflow(name="broken")
    def broken() -> None: ...

    with app:
        row = time.row("broken")
        assert time.store.ask(KeepSchedule(replace(row, plan=replace(row.plan, tz="Mars/Base"), turn=2)))
        time.jump(minutes=1)
        time.done("tick", 1)
        time.jump(minutes=1)
        time.done("tick", 2)
    assert "The schedule broken cannot be fired here" in caplog.text


# ── What is made at run time ─────────────────────────────────────────────────────────────────────────────────────────


def digests(app: Operon) -> Any:
    @app.workflow(name="digest")
    def digest(user: str, at: datetime | None = None) -> str:
        return f"{user} {at.isoformat() if at else 'never'}"

    return digest


def test_a_schedule_made_at_run_time_calls_with_what_was_bound(make: MakeApp) -> None:
    app = make()
    digest = digests(app)
    with app:
        call = digest.using(attributes={"kind": "digest"}, user="ada", timeout=60).bind("acme")
        made = schedules.create("acme", "* * * * * *", call, tz="Asia/Kolkata")
        assert (made.input, made.declared, made.app) == ({"user": "acme"}, False, "app")
        eventually(lambda: len(find(attributes={"kind": "digest"}, status="succeeded")) >= 2)
        schedules.pause("acme")
        row = find(attributes={"kind": "digest"}, status="succeeded")[-1]
        at = datetime.fromisoformat(row.id.removeprefix("schedule:acme:")).astimezone(ZoneInfo("Asia/Kolkata"))
        assert row.output == f"acme {at.isoformat()}"
        assert (row.user, row.input) == ("ada", {"user": "acme", "at": at})
        assert row.deadline is not None


def test_to_make_the_same_again_is_harmless_and_another_is_refused(make: MakeApp) -> None:
    app = make()
    digest = digests(app)

    @app.schedule("0 9 * * *")
    @app.workflow(name="coded")
    def coded() -> None: ...

    with app:
        first = schedules.create("acme", "0 9 * * *", digest.bind("acme"))
        schedules.pause("acme")
        assert schedules.create("acme", "0 9 * * *", digest.bind("acme")).paused
        for cron, call in (("0 10 * * *", digest.bind("acme")), ("0 9 * * *", digest.bind("other"))):
            with pytest.raises(KeyConflict, match="There is a schedule 'acme' already, of digest at '0 9"):
                schedules.create("acme", cron, call)
        changed = schedules.create("acme", "0 10 * * *", digest.bind("acme"), replace=True)
        assert (changed.paused, changed.cron) == (True, "0 10 * * *")
        schedules.resume("acme")
        assert schedules.describe("acme").next_at != first.next_at
        with pytest.raises(KeyConflict, match="declared in the code of app"):
            schedules.create("coded", "0 9 * * *", coded, replace=True)
        schedules.delete("acme")
        assert [it.name for it in schedules.list()] == ["coded"]


def test_a_change_plans_no_instant_that_was_fired_while_it_was_made(
    time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody fires between the look at the clock and the change."""
    fired: list[float] = []
    right = time.store.apply

    def late(command: Any) -> Any:
        row = time.store.tables.schedules.get("s")
        if isinstance(command, KeepSchedule) and not fired and row is not None:
            fired.append(row.next_at or 0.0)
            time.clock.advance(60)
            right(Fire("s", row.turn, fired[0] + 60, ()))
        return right(command)

    monkeypatch.setattr(time.store, "apply", late)
    app = time.app()

    @app.workflow
    def tick() -> None: ...

    with app:
        schedules.create("s", "* * * * *", tick)
        schedules.create("s", "* * * * *", tick, tz="Europe/London", replace=True)
    assert fired == [START.timestamp() + 30]
    assert time.row("s").next_at > fired[0]


def test_a_trigger_runs_it_now_and_changes_nothing(time: Time) -> None:
    app = time.app()
    digest = digests(app)
    with app:
        schedules.create("acme", "0 9 * * *", digest.bind("acme"))
        schedules.pause("acme")
        before = time.row("acme")
        handle = schedules.trigger("acme")
        assert str(handle.result(timeout=PATIENCE)).startswith("acme 2026-10-24T12:00:30")
        assert handle.id.startswith("schedule:acme:")
        assert schedules.trigger("acme").id != handle.id
        assert time.row("acme") == before
        with pytest.raises(NotFound, match="There is no schedule 'nope'"):
            schedules.trigger("nope")


def test_a_backfill_joins_what_was_fired_and_itself(time: Time) -> None:
    app = time.app()
    digest = digests(app)
    with app:
        schedules.create("acme", "0 * * * *", digest.bind("acme"))
        time.jump(hours=1)
        time.done("acme", 1)
        since, until = START - timedelta(hours=2), START + timedelta(minutes=59, seconds=30)
        assert [it.id for it in schedules.backfill("acme", since, until)] == [
            "schedule:acme:2026-10-24T11:00:00Z",
            "schedule:acme:2026-10-24T12:00:00Z",
        ], "until is not part of it"
        until = START + timedelta(hours=1)
        again = schedules.backfill("acme", since.replace(minute=0, second=0), until=until)
        assert [it.id[-9:] for it in again] == ["10:00:00Z", "11:00:00Z", "12:00:00Z", "13:00:00Z"]
        assert [it.result(timeout=PATIENCE)[:13] for it in again] == ["acme 2026-10-24T1"[:13]] * 4
        time.done("acme", 4)
        with pytest.raises(BadValue, match="still to come"):
            schedules.backfill("acme", since, START + timedelta(days=1))
        with pytest.raises(BadValue, match="needs a time zone"):
            schedules.backfill("acme", since.replace(tzinfo=None), until)
        schedules.create("acme", "* * * * * *", digest.bind("acme"), replace=True)
        with pytest.raises(BadValue, match="more than 10000 instants"):
            schedules.backfill("acme", since - timedelta(days=9), until)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"key": "k"}, r"\.using\(key=…\)"),
        ({"dedupe": "k"}, r"\.using\(dedupe=…\)"),
        ({"delay": 1}, r"\.using\(delay=…\)"),
        ({"on_duplicate": "first"}, r"\.using\(on_duplicate=…\)"),
        ({"within": object()}, r"\.using\(within=…\)"),
    ],
)
def test_options_of_one_call_are_refused(time: Time, options: Any, said: str) -> None:
    app = time.app()
    digest = digests(app)
    with app, pytest.raises(BadValue, match=said):
        schedules.create("acme", "0 9 * * *", digest.using(**options).bind("acme"))


def test_what_cannot_be_meant_is_refused_before_anything_is_written(time: Time) -> None:
    app = time.app()
    digest = digests(app)

    @app.step
    def step() -> None: ...

    made: Any = schedules.create
    with app:
        for arguments, options, error, said in (
            (("a", "61 * * * *", digest.bind("x")), {}, BadValue, "'61' is no minute"),
            (("a", "* * * * *", digest.bind("x")), {"tz": "Mars/Base"}, BadValue, "no time zone 'Mars/Base'"),
            (("a", "* * * * *", digest.bind("x")), {"overlap": "wait"}, BadValue, "overlap='wait': there are 'skip'"),
            (("a", "* * * * *", digest.bind("x")), {"catch_up": 1}, BadValue, "catch_up=1: there are 'skip', 'one'"),
            (("a" * 201, "* * * * *", digest.bind("x")), {}, BadValue, "at most 200 characters"),
            (("a\0", "* * * * *", digest.bind("x")), {}, BadValue, "no control characters"),
            (("", "* * * * *", digest.bind("x")), {}, BadValue, "1 to 255"),
            (("a", "* * * * *", step), {}, BadValue, "starts a workflow or a transaction"),
            (("a", "* * * * *", print), {}, BadValue, "starts a workflow or a transaction"),
            (("a", "* * * * *", digest.bind("x")), {"queue": "nope"}, NotFound, "There is no queue 'nope'"),
            (("a", "* * * * *", digest), {}, TypeError, "missing a required argument: 'user'"),
        ):
            with pytest.raises(error, match=said):
                made(*arguments, **options)
        assert schedules.list() == []


def test_a_method_of_a_registered_object_is_scheduled_with_the_object(time: Time) -> None:
    app = time.app()

    class Billing:
        def __init__(self, place: str) -> None:
            self.place = place

        @app.workflow(name="close")
        def close(self, at: datetime) -> str:
            return f"{self.place} {at:%H:%M}"

    billing = app.register(Billing("eu"), name="eu")
    with app:
        schedules.create("close-eu", "* * * * *", billing.close)
        time.jump(minutes=1)
        time.done("close-eu", 1)
        assert find(name="close")[0].output == "eu 12:01"


def test_in_a_workflow_each_verb_is_recorded_and_done_once(make: MakeApp) -> None:
    """A replay is given the first answers, errors among them, and nothing is done again."""
    app = make()
    digest = digests(app)
    replays: list[int] = []

    @app.workflow
    def manage() -> list[Any]:
        replays.append(1)
        made = schedules.create("acme", "0 9 * * *", digest.bind("acme"))
        handle = schedules.trigger("acme")
        schedules.pause("acme")
        found = schedules.describe("acme")
        until = now()
        filled = schedules.backfill("acme", until - timedelta(days=3), until)
        schedules.delete("acme")
        with pytest.raises(NotFound):
            schedules.pause("acme")
        gate.pass_through()
        return [made.name, handle.id, found.paused, len(schedules.list()), [it.id for it in filled]]

    gate = Gate(app)
    with app:
        gate.shut()
        handle = start(manage)
        gate.open_behind(handle.id)
        name, triggered, paused, left, filled = handle.result(timeout=PATIENCE)
        assert len(replays) > 1, "it left, and was replayed"
        assert (name, paused, left, len(filled)) == ("acme", True, 0, 3)
        eventually(lambda: len(find(name="digest", status="succeeded")) == 4)
        assert {row.id for row in find(name="digest")} == {triggered, *filled}


def test_a_transaction_is_scheduled_like_a_workflow(make: MakeApp, database: Any) -> None:
    if isinstance(database, MemoryStore):
        pytest.skip("a store in memory has no transactions of the user's")
    app = make()
    if database.startswith("sqlite"):

        @app.transaction(name="note")
        def note(tx: sqlite3.Connection, at: datetime) -> datetime:
            return at
    else:

        @app.transaction(name="note")
        def note(tx: psycopg.Connection, at: datetime) -> datetime:
            return at

    app.schedule("* * * * * *", tz="Europe/London")(note)
    with app:
        eventually(lambda: find(name="note", status="succeeded"))
        row = find(name="note", status="succeeded")[0]
        assert row.id == f"schedule:note:{row.output.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def test_in_a_transaction_no_verb_works(make: MakeApp, database: Any) -> None:
    app = make()
    digest = digests(app)
    if isinstance(database, MemoryStore):
        pytest.skip("a store in memory has no transactions of the user's")

    if database.startswith("sqlite"):

        @app.transaction
        def change(tx: sqlite3.Connection) -> None:
            schedules.create("acme", "0 9 * * *", digest.bind("acme"))
    else:

        @app.transaction
        def change(tx: psycopg.Connection) -> None:
            schedules.create("acme", "0 9 * * *", digest.bind("acme"))

    with app:
        with pytest.raises(NotInWorkflow, match="inside a transaction"):
            change()
        assert schedules.list() == []


def test_a_client_has_the_verbs_without_the_code(make: MakeApp, database: Any) -> None:
    app = make()
    digests(app)

    @remote("digest")
    def digest(user: str, at: datetime | None = None) -> str:
        raise NotImplementedError

    with app, Client(database if isinstance(database, str) else app.host.store) as client:  # type: ignore[union-attr]
        client.schedules.create("acme", "0 9 * * *", digest.bind("acme"), tz="Europe/London")
        assert [it.name for it in client.schedules.list()] == ["acme"]
        handle = client.schedules.trigger("acme")
        assert str(handle.result(timeout=PATIENCE)).startswith("acme 20")
        until = datetime.now(UTC)
        filled = client.schedules.backfill("acme", until - timedelta(days=2), until)
        assert [str(it.result(timeout=PATIENCE))[:7] for it in filled] == ["acme 20"] * 2
        client.schedules.pause("acme")
        assert client.schedules.describe("acme").paused
        client.schedules.resume("acme")
        client.schedules.delete("acme")


@pytest.mark.anyio
async def test_every_verb_is_awaited_too(make: MakeApp) -> None:
    app = make()
    digest = digests(app)
    async with app:
        await aio.schedules.create("acme", "0 9 * * *", digest.bind("acme"))
        await aio.schedules.pause("acme")
        assert (await aio.schedules.describe("acme")).paused
        await aio.schedules.resume("acme")
        assert str(await (await aio.schedules.trigger("acme"))).startswith("acme")
        until = datetime.now(UTC)
        assert len(await aio.schedules.backfill("acme", until - timedelta(days=2), until)) == 2
        assert [it.name for it in await aio.schedules.list()] == ["acme"]
        await aio.schedules.delete("acme")


def test_a_firing_survives_the_process_that_fired_it(make: MakeApp) -> None:
    """Fired and not begun, or begun and not ended: another process runs it to its end, and it is one workflow."""
    first, second = make(), make()
    began = threading.Event()
    hold = threading.Event()
    done: list[datetime] = []
    for app, blocks in ((first, True), (second, False)):

        @app.schedule("* * * * * *", catch_up="all", overlap="queue")
        @app.workflow(name="tick")
        def tick(at: datetime, blocks: bool = blocks) -> None:
            if blocks:
                began.set()
                hold.wait(20)
            else:
                done.append(at)

    first.launch()
    assert began.wait(PATIENCE)
    crash(first)
    with second:
        eventually(lambda: len(done) >= 3)
        schedules.pause("tick")
        eventually(lambda: not find(name="tick", status=["queued", "running", "waiting"]))
        ids = [row.id for row in find(name="tick", limit=1000)]
    hold.set()
    assert len(done) == len(set(done)) == len(ids)
    seconds = sorted(int(at.timestamp()) for at in done)
    assert seconds == list(range(seconds[0], seconds[-1] + 1)), "none was left out"
