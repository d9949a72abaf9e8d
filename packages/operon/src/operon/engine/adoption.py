"""Work that a workflow's body gives to other threads: adopted where it can be recorded, refused where it cannot.

What a body submits to a `ThreadPoolExecutor`, or to `aio.call`, is a branch of its workflow, numbered where it is
submitted; that it has ended is an event of the workflow, so that whoever waits for it hears of it in a replay as he did
the first time. A thread that a body starts itself, a pool of `multiprocessing` or another process is no branch: verbs
raise there. What steps and transactions do with threads is their own affair, and so is what nobody's body does.
"""

from __future__ import annotations

import functools
import sys
import threading
import zlib
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, _base
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

from operon.core import context
from operon.core.context import Stray
from operon.core.journal import WAKE, Branch, Run
from operon.core.rows import Entry, Kind
from operon.engine import turns
from operon.engine.drivers import busy
from operon.errors import BadValue

if TYPE_CHECKING:
    from operon.engine.engine import Engine

P = ParamSpec("P")
R = TypeVar("R")
_local = threading.local()


class Piece(Generic[R]):
    """One piece of work of a body on another thread; a callable, which the thread calls."""

    def __init__(self, parent: Branch, fn: Callable[..., R]) -> None:
        self.parent = parent
        self.run: Run = parent.run
        self.engine = cast("Engine", self.run.host)
        self.fn = fn
        self.future: Future[R] = Future()
        self.abandoned = False
        """It was cancelled: what becomes of it is nobody's business."""
        self.told = False
        self.waiting: list[Branch] = []
        """Who waits for its future."""
        self._begun = False
        self._given = threading.Event()
        run = self.run
        with run.monitor:
            self.branch = parent.fork()
            parent.stand_in = _stand_in
            run.lines.threaded = True
            if not _on_loop():
                run.lines.wakes(parent)
            run.lines.pieces[self] = None
            run.lines.queued.add(self.branch.path)

    def give(self, future: Future[R]) -> Future[R]:
        """Let whoever has the future hear of the end in its turn."""
        self.future = future
        adopted = cast("Adopted[R]", future)
        adopted.__class__ = Adopted
        adopted.piece = self
        if future.done():
            self.close(0)
        self._given.set()
        return future

    def refused(self) -> None:
        """Note that nobody took it."""
        self.abandoned = True
        self.close(0)
        self._given.set()

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Do it, on a thread of the pool."""
        self._given.wait()
        run = self.run
        with run.monitor:
            self._begun = not self.abandoned
            run.lines.queued.discard(self.branch.path)
        if not run.cleaning(self.engine.clock()):
            run.check()
        self._let_recorded_come_first()
        if self.abandoned:
            raise CancelledError
        with _standing(self.parent, self.branch), busy(self.engine):
            run.lines.wakes(self.branch)
            try:
                return self.fn(*args, **kwargs)
            finally:
                run.lines.sleeps(self.branch)

    def _let_recorded_come_first(self) -> None:
        """Wait a little, if this had not begun the last time: it may have been cancelled before."""
        run, clock = self.run, self.engine.clock
        until = clock() + turns.PATIENCE
        with run.monitor:
            while run.behind() and not self.abandoned and not run.knows(self.branch.path) and clock() < until:
                run.monitor.wait(until - clock())

    def end(self) -> int:
        """Wait for the turn of its end, and answer the ordinal of that; 0, if no trace of it is left."""
        run, mark = self.run, f"{self.branch.path}end{WAKE}"
        if run.dead is not None or not self.branch.used:
            return 0
        recorded = run.journal.get(mark)
        ordinal = run.number() if recorded is None else recorded.ordinal
        if recorded is None:
            run.pending.append(Entry(mark, ordinal, Kind.WAKE, "thread", version=self.engine.version))
            self.engine.pens.linger(run)
        try:
            turns.take(self.engine, run, ordinal, self.branch)
        except BaseException:
            if run.dead is None:
                raise
        return ordinal

    def close(self, ordinal: int) -> None:
        """Have nothing more to do with the run."""
        run = self.run
        run.lines.sleeps(self.branch)
        with run.monitor:
            run.lines.queued.discard(self.branch.path)
            run.lines.pieces.pop(self, None)
            run.monitor.notify_all()
            calls, run.lines.endings = ([], run.lines.endings) if run.lines.pieces else (run.lines.endings, [])
        if ordinal:
            run.given(ordinal)
        for call in calls:
            call()

    def abandon(self) -> bool:
        """Let it go on or not, unheard; answers whether it is not too late for that."""
        run = self.run
        with run.monitor:
            if self.told:
                return False
            self.abandoned = self.told = True
            run.lines.wakes(*self.waiting)
        if not self._begun:
            run.skip(self.branch.path)
        self.close(0)
        return True


class Adopted(Future[R]):
    """The future of a piece; never made as such, but made of a pool's own."""

    piece: Piece[R]

    def __hash__(self) -> int:
        """Order them in a set by where they were submitted, as a replay will."""
        return zlib.crc32(f"{self.piece.run.id}/{self.piece.branch.path}".encode())

    def __eq__(self, other: object) -> bool:
        """Be like nothing else."""
        return self is other

    def result(self, timeout: float | None = None) -> R:
        """Wait for the result."""
        with _awaited(self, timeout):
            return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end."""
        with _awaited(self, timeout):
            return super().exception(timeout)

    def cancel(self) -> bool:
        """Give it up: whether it has begun, nobody can say for all replays, so it goes on unheard if it has."""
        if self.piece.told or not self.piece.abandon():
            return super().cancel()
        if not super().cancel():
            with self._condition:
                self._state = _base.PENDING
            super().cancel()
            self.set_running_or_notify_cancel()
        return True

    def add_done_callback(self, fn: Callable[[Future[R]], object]) -> None:
        """Call this at the end, on whatever thread; it is no part of the workflow."""
        here = context.current()
        where = "in a callback of a future"
        super().add_done_callback(fn if here is None else Elsewhere(fn, Stray(where, here.run)))

    def set_result(self, result: R) -> None:
        """Tell the result, in its turn."""
        self._tell(lambda: super(Adopted, self).set_result(result))

    def set_exception(self, exception: BaseException | None) -> None:
        """Tell the error, in its turn."""
        self._tell(lambda: super(Adopted, self).set_exception(exception))

    def _tell(self, tell: Callable[[], None]) -> None:
        piece, run = self.piece, self.piece.run
        ordinal = piece.end()
        try:
            with run.monitor:
                if piece.told:
                    return
                piece.told = True
                run.lines.wakes(*piece.waiting)
            tell()
        finally:
            piece.close(ordinal)


class StrayFuture(Future[R]):
    """The future of what a body has sent to another process."""

    def add_done_callback(self, fn: Callable[[Future[R]], object]) -> None:
        """Call this at the end, on whatever thread; it is no part of the workflow."""
        here = context.current()
        where = "in a callback of a future"
        super().add_done_callback(fn if here is None else Elsewhere(fn, Stray(where, here.run)))


@contextmanager
def _awaited(future: Adopted[Any], timeout: float | None) -> Generator[None]:
    """Wait for a future in the body: that is rest, and how long it takes is no part of the workflow."""
    piece, here = future.piece, _line()
    if here is None or here.run is not piece.run:
        yield
        return
    if timeout is not None:
        raise _untimely()
    with piece.run.monitor:
        waits = not piece.told
        if waits:
            piece.waiting.append(here)
    if not waits:
        yield
        return
    try:
        with turns.resting(piece.engine, here):
            yield
    finally:
        with piece.run.monitor:
            piece.waiting.remove(here)


def _untimely() -> BadValue:
    return BadValue(
        "A wait with timeout= for work on a thread is not recorded in a workflow's body, and a replay would be told "
        "otherwise. Give the step a timeout=, or use asyncio.timeout in an async workflow."
    )


class _Waited(threading.Event):
    """What `wait` and `as_completed` wait for in a body."""

    def __init__(self, line: Branch) -> None:
        super().__init__()
        self._line = line
        self._rests = False

    def wait(self, timeout: float | None = None) -> bool:
        """Rest until one has ended."""
        if timeout is not None:
            raise _untimely()
        with self._line.run.monitor:
            self._rests = not self.is_set()
        if self._rests:
            with turns.resting(cast("Engine", self._line.run.host), self._line):
                super().wait()
            self._rests = False
        return True

    def set(self) -> None:
        """End the rest."""
        if self._rests:
            self._line.run.lines.wakes(self._line)
        super().set()


class Elsewhere(Generic[R]):
    """A function that runs where verbs are refused; it can be sent to another process."""

    def __init__(self, fn: Callable[..., R], stray: Stray) -> None:
        self._fn = fn
        self._stray = stray

    def __reduce__(self) -> tuple[type[Elsewhere[R]], tuple[Callable[..., R], Stray]]:
        """Leave the run behind."""
        return Elsewhere, (self._fn, Stray(self._stray.where))

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Run it."""
        here, stray = context.branch.set(None), context.stray.set(self._stray)
        try:
            return self._fn(*args, **kwargs)
        finally:
            context.stray.reset(stray)
            context.branch.reset(here)


