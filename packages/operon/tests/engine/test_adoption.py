"""Threads of a body: what is given to a pool is done once, and what nothing can record is refused, never silent."""

from __future__ import annotations

import asyncio
import contextvars
import multiprocessing.pool
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait
from typing import Any, cast

import anyio.to_thread
import psycopg
import pytest

import operon
from children import PATIENCE, eventually, ran
from engine.conftest import HOUR, MakeApp, Woken, crash
from operon import Operon, aio
from operon.core import context
from operon.engine import turns
from operon.engine.adoption import Patches
from operon.errors import BadValue, Cancelled, NotInWorkflow, StepFailed, WorkflowCancelled, WorkflowHeld, WrongColour
from operon.stores.memory import Clock, MemoryStore

elsewhere = Operon("elsewhere")


@elsewhere.step
def far(n: int) -> int:
    return n


def call_far(n: int) -> int:
    """Call a step, in whatever process."""
    return far(n)


def plain(n: int) -> int:
    return n + 1


def paying(app: Operon, database: Any, ran: list[int]) -> Any:
    """Declare a transaction that adds a row to the table of payments, and a look at that."""
    kind: Any = psycopg.Connection if isinstance(database, str) and "postgres" in database else sqlite3.Connection

    def pay(tx: Any, n: int) -> int:
        ran.append(n)
        tx.execute("create table if not exists paid (n int)")
        tx.execute("insert into paid select " + str(n))
        return n

    def paid(tx: Any) -> list[int]:
        return [row[0] for row in tx.execute("select n from paid order by n").fetchall()]

    pay.__annotations__["tx"] = paid.__annotations__["tx"] = kind
    return app.transaction(isolation="read committed")(pay), app.transaction(read_only=True)(paid)


def test_what_a_pool_does_is_done_once(make: MakeApp, database: Any, woken: Woken) -> None:
    """Steps, transactions and children on the threads of a pool are recorded there: no replay does them again."""
    app, ran, bodies = make(), list[int](), list[int]()
    pay, paid = paying(app, database, [])

    @app.step
    def step(n: int) -> int:
        ran.append(n)
        return n

    @app.workflow
    def child(n: int) -> int:
        return step(n)

    def work(n: int) -> int:
        operon.sleep(0.2)
        return step(n) + child(n + 10)

    @app.workflow
    def flow(first: int) -> int:
        bodies.append(1)
        pay(first)
        with ThreadPoolExecutor(2) as pool:
            total = sum(pool.map(work, range(4))) + sum(pool.map(pay, range(1, 4)))
        operon.sleep(HOUR)
        return int(total)

    with app:
        handle = operon.start(flow, 0)
        woken(app, handle.id)
        assert handle.result(30) == 2 * 6 + 40 + 6
        assert paid() == [0, 1, 2, 3]
    assert len(bodies) > 1
    assert sorted(ran) == [*range(4), *range(10, 14)]


def test_a_crash_in_the_middle_of_a_pool_does_nothing_twice(make: MakeApp, database: Any) -> None:
    """What had been recorded when the process died is not done again by the next one."""
    ran, gate, all_there = list[int](), threading.Event(), threading.Barrier(3)

    def declare(app: Operon) -> Any:
        @app.step(name="step")
        def step(n: int) -> int:
            ran.append(n)
            return n

        def work(n: int) -> int:
            total = step(n)
            operon.now()  # what came before is durable
            if not gate.is_set():
                all_there.wait(20)
                gate.wait(20)
            return total + step(n + 10)

        @app.workflow(name="flow")
        def flow() -> int:
            with ThreadPoolExecutor(2) as pool:
                return sum(pool.map(work, range(2)))

        return flow

    app = make()
    flow = declare(app)
    app.launch()
    operon.start(flow.using(key="w"))
    all_there.wait(20)
    crash(app)
    gate.set()
    app = make(lease=0.5)
    flow = declare(app)
    with app:
        assert operon.retrieve("w", flow).result(30) == 22
    assert sorted(ran)[:2] == [0, 1]
    assert ran.count(0) == ran.count(1) == 1


