"""An app from launch to close: what is entered and left, how much runs at a time, and what is refused."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import os
import sys
import threading
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

import operon
from children import PATIENCE, eventually, ran
from engine.conftest import MakeApp
from engine.gates import Gate
from operon import Operon, aio
from operon.app.stores import default_url
from operon.core import apps
from operon.errors import (
    AmbiguousApp,
    BadValue,
    DeclarationError,
    ForeignDatabase,
    NotLaunched,
    SchemaMismatch,
    StillRunning,
    StoreError,
    StoreUnavailable,
)


class Story:
    """What happened, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @contextmanager
    def sync(self, app: Operon) -> Generator[None]:
        self.told.append(f"enter {app.name}")
        assert app.host is None, "nothing is claimed yet"
        yield
        self.told.append("leave")

    @asynccontextmanager
    async def awaited(self, app: Operon) -> AsyncGenerator[None]:
        """Opened and closed in one task, as anyio and asyncio.timeout() demand."""
        self.told.append(f"enter {app.name}")
        async with asyncio.timeout(60), asyncio.TaskGroup():
            yield
            self.told.append("leave")


@pytest.mark.parametrize("colour", ["sync", "awaited"])
@pytest.mark.parametrize("loop", [False, True])
def test_lifespan_is_entered_before_the_first_claim_and_left_after_the_drain(
    make: MakeApp, colour: str, *, loop: bool
) -> None:
    """Whichever colour it has, and whichever way the app is launched."""
    story = Story()
    app = make(lifespan=getattr(story, colour))
    begun = threading.Event()

    @app.workflow(name="flow")
    def flow() -> None:
        story.told.append("begin")
        begun.set()
        release.wait(PATIENCE)
        story.told.append("end")

    release = threading.Event()

    async def main() -> None:
        async with app:
            await aio.start(flow)
            assert await asyncio.to_thread(begun.wait, 10)
            asyncio.get_running_loop().call_later(0.05, release.set)

    if loop:
        asyncio.run(main())
    else:
        with app:
            operon.start(flow)
            assert begun.wait(PATIENCE)
            threading.Timer(0.05, release.set).start()
    assert story.told == ["enter app", "begin", "end", "leave"]


@pytest.mark.parametrize("colour", ["sync", "awaited"])
def test_an_error_in_lifespan_leaves_nothing_behind(make: MakeApp, colour: str) -> None:
    """The launch fails with it, no thread stays, and the app can be launched again."""
    broken = [True]

    @contextmanager
    def sync(_: Operon) -> Generator[None]:
        if broken[0]:
            raise ConnectionError("no cache")
        yield

    @asynccontextmanager
    async def awaited(app: Operon) -> AsyncGenerator[None]:
        with sync(app):
            yield

    app = make(lifespan={"sync": sync, "awaited": awaited}[colour])
    flow = app.workflow(name="flow")(lambda: 7)
    before = {*threading.enumerate()}
    for _ in range(2):
        with pytest.raises(ConnectionError, match="no cache"):
            app.launch()
        assert app.host is None
    assert apps.launched == []
    eventually(lambda: {*threading.enumerate()} <= before, "a thread stayed")
    broken[0] = False
    with app:
        assert flow() == 7


def test_an_error_on_leaving_is_raised_when_all_is_closed(make: MakeApp) -> None:
    @asynccontextmanager
    async def lifespan(_: Operon) -> AsyncGenerator[None]:
        yield
        raise ConnectionError("late")

    app = make(lifespan=lifespan)
    app.launch()
    with pytest.raises(ConnectionError, match="late"):
        app.close()
    assert app.host is None
    app.close()