def _stand_in(parent: Branch) -> Branch:
    stands: dict[Branch, Branch] = getattr(_local, "stands", {})
    return stands.get(parent, parent)


@contextmanager
def _standing(parent: Branch, branch: Branch) -> Generator[None]:
    """Be in a branch on this thread, also where the context of its parent was taken along."""
    before: dict[Branch, Branch] = getattr(_local, "stands", {})
    _local.stands = {**before, parent: branch}
    token = context.branch.set(branch)
    try:
        yield
    finally:
        context.branch.reset(token)
        _local.stands = before


def _on_loop() -> bool:
    from asyncio import _get_running_loop

    return _get_running_loop() is not None


def _line() -> Branch | None:
    """The branch whose code this thread executes; None on a loop, where others have their turns meanwhile."""
    here = context.body()
    return None if here is None or not here.run.lines.threaded or _on_loop() else here


# ── Standing before the standard library's own ───────────────────────────────────────────────────────────────────────


class _Patches:
    """What stands before the standard library's functions while an app is launched here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._own: list[tuple[Any, str, Any, Any]] = []
        """Where, what was there, and what stands before it."""

    def install(self) -> None:
        """Stand before them, once for all apps."""
        with self._lock:
            self._count += 1
            if self._count > 1:
                return
            self._put(ThreadPoolExecutor, "submit", _submit)
            self._put(ThreadPoolExecutor, "shutdown", _shutdown)
            self._put(ProcessPoolExecutor, "submit", _send)
            self._put(threading.Thread, "start", _start)
            self._put(_base, "_create_and_install_waiters", _watch)
            if (pools := sys.modules.get("multiprocessing.pool")) is not None:
                for name in ("apply_async", "_map_async", "imap", "imap_unordered"):
                    self._put(pools.Pool, name, _scatter)

    def _put(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        original = vars(owner)[name]
        mine = functools.wraps(original)(make(original))
        self._own.append((owner, name, original, mine))
        setattr(owner, name, mine)

    def remove(self) -> None:
        """Give them back with the last app, unless somebody else has stood before them since: ours do nothing then."""
        with self._lock:
            self._count -= 1
            if self._count:
                return
            for owner, name, original, mine in self._own:
                if vars(owner)[name] is mine:
                    setattr(owner, name, original)
            self._own.clear()


patches = _Patches()


def _submit(original: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    def submit(pool: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        here = context.body()
        begins = getattr(pool, "_initializer", None) is not None
        if here is None:
            return original(pool, _ordinary(fn) if begins else fn, *args, **kwargs)
        piece: Piece[Any] = Piece(here, fn)
        try:
            with own_threads(not begins):
                return piece.give(original(pool, piece, *args, **kwargs))
        except BaseException:
            piece.refused()
            raise

    return submit


def _ordinary(fn: Callable[P, R]) -> Callable[P, R]:
    """Run what no body has submitted, on a thread that may have been started for one."""

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        token = context.stray.set(None)
        try:
            return fn(*args, **kwargs)
        finally:
            context.stray.reset(token)

    return run


@contextmanager
def own_threads(own: bool = True) -> Generator[None]:
    """Start threads that are not the body's, though it is the body that has them started."""
    before = getattr(_local, "own", False)
    _local.own = own
    try:
        yield
    finally:
        _local.own = before