@pytest.mark.parametrize("database", ["memory:"])
class TestWaiting:
    """How long threads wait, and for what."""

    def test_a_run_whose_threads_all_wait_is_parked(self, make: MakeApp) -> None:
        """A body that waits for threads which sleep is a row, and its threads are free."""
        app, threads = make(), set[threading.Thread]()

        def nap(seconds: float) -> str:
            threads.add(threading.current_thread())
            operon.sleep(seconds)
            return "slept"

        @app.workflow
        def flow() -> list[str]:
            with ThreadPoolExecutor(1) as pool:
                futures = [pool.submit(nap, 3600) for _ in range(3)]
                return [future.result() for future in futures]

        with app:
            operon.start(flow.using(key="w"))
            eventually(lambda: operon.describe("w").status == "waiting")
            eventually(lambda: not any(thread.is_alive() for thread in threads))

    def test_a_thread_that_computes_keeps_its_run(self, make: MakeApp) -> None:
        """While one thread works the others' sleep does not park the run: it is not begun again."""
        app, bodies, slept = make(), list[int](), threading.Event()

        def nap() -> None:
            operon.sleep(0.5)  # beyond the grace
            slept.set()

        def compute() -> None:
            assert slept.wait(PATIENCE)

        @app.workflow
        def flow() -> None:
            bodies.append(1)
            with ThreadPoolExecutor(2) as pool:
                pieces = [pool.submit(compute), pool.submit(nap)]
                for piece in pieces:
                    piece.result()

        with app:
            operon.start(flow).result(PATIENCE)
        assert len(bodies) == 1

    def test_a_cancellation_reaches_threads(self, make: MakeApp) -> None:
        """Whoever waits in a thread is told, cleans up, and the body with it."""
        app, told = make(grace=30), list[str]()

        @app.step
        def clean() -> str:
            return "cleaned"

        def nap() -> None:
            try:
                operon.sleep(3600)
            except Cancelled:
                told.append(clean())
                raise

        @app.workflow
        def flow() -> None:
            try:
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(nap).result()
            except Cancelled:
                told.append("body")
                raise

        with app:
            engine: Any = app._engine
            handle = operon.start(flow)
            eventually(lambda: any(run.waits for run in engine.runs.all()))
            operon.cancel(handle.id)
            with pytest.raises(WorkflowCancelled):
                handle.result(20)
            eventually(lambda: told == ["cleaned", "body"])

    @pytest.mark.parametrize("kind", ["result", "exception", "wait", "as_completed", "map"])
    def test_a_time_limit_of_a_future_is_refused(self, make: MakeApp, kind: str) -> None:
        """Nothing records it, so it is refused in the first run; a step's own is not."""
        app, go = make(), threading.Event()

        def limited(pool: ThreadPoolExecutor, work: Callable[..., Any]) -> object:
            future: Future[Any] = pool.submit(work)

            def again(_: int) -> object:
                return work()

            calls: dict[str, Callable[[], object]] = {
                "result": lambda: future.result(30),
                "exception": lambda: future.exception(30),
                "wait": lambda: wait([future], 30),
                "as_completed": lambda: list(as_completed([future], 30)),
                "map": lambda: list(pool.map(again, [1], timeout=30)),
            }
            return calls[kind]()

        @app.step
        def step() -> None:
            with ThreadPoolExecutor(2) as pool:
                limited(pool, lambda: None)

        @app.workflow
        def flow() -> None:
            step()
            with ThreadPoolExecutor(2) as pool:
                try:
                    limited(pool, lambda: go.wait(20))
                finally:
                    go.set()

        with app, pytest.raises(BadValue, match="timeout= for work"):
            flow()

    def test_recorded_work_waits_for_no_thread_of_a_pool(
        self, make: MakeApp, monkeypatch: pytest.MonkeyPatch, database: Any
    ) -> None:
        """A replay on a smaller pool, or one whose threads others have, has the work that comes next done beside it."""
        monkeypatch.setattr(turns, "CROWDED", 0.05)
        database, ran, size = MemoryStore(Clock(time.time)), list[int](), 2
        first, gate, both = threading.Event(), threading.Event(), threading.Barrier(3)

        def declare(app: Operon) -> Any:
            @app.step(name="step")
            def step(n: int) -> int:
                ran.append(n)
                if n == 0:
                    first.wait(20)
                return n

            def work(n: int) -> int:
                total = step(n)
                operon.now()  # what came before is durable
                first.set()
                if not gate.is_set():
                    both.wait(20)
                    gate.wait(20)
                return total + step(n + 10)

            @app.workflow(name="flow")
            def flow() -> int:
                with ThreadPoolExecutor(size) as pool:
                    return sum(pool.map(work, range(2)))

            return flow

        app = make(database=database)
        flow = declare(app)
        app.launch()
        operon.start(flow.using(key="w"))
        both.wait(20)
        crash(app)
        gate.set()
        app, size = make(database=database, lease=0.5), 1
        flow = declare(app)
        with app:
            assert operon.retrieve("w", flow).result(30) == 22
        assert ran.count(0) == ran.count(1) == 1