def test_a_failing_launch_leaves_the_lifespan(make: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story()
    app = make(lifespan=story.awaited)
    from operon.engine.executor import Executor

    def fail(_: Any) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(Executor, "start", fail)
    with pytest.raises(StoreUnavailable):
        app.launch()
    assert story.told == ["enter app", "leave"]


def test_what_is_no_context_manager_is_refused(make: MakeApp) -> None:
    def forgotten(_: Operon) -> Any:
        return iter(())

    with pytest.raises(DeclarationError, match="asynccontextmanager"):
        make(lifespan=forgotten).launch()


def test_around_wraps_each_execution(make: MakeApp) -> None:
    """Also the replays: it is entered as often as the body, in the body's own thread and context."""
    inside: contextvars.ContextVar[int] = contextvars.ContextVar("inside", default=0)
    entered, numbers = dict[int, int](), itertools.count(1)

    @contextmanager
    def around() -> Generator[None]:
        number = next(numbers)
        entered[number] = threading.get_ident()
        inside.set(number)
        yield

    app = make(around=around)
    seen: list[tuple[int, int]] = []

    @app.workflow
    def flow() -> None:
        seen.append((inside.get(), threading.get_ident()))
        gate.pass_through()

    gate = Gate(app)
    with app:
        gate.shut()
        handle = operon.start(flow)
        gate.open_behind(handle.id)
        handle.result(PATIENCE)
    assert len(seen) == len({number for number, _ in seen}) == 2
    assert [(number, entered[number]) for number, _ in seen] == seen
    assert len(entered) == 3, "and once for the gate"
    assert inside.get() == 0


def test_an_error_around_takes_no_place_and_ends_no_workflow(make: MakeApp) -> None:
    """It is not the workflow's: that is taken up again, and the place is free for others."""
    attempts: list[int] = []

    @contextmanager
    def around() -> Generator[None]:
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionError("not yet")
        yield

    app = make(around=around, threads=1)

    @app.workflow
    def flow(x: int) -> int:
        return x

    with app:
        handles = [operon.start(flow, x) for x in range(2)]
        assert operon.gather(*handles) == (0, 1)


@pytest.mark.parametrize("threads", [1, 3])
def test_never_more_bodies_than_threads(make: MakeApp, threads: int) -> None:
    """More stay queued, in the database, for whoever has room."""
    app = make(threads=threads)
    running, most = [0], [0]
    lock, full, go = threading.Lock(), threading.Semaphore(0), threading.Event()

    @app.workflow
    def flow(x: int) -> int:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        full.release()
        go.wait(60)
        with lock:
            running[0] -= 1
        return x

    with app:
        handles = [operon.start(flow, x) for x in range(3 * threads + 1)]
        for _ in range(threads):
            assert full.acquire(timeout=30)
        eventually(lambda: operon.count(status="queued") == 2 * threads + 1, "the others stay queued")
        go.set()
        assert operon.gather(*handles) == tuple(range(3 * threads + 1))
    assert most == [threads]


AMBIENT: contextvars.ContextVar[str] = contextvars.ContextVar("ambient", default="fresh")


def test_each_body_starts_in_a_fresh_context(make: MakeApp) -> None:
    """Neither the caller's variables nor those of the run before are seen, the first time or on replay."""
    app = make()
    seen: list[str] = []

    def body() -> None:
        seen.append(AMBIENT.get())
        AMBIENT.set("left behind")

    @app.workflow
    def flow() -> None:
        body()
        gate.pass_through()

    @app.workflow
    async def aflow() -> None:
        body()
        await gate.apass_through()

    gate = Gate(app)

    def open_behind_all() -> None:
        eventually(lambda: operon.find(name=flow.name, status="waiting", limit=2)[1:], "it never left")
        gate.open_behind("blocking", "async", "called")

    AMBIENT.set("the caller's")
    with app, ThreadPoolExecutor(1) as pool:
        gate.shut()
        handles = [operon.start(it.using(key=key)) for it, key in ((flow, "blocking"), (aflow, "async"))]
        opened = pool.submit(open_behind_all)
        flow.using(key="called")()
        opened.result(PATIENCE)
        for handle in handles:
            handle.result(PATIENCE)
    assert seen == ["fresh"] * 6


def test_launching_and_closing_twice(make: MakeApp) -> None:
    app = make()
    app.launch()
    with pytest.raises(DeclarationError, match="launched already"):
        app.launch()
    app.close()
    app.close()
    app.launch()
    app.close()
    with pytest.raises(BadValue, match="drain"):
        app.close(drain=-1)


def test_without_run_it_starts_and_waits_and_claims_nothing(make: MakeApp) -> None:
    ran: list[str] = []

    def declare(app: Operon) -> Any:
        @app.workflow(name="flow")
        def flow() -> str:
            ran.append(app.name)
            return app.name

        return flow

    front, back = make("front", lease=60), make("back", lease=60)
    flow = declare(front)
    declare(back)
    front.launch(run=False)
    handle = operon.start(flow)
    with pytest.raises(StillRunning):
        handle.result(0.3)
    assert operon.describe(handle.id).status == "queued"
    back.launch()
    assert handle.result(PATIENCE) == "back"
    assert flow() == "back"
    assert ran == ["back", "back"]


# ── Which app ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_which_app_a_verb_means(tmp_path: Path) -> None:
    """That of the running workflow, else of the function or handle it is given, else the only one launched."""
    apps = [Operon(name, database=f"sqlite:///{tmp_path}/{name}.db") for name in ("one", "two")]

    def declare(app: Operon) -> Any:
        @app.workflow(name="flow")
        def flow() -> int:
            return operon.count()

        return flow

    first, second = (declare(app) for app in apps)
    with pytest.raises(NotLaunched, match="with app:"):
        operon.count()
    with apps[0]:
        assert operon.count() == 0
        with pytest.raises(NotLaunched):
            second()
        with apps[1]:
            for verb in (operon.count, operon.now, operon.find):
                with pytest.raises(AmbiguousApp, match="one, two"):
                    verb()
            handle = operon.start(second)
            assert handle.result(PATIENCE) == 1, "inside, the running workflow says it"
            assert operon.gather(handle, operon.start(second.using(key="b")))[0] == 1
            assert operon.retrieve("b", second).id == "b"
            assert first() == 1
        assert operon.count() == 1


# ── Forks ────────────────────────────────────────────────────────────────────────────────────────────────────────────

FORKING = """
import os, sys, threading, warnings
import operon
from operon.errors import ForkedProcess

warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
app = operon.Operon("forked", database=sys.argv[1])

@app.workflow
def flow(x: int) -> int:
    return x + 1

with app:
    handle = operon.start(flow, 1)
    assert handle.result(10) == 2
    pid = os.fork()
    if pid == 0:
        for call in (lambda: flow(1), operon.now, handle.result, app.launch, lambda: operon.start(flow, 1)):
            try:
                call()
            except ForkedProcess as refused:
                assert "post_fork" in str(refused) and "gunicorn" in str(refused)
            else:
                os._exit(3)
        app.close()
        try:
            operon.now()
        except operon.errors.NotLaunched:
            os._exit(0)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert flow(5) == 6, "the parent's lease and connections are as they were"
    executor = operon.describe(operon.start(flow, 7).id).executor
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_forked_child_is_refused_and_harms_nobody(database: Any) -> None:
    """Nothing works in the child, which is told what to write instead; closing there leaves the parent alone."""
    url = database if isinstance(database, str) else "memory:"
    said = ran(sys.executable, "-c", FORKING, url)
    assert (said.stdout, said.stderr) == ("fine\n", "")


# ── Databases ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_where_the_database_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`OPERON_DATABASE_URL`, else `DATABASE_URL`, else a SQLite file named like the app."""
    monkeypatch.delenv("OPERON_DATABASE_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    assert default_url("my shop/x") == "sqlite:///my-shop-x.db"
    with Operon("hello"):
        assert (tmp_path / "hello.db").exists()
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/second.db")
    with Operon("hello"):
        assert (tmp_path / "second.db").exists()
    monkeypatch.setenv("OPERON_DATABASE_URL", f"sqlite:///{tmp_path}/first.db")
    with Operon("hello"):
        assert (tmp_path / "first.db").exists()
    with pytest.raises(BadValue, match="mysql"):
        Operon("x", database="mysql://localhost/x").launch()
    with pytest.raises(BadValue, match="int"):
        Operon("x", database=7).launch()


def test_a_newer_schema_is_refused(database: Any) -> None:
    """Older code on a database that newer code has migrated: both the cause and the way out are said."""
    if not isinstance(database, str):
        return
    app = Operon("app", database=database)
    with app:
        pass
    query = "insert into {} (number, name, checksum, applied_at) values (9999, 'later', 'x', {})"
    if database.startswith("sqlite"):
        import sqlite3

        connection: Any = sqlite3.connect(database.removeprefix("sqlite:///"))
        table = connection.execute("select name from sqlite_master where name like '%migrations'").fetchone()[0]
        connection.execute(query.format(table, "0"))
    else:
        connection = psycopg.connect(database)
        connection.execute(query.format("operon.migrations", "now()"))
    connection.commit()
    connection.close()
    with pytest.raises(SchemaMismatch, match=r"9999.*[Uu]pgrade"):
        app.launch()
    assert app.host is None


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_schema_that_may_not_be_migrated_is_refused(kind: str, request: pytest.FixtureRequest) -> None:
    place: Any = request.getfixturevalue("sqlite_path" if kind == "sqlite" else "postgres_url")
    with pytest.raises(SchemaMismatch, match="operon migrate"):
        Operon("app", database=place).launch(migrate=False)


def test_a_copied_file_is_refused_until_it_is_adopted(tmp_path: Path) -> None:
    """Else both would do the same work."""
    one, two = tmp_path / "one.db", tmp_path / "two.db"
    with Operon("app", database=one):
        pass
    two.write_bytes(one.read_bytes())
    app = Operon("app", database=two)
    with pytest.raises(ForeignDatabase, match=r"copy.*launch\(adopt=True\)"):
        app.launch()
    app.launch(adopt=True)
    app.close()
    with app:
        pass


def test_an_unreachable_database_is_said_clearly(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere"):
        Operon("app", database=tmp_path / "nowhere" / "x.db").launch()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write any file")
def test_a_file_that_may_not_be_written_is_said_clearly(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with Operon("app", database=path):
        pass
    path.chmod(0o444)
    with pytest.raises(StoreError, match=r"readonly|read-only"):
        Operon("app", database=path).launch()


@pytest.mark.parametrize("closed", [False, True])
def test_who_asks_on_another_loop_than_the_apps_is_told_that_it_stands_still(make: MakeApp, *, closed: bool) -> None:
    """As in a fixture of another scope: the workflow would be recorded, and its caller wait for ever."""
    app = make()

    @app.workflow
    async def flow() -> int:
        return 1

    entered, asks = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        entered.run_until_complete(app.__aenter__())
        if closed:
            entered.close()
        with pytest.raises(NotLaunched, match="is closed" if closed else "does not run"):
            asks.run_until_complete(flow())
        assert operon.count() == 0
        if not closed:
            assert entered.run_until_complete(flow()) == 1
    finally:
        app.close()
        for loop in (entered, asks):
            loop.close()