def _shutdown(original: Callable[..., None]) -> Callable[..., None]:
    def shutdown(pool: ThreadPoolExecutor, wait: bool = True, **options: Any) -> None:
        here = _line()
        if here is None or not wait:
            original(pool, wait, **options)
            return
        with turns.resting(cast("Engine", here.run.host), here):
            original(pool, wait, **options)

    return shutdown


def _send(original: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    def submit(pool: Executor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        here = context.body()
        if here is None:
            return original(pool, fn, *args, **kwargs)
        with own_threads():
            future = original(pool, Elsewhere(fn, Stray("in another process", here.run)), *args, **kwargs)
        future.__class__ = StrayFuture
        return future

    return submit


def _scatter(original: Callable[..., Any]) -> Callable[..., Any]:
    def scatter(pool: Any, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        here = context.body()
        if here is not None:
            func = Elsewhere(func, Stray("in a pool of multiprocessing", here.run))
        return original(pool, func, *args, **kwargs)

    return scatter


def _start(original: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    def start(thread: threading.Thread) -> None:
        here = context.body()
        stray = context.stray.get()
        if not getattr(_local, "own", False) and (here is not None or stray is not None):
            if here is not None:
                stray = Stray("on a thread that its body started", here.run)
            run = thread.run

            def stray_run() -> None:
                vars(thread).pop("run", None)
                context.stray.set(stray)
                run()

            thread.run = stray_run  # type: ignore[method-assign]  # of this one only
        original(thread)

    return start


def _watch(original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def watch(futures: Any, return_when: Any) -> Any:
        waiter, here = original(futures, return_when), _line()
        if here is not None and any(isinstance(future, Adopted) for future in futures):
            waiter.event = _Waited(here)
        return waiter

    return watch