def bare(work: Callable[[], Any]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE)


def taken_along(work: Callable[[], Any]) -> None:
    taken = contextvars.copy_context()
    bare(lambda: taken.run(work))


def timer(work: Callable[[], Any]) -> None:
    thread = threading.Timer(0, work)
    thread.start()
    thread.join(PATIENCE)


def grandchild(work: Callable[[], Any]) -> None:
    bare(lambda: bare(work))


def thread_pool(work: Callable[[], Any]) -> None:
    with multiprocessing.pool.ThreadPool(1) as pool:
        pool.apply(work)


others_pools: list[multiprocessing.pool.ThreadPool] = []


@pytest.fixture(autouse=True, scope="module")
def others() -> Iterator[None]:
    """Have a pool that was made by nobody's body."""
    with multiprocessing.pool.ThreadPool(1) as pool:
        others_pools.append(pool)
        yield
    others_pools.clear()


def thread_pool_of_others(work: Callable[[], Any]) -> None:
    (pool,) = others_pools
    pool.map(lambda _: work(), [1])


def initializer(work: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(1, initializer=work) as pool:
        pool.submit(plain, 1).exception()


def callback(work: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(plain, 1).add_done_callback(lambda _: work())


SHARED = ThreadPoolExecutor(1)


def initializer_out_of_sight(work: Callable[[], Any]) -> None:
    with Later(1, initializer=work) as pool:  # which waits for it
        pool.submit(plain, 1)


class Later(ThreadPoolExecutor):
    """Keeps its initializer where Python 3.14 does: nobody finds it."""

    def __init__(self, workers: int, *, initializer: Any) -> None:
        super().__init__(workers, initializer=initializer)
        self.hidden = vars(self).pop("_initializer", None)

    def _adjust_thread_count(self) -> None:
        vars(self)["_initializer"] = self.hidden
        cast("Any", super())._adjust_thread_count()
        del vars(self)["_initializer"]


STRAY = [
    bare,
    taken_along,
    timer,
    grandchild,
    thread_pool,
    thread_pool_of_others,
    initializer,
    initializer_out_of_sight,
    callback,
]


@pytest.mark.parametrize("database", ["memory:"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
class TestRefused:
    """Where nothing can be recorded."""

    @pytest.mark.parametrize("way", STRAY, ids=lambda way: way.__name__)
    @pytest.mark.parametrize("verb", ["step", "transaction", "start"])
    def test_a_verb_that_nothing_can_record_holds_the_workflow(
        self, make: MakeApp, database: Any, way: Callable[[Callable[[], Any]], None], verb: str
    ) -> None:
        """A step, a transaction or a start there is not done, and the workflow says why it is held."""
        app, ran = make(), list[int]()
        pay, _ = paying(app, database, ran)

        @app.step
        def step(n: int) -> None:
            ran.append(n)

        @app.workflow
        def child(n: int) -> None:
            ran.append(n)

        calls: dict[str, Callable[[], object]] = {
            "step": lambda: step(1),
            "transaction": lambda: pay(1),
            "start": lambda: operon.start(child, 1),
        }

        @app.workflow
        def flow() -> str:
            way(calls[verb])
            return "done"

        with app, pytest.raises(WorkflowHeld, match="use a ThreadPoolExecutor"):
            operon.start(flow).result(20)
        assert not ran

    @pytest.mark.parametrize("way", STRAY, ids=lambda way: way.__name__)
    def test_what_needs_no_record_may_go_anywhere(
        self, make: MakeApp, way: Callable[[Callable[[], Any]], None]
    ) -> None:
        """Plain functions on any thread of a body are nobody's business, and so is what steps do with threads."""
        app, ran = make(), list[int]()

        @app.step
        def inner() -> None:
            ran.append(1)

        @app.step
        def step() -> None:
            way(inner)

        @app.workflow
        def flow() -> str:
            way(lambda: ran.append(1))
            step()
            return "done"

        with app:
            assert operon.start(flow).result(20) == "done"
        assert len(ran) == 2

    def test_another_interpreter_is_refused(self, make: MakeApp) -> None:
        """A pool of interpreters is one of threads to Python, and can be given nothing of ours but what it can send."""
        app, sent = make(), list[object]()

        class Interpreters(ThreadPoolExecutor):
            def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
                return super().submit(fn, *args, **kwargs)

        Interpreters.__module__ = "concurrent.futures.interpreter"

        @app.step
        def step() -> None:
            sent.append(1)

        @app.workflow
        def flow() -> int:
            with Interpreters(1) as pool:
                assert pool.submit(plain, 1).result() == 2
                error = pool.submit(step).exception()
                assert isinstance(error, NotInWorkflow)
            return 1

        with app, pytest.raises(WorkflowHeld, match="in another interpreter"):
            flow()
        assert not sent

    def test_another_process_is_refused(self, make: MakeApp) -> None:
        """A step that a body has called in another process is refused there; a plain function is not."""
        app = make()

        @app.workflow
        def flow(far: bool) -> int:
            with ProcessPoolExecutor(1) as pool:
                return pool.submit(call_far if far else plain, 1).result()

        with app:
            assert flow(far=False) == 2
            with pytest.raises(NotInWorkflow, match="in another process"):
                flow(far=True)


@pytest.mark.parametrize("database", ["memory:"])
class TestUntouched:
    """What is no body's is as it was."""

    def test_a_shared_pool_serves_everybody(self, make: MakeApp, database: Any) -> None:
        """What others submit to a pool, also to a thread that began for a body, is a caller like any other."""
        app, ran = make(), list[int]()
        pay, _ = paying(app, database, ran)
        begun: list[str] = []
        with ThreadPoolExecutor(1, initializer=lambda: begun.append("x")) as pool:

            @app.workflow
            def flow() -> int:
                return int(pool.submit(pay, 1).result())

            with app:
                assert operon.start(flow.using(key="w")).result(20) == 1
                assert pool.submit(pay.using(key="mine"), 2).result(20) == 2
                assert operon.describe("mine").status == "succeeded"
                assert [it.name for it in operon.steps("w")] == [pay.name]
        assert begun == ["x"]

    def test_standing_twice_before_a_pool_adopts_once(self, make: MakeApp) -> None:
        """Where somebody has stood between ours and ours, a piece is one branch all the same."""
        app, again = make(), Patches()

        @app.step
        def step(n: int) -> int:
            return n

        @app.workflow
        def flow() -> int:
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(step, 1).result()

        with app:
            again.install(app)
            try:
                assert operon.start(flow.using(key="w")).result(20) == 1
            finally:
                again.remove(app)
            assert [it.position for it in operon.steps("w")] == ["1/1"]

    def test_threads_that_the_engine_begins_are_nobodys(self, make: MakeApp) -> None:
        """Whatever begins them: work of the engine's that a body's end brings about runs where verbs do their work."""
        app = make(threads=8)
        seen: list[bool] = []

        @app.workflow
        def child() -> bool:
            return context.stray.get() is not None

        def look() -> None:
            thread = threading.Thread(target=lambda: seen.append(context.stray.get() is not None), name="theirs")
            thread.start()
            thread.join(PATIENCE)

        @app.workflow
        def flow() -> list[bool]:
            handles = [operon.start(child) for _ in range(4)]
            return [*operon.gather(*handles)]

        with app:
            engine: Any = app._engine
            release = engine.release

            def released(*place: Any) -> None:
                release(*place)
                look()

            engine.release = released
            assert [operon.start(flow).result(20) for _ in range(3)] == [[False] * 4] * 3
        assert seen
        assert not any(seen)

    def test_a_thread_of_nobodys_body_is_a_caller(self, make: MakeApp) -> None:
        """A thread that was started before, or elsewhere, starts workflows of its own."""
        app, done = make(), list[object]()

        @app.workflow
        def flow() -> str:
            return "done"

        with app:
            thread = threading.Thread(target=lambda: done.append(flow()))
            thread.start()
            thread.join(20)
        assert done == ["done"]

    def test_a_thread_of_anyio_is_its_tasks(self, make: MakeApp) -> None:
        """What `anyio.to_thread` runs, FastAPI's blocking functions too, is done in the place of the task."""
        app, ran = make(), list[int]()

        @app.step
        def step(n: int) -> int:
            ran.append(n)
            return n

        @app.workflow
        async def flow() -> int:
            first = await anyio.to_thread.run_sync(step, 1)
            await aio.sleep(0.2)
            return first + await anyio.to_thread.run_sync(step, 2)

        with app:
            assert operon.start(flow).result(20) == 3
        assert ran == [1, 2]

    def test_a_body_that_fails_waits_for_no_thread(self, make: MakeApp) -> None:
        """The threads that it leaves behind are told at their next verb."""
        app, begun, go, left = make(), threading.Event(), threading.Event(), threading.Event()

        def hang() -> None:
            begun.set()
            go.wait(20)
            try:
                operon.now()
            except BaseException:
                left.set()
                raise

        @app.workflow
        def flow() -> None:
            SHARED.submit(hang)
            begun.wait(20)
            raise ValueError("fails")

        with app:
            with pytest.raises(ValueError, match="fails"):
                operon.start(flow).result(20)
            go.set()
            assert left.wait(20)

    def test_what_a_piece_raises_is_its_callers(self, make: MakeApp) -> None:
        """Errors come out of the future as they are; what is no `Exception` is a failure."""
        app, pool_lives = make(), list[int]()

        def fail(error: BaseException) -> None:
            raise error

        @app.workflow
        def flow() -> list[str]:
            with ThreadPoolExecutor(1) as pool:
                errors = [pool.submit(fail, error).exception() for error in (ValueError("a"), SystemExit(1))]
                pool_lives.append(pool.submit(plain, 1).result())
            return [type(error).__name__ for error in errors]

        with app:
            assert flow() == ["ValueError", StepFailed.__name__]
        assert pool_lives == [2]


@pytest.mark.parametrize("database", ["memory:"])
def test_a_loop_inside_a_blocking_body_is_refused(make: MakeApp) -> None:
    """`asyncio.run` in a blocking body: its tasks would be numbered as they come. The error says to make it async."""
    app = make()

    @app.step
    async def step(n: int) -> int:
        return n

    async def inner() -> list[int]:
        return await asyncio.gather(*(step(n) for n in range(3)))

    @app.workflow
    def flow() -> list[int]:
        return asyncio.run(inner())

    with app, pytest.raises(WrongColour, match="async"):
        flow()


def test_the_library_is_as_it_was_after_the_last_app() -> None:
    """Importing changes nothing; launching does, until all is closed."""
    program = """
import threading
from concurrent.futures import ThreadPoolExecutor, ProcessPoolExecutor, _base
def now(): return [ThreadPoolExecutor.submit, ThreadPoolExecutor.shutdown, ProcessPoolExecutor.submit,
                   threading.Thread.start, _base._create_and_install_waiters]
before = now()
from operon import Operon, aio
from operon.core import context
assert now() == before
one, two = Operon("one", database="memory:"), Operon("two", database="memory:")
with one:
    with two:
        assert not set(now()) & set(before)
    assert not set(now()) & set(before)
    from multiprocessing.pool import Pool, ThreadPool
    apply = Pool.apply_async
    with ThreadPool(1) as pool:
        assert Pool.apply_async is not apply
assert now() == before and Pool.apply_async is apply
"""
    ran(sys.executable, "-c", program, check=True)


# ── Tasks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def directly(loop: asyncio.AbstractEventLoop, work: Any) -> asyncio.Future[Any]:
    return asyncio.Task(work, loop=loop)


def without_our_factory(loop: asyncio.AbstractEventLoop, work: Any) -> asyncio.Future[Any]:
    factory = loop.get_task_factory()
    loop.set_task_factory(None)
    try:
        return loop.create_task(work)
    finally:
        loop.set_task_factory(factory)


def eagerly_past_us(loop: asyncio.AbstractEventLoop, work: Any) -> asyncio.Future[Any]:
    task: asyncio.Future[Any] = cast("Any", asyncio.Task)(work, loop=loop, eager_start=True)
    return task


def eagerly(loop: asyncio.AbstractEventLoop, work: Any) -> asyncio.Future[Any]:
    """As `create_task(…, eager_start=True)` of Python 3.14 does."""
    task: asyncio.Future[Any] = cast("Any", loop.get_task_factory())(loop, work, eager_start=True)
    return task


def with_an_eager_factory_below(loop: asyncio.AbstractEventLoop, work: Any) -> asyncio.Future[Any]:
    factory: Any = loop.get_task_factory()
    inner, factory._inner = factory._inner, cast("Any", asyncio).eager_task_factory
    try:
        return loop.create_task(work)
    finally:
        factory._inner = inner


MakeTask = Callable[[asyncio.AbstractEventLoop, Any], "asyncio.Future[Any]"]
EAGER = pytest.mark.skipif(sys.version_info < (3, 12), reason="Python has had eager tasks since 3.12")


@pytest.mark.parametrize("waits", [False, True], ids=["step", "timer"])
@pytest.mark.parametrize("made", [directly, without_our_factory, pytest.param(eagerly_past_us, marks=EAGER)])
def test_a_task_that_was_made_past_our_factory_is_refused(make: MakeApp, made: MakeTask, *, waits: bool) -> None:
    """It has no place in the history: the first run says so, before anything is done there."""
    app, done = make(), list[int]()

    @app.step
    async def step() -> None:
        done.append(1)

    @app.workflow
    async def flow() -> None:
        await made(asyncio.get_running_loop(), asyncio.sleep(0.01) if waits else step())

    with app, pytest.raises(WorkflowHeld, match=r"asyncio\.create_task\(\)"):
        operon.start(flow).result(PATIENCE)
    assert done == []


@EAGER
@pytest.mark.parametrize("made", [eagerly, with_an_eager_factory_below])
def test_what_eager_tasks_do_is_found_again_by_a_replay(make: MakeApp, made: MakeTask, woken: Woken) -> None:
    app, done = make(grace=0.0), list[int]()

    @app.step
    async def step(n: int) -> int:
        done.append(n)
        return n

    async def branch(n: int) -> int:
        seen = await step(n)
        await aio.sleep(HOUR)
        return seen + await step(10 * n)

    @app.workflow
    async def flow() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*[made(loop, branch(n)) for n in (1, 2, 3)])

    with app:
        handle = operon.start(flow)
        woken(app, handle.id)
        assert handle.result(PATIENCE) == [11, 22, 33]
        assert operon.describe(handle.id).attempts > 1
    assert sorted(done) == [1, 2, 3, 10, 20, 30]
