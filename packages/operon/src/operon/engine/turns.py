"""Threads of one run take turns: one is given a result when every earlier one was, and all others rest.

A thread rests while it waits in a verb, a step among them, or for another thread of its run. So the code of a body is
executed by one thread at a time from each result on, and a replay executes it in the same order. A thread that does
not come to rest, because it computes or waits for something that nobody can see, is not waited for for long.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from typing import TypeVar

from operon.core.journal import Branch, Run
from operon.engine.repose import Repose
from operon.engine.runtime import Runtime
from operon.errors import Divergence

T = TypeVar("T")
PATIENCE = 0.05
"""Seconds that a thread which executes code of the body is waited for."""
STUCK = 60.0
"""Seconds after which a record whose turn does not come is a divergence in completion order."""
CROWDED = 1.0
"""Seconds after which work that has the next record is begun, though its pool has no thread for it."""


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
        until = engine.clock() + PATIENCE
        while not run.lines.at_rest() and run.dead is None:
            left = until - engine.clock()
            if left <= 0:
                run.lines.overlook()
            else:
                run.monitor.wait(left)
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
    repose, future = Repose(run), Future[None]()

    def look() -> None:
        if repose.reached():
            come(future)
        else:
            engine.loop.between(look)

    engine.loop.between(look)
    with suppress(TimeoutError):
        future.result(PATIENCE)


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
