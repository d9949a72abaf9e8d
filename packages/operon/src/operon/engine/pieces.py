"""One piece of work that a body has given to a thread: a branch of its workflow, whose end is an event of it.

So what waits for it hears of it in a replay as it did the first time. Must not know who takes it, and where.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future, _base
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, cast

from operon.asynchronous import on_loop
from operon.core import context
from operon.core.context import Stray
from operon.core.journal import WAKE, Branch, Run
from operon.core.rows import Entry, Kind
from operon.engine import turns
from operon.engine.exits import Busy
from operon.engine.hearing import told
from operon.engine.runtime import Runtime
from operon.engine.strays import Elsewhere, own_threads
from operon.errors import BadValue, Cancelled

R = TypeVar("R")
_local = threading.local()


class Piece(Generic[R]):
    """One piece of work of a body on another thread; a callable, which the thread calls."""

    def __init__(self, parent: Branch, fn: Callable[[], R]) -> None:
        self.parent = parent
        self.run: Run = parent.run
        self.engine = cast("Runtime", self.run.host)
        self.fn = fn
        self.future: Future[R] = Future()
        self.abandoned = False
        """It was cancelled: what becomes of it is nobody's business."""
        self.told = False
        self.waiting: list[Branch] = []
        """Who waits for its future."""
        self.queued = True
        """No thread has taken it yet."""
        self._begun = False
        self._given = threading.Event()
        run = self.run
        with run.monitor:
            self.branch = parent.fork()
            parent.stand_in = _stand_in
            run.lines.threaded = True
            if not on_loop():
                run.lines.wakes(parent)
            run.lines.pieces[self] = None

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

    def take(self) -> bool:
        """Let one thread have it, the pool's or the one that does it instead."""
        with self.run.monitor:
            mine, self.queued = self.queued, False
            return mine

    def hasten(self) -> None:
        """Do it on a thread of its own, if it waits for one of its pool's."""
        if self.future.running() or not self.take():
            return
        thread = threading.Thread(target=self._instead, name="operon-piece", daemon=True)
        with own_threads():
            thread.start()

    def _instead(self) -> None:
        """Do what a thread of the pool would."""
        future = self.future
        if not Future[R].set_running_or_notify_cancel(future):
            return
        try:
            value = self()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(value)

    def __call__(self) -> R:
        """Do it, on whatever thread."""
        self._given.wait()
        self.take()
        run = self.run
        if not self.branch.cleaning(self.engine.clock()):
            run.check()
        self._let_recorded_come_first()
        with run.monitor:
            self._begun = not self.abandoned
        if not self._begun:
            raise CancelledError
        with _standing(self.parent, self.branch), Busy(self.engine, self.branch):
            run.lines.wakes(self.branch)
            try:
                return self.fn()
            finally:
                run.lines.sleeps(self.branch)

    def _let_recorded_come_first(self) -> None:
        """Wait a little, if this had not begun the last time: it may have been cancelled before."""
        run, patience = self.run, turns.Patience(self.engine.clock)
        with run.monitor:
            while run.behind() and not self.abandoned and not self._known() and patience:
                patience.wait(run.monitor.wait)

    def _known(self) -> bool:
        """Whether anything of its branch, or of one below, is recorded."""
        return any(position.startswith(self.branch.path) for position in self.run.journal)

    def end(self) -> int:
        """Wait for the turn of its end, and answer the ordinal of that; 0, if the run has ended before."""
        run, mark = self.run, f"{self.branch.path}end{WAKE}"
        if run.dead is not None:
            return 0
        recorded = run.journal.get(mark)
        if self.abandoned:
            return 0 if recorded is None else recorded.ordinal
        ordinal = run.number() if recorded is None else recorded.ordinal
        if recorded is None:
            run.pending.append(Entry(mark, ordinal, Kind.WAKE, "thread", version=self.engine.version))
            self.engine.recorders.linger(run)
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
            run.lines.pieces.pop(self, None)
            run.monitor.notify_all()
            calls, run.lines.endings = ((), run.lines.endings) if run.lines.pieces else (run.lines.endings, ())
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
        self.exception(timeout)
        return super().result()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end; from a piece that heard of it, a thread that waits hears that the workflow is cancelled.

        A task hears of it in its turn, see `aio.call`.
        """
        with _awaited(self, timeout):
            error = super().exception(timeout)
        here = context.body() if isinstance(error, Cancelled) and not on_loop() else None
        if here is not None and here.run is self.piece.run:
            told(here)
        return error

    def cancel(self) -> bool:
        """Give it up: whether it has begun, nobody can say for all replays, so it goes on unheard if it has."""
        if self.piece.told or not self.piece.abandon():
            return super().cancel()
        if not super().cancel():
            with self._condition:
                self._state = _base.PENDING
            super().cancel()
            super().set_running_or_notify_cancel()
        return True

    def set_running_or_notify_cancel(self) -> bool:
        """Say whether a thread of the pool is to do it: not if another one does."""
        return (self.cancelled() or self.piece.take()) and super().set_running_or_notify_cancel()

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


@contextmanager
def _awaited(future: Adopted[Any], timeout: float | None) -> Generator[None]:
    """Wait for a future in the body: that is rest, and how long it takes is no part of the workflow."""
    piece, here = future.piece, line()
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


class Waited(threading.Event):
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
            with turns.resting(cast("Runtime", self._line.run.host), self._line):
                super().wait()
            self._rests = False
        return True

    def set(self) -> None:
        """End the rest."""
        if self._rests:
            self._line.run.lines.wakes(self._line)
        super().set()


def _stand_in(parent: Branch) -> Branch:
    stands: dict[Branch, Branch] = getattr(_local, "stands", {})
    return stands.get(parent, parent)


@contextmanager
def _standing(parent: Branch, branch: Branch) -> Generator[None]:
    """Be in a branch on this thread, also where the context of its parent was taken along."""
    before: dict[Branch, Branch] = getattr(_local, "stands", {})
    _local.stands = {**before, parent: branch}
    try:
        with context.within(branch):
            yield
    finally:
        _local.stands = before


def line() -> Branch | None:
    """The branch whose code this thread executes; None on a loop, where others have their turns meanwhile."""
    here = context.body()
    return None if here is None or not here.run.lines.threaded or on_loop() else here
