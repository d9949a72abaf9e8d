"""Threads of one run take turns: one is given a result when every earlier one was, and all others rest.

A thread rests while it waits in a verb, a step among them, or for another thread of its run. So the code of a body is
executed by one thread at a time from each result on, and a replay executes it in the same order. A thread that does
not come to rest, because it computes or waits for something that nobody can see, is not waited for for long.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from typing import TypeVar

from operon.core.journal import Branch, Run
from operon.engine.repose import Repose
from operon.engine.runtime import Runtime
from operon.errors import Divergence

T = TypeVar("T")
PATIENCE, SLICE = 0.05, 0.005
"""Seconds that a thread which executes code of the body is waited for, and in waits of how many."""
STARVED = 20
"""A wait that took twice as long as it was to counts as much less: that thread was kept from going on, too."""
STUCK = 60.0
"""Seconds after which a record whose turn does not come is a divergence in completion order."""
CROWDED = 1.0
"""Seconds after which work that has the next record is begun, though its pool has no thread for it."""


class Patience:
    """How long what may come to rest, or not, is waited for; true while it lasts.

    Where the machine or the interpreter is so busy that the wait itself comes late, it lasts up to `STARVED` times as
    long: a thread that gets no chance to come to rest is not one that computes.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left = PATIENCE
        self._begun = 0.0

    def __bool__(self) -> bool:
        return self._left > 0

    def wait(self, wait: Callable[[float], object]) -> None:
        """Wait a little, by what is given."""
        self.begin()
        wait(SLICE)
        self.end()

    def begin(self) -> None:
        """Note that a wait begins, of `SLICE` at most."""
        self._begun = self._clock()

    def end(self) -> None:
        """Note that it is over."""
        took = self._clock() - self._begun
        self._left -= took if took < 2 * SLICE else SLICE / STARVED


def take(engine: Runtime, run: Run, ordinal: int, line: Branch | None) -> None:
    """Wait for the turn of an ordinal, and for all others to rest; from here on this line is awake.

    Raises:
        Divergence: its turn never comes.
        Suspended: the run was left meanwhile.
    """
    with run.monitor:
        _until(engine, run, lambda: run.its_turn(ordinal), ordinal)
    if run.tasks:
        _tasks_at_rest(engine, run)
    with run.monitor:
        patience = Patience(engine.clock)
        while not run.lines.at_rest() and run.dead is None:
            if patience:
                patience.wait(run.monitor.wait)
            else:
                run.lines.overlook()
        run.check()
        if run.lines.threaded and line is not None and line.run is run:
            run.lines.wakes(line)


def catch_up(engine: Runtime, run: Run) -> None:
    """Wait until all that is recorded has been given to the code.

    Raises:
        Divergence: it is never asked for.
    """
    with run.monitor:
        _until(engine, run, lambda: not run.behind(), run.first())


def _until(engine: Runtime, run: Run, come: Callable[[], bool], ordinal: int) -> None:
    begun = engine.clock()
    while not come():
        waited = engine.clock() - begun
        if waited >= STUCK:
            raise run.die(never(run, ordinal))
        if waited >= CROWDED:
            _hasten(run)
        run.monitor.wait(min(STUCK - waited, CROWDED))
        run.check()


def never(run: Run, ordinal: int) -> Divergence:
    """Say that branches met in another order than the journal's."""
    return Divergence(f"{run.id}: the turn of record {ordinal} never came; branches met in another order.")


def _hasten(run: Run) -> None:
    """Have a piece begun that has the next record, and for which its pool has no thread."""
    first = run.first()
    position = next((entry.position for entry in run.journal.values() if entry.ordinal == first), "")
    for piece in tuple(run.lines.pieces):
        if piece.queued and position.startswith(piece.branch.path):
            piece.hasten()


def _tasks_at_rest(engine: Runtime, run: Run) -> None:
    """Wait for the branches on the loop, as they wait for one another; not for ever, if the loop is blocked."""
    repose, rest, patience = Repose(run), threading.Event(), Patience(engine.clock)

    def look() -> None:
        if repose.reached():
            rest.set()
        elif patience:
            engine.loop.between(look)

    engine.loop.between(look)
    while patience and not rest.is_set():
        patience.wait(rest.wait)


@contextmanager
def resting(engine: Runtime, line: Branch) -> Generator[None]:
    """Wait for another thread of the body: the run may be parked meanwhile, if that waits, too."""
    line.run.lines.sleeps(line)
    engine.waits.leave(line.run)
    try:
        yield
    finally:
        engine.waits.enter(line.run)
        line.run.lines.wakes(line)


def whole(engine: Runtime, line: Branch | None, body: Callable[[], T]) -> T:
    """Run a blocking body to its end, and to that of what it gave to threads; nobody waits for these if it fails."""
    try:
        value = body()
        if line is not None and line.run.lines.threaded:
            _finish(engine, line)
        return value
    finally:
        if line is not None:
            line.run.lines.sleeps(line)


def _finish(engine: Runtime, line: Branch) -> None:
    run = line.run
    with resting(engine, line), run.monitor:
        while run.lines.pieces and run.dead is None:
            run.monitor.wait()


def once_done(run: Run, call: Callable[[], None]) -> None:
    """Call this when everything that the body gave to threads has ended."""
    with run.monitor:
        if run.lines.pieces:
            run.lines.endings = (*run.lines.endings, call)
            return
    call()


def unless_alone(run: Run, ordinal: int) -> None:
    """Refuse to wait for a turn that nobody else could bring.

    Raises:
        Divergence: the run has one line only.
    """
    if not (run.forked or run.timed) and run.calls is None:
        raise run.die(Divergence(f"{run.id}: the code asks for record {ordinal} before record {run.first()}."))


def come(future: Future[None], error: BaseException | None = None) -> None:
    """Complete a future that two threads may complete; the first one does."""
    with suppress(InvalidStateError):
        future.set_result(None) if error is None else future.set_exception(error)
