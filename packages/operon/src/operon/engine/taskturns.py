"""Tasks of one run take turns on their loop, as threads do (`turns`): each is given a result when all others rest."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from functools import partial

from operon.cancelling import cancel_later
from operon.core.journal import Run
from operon.core.recording import CatchUp, Stall, Turn
from operon.engine import turns
from operon.engine.bridge import bridged
from operon.engine.repose import Repose
from operon.engine.runtime import Runtime


async def take(engine: Runtime, command: Turn) -> None:
    """Wait for a turn to its end: what is recorded is given to the code, and only then is it cancelled.

    It may be cancelled in every turn of the loop meanwhile: anyio's scopes do that until they are left.
    """
    run = command.run
    if run.pending:
        engine.recorders.linger(run)
    if not run.forked and run.calls is None and run.its_turn(command.ordinal):
        return
    cancelled = await _come_to(engine, run, command.ordinal, rest=False)
    if isinstance(cancelled, asyncio.CancelledError):
        cancel_later(cancelled)


async def catch_up(engine: Runtime, command: CatchUp) -> None:
    """Wait until all that is recorded has been given to the code, or, unless it is strict, until all branches rest."""
    run, repose = command.run, Repose(command.run, asyncio.current_task())
    while not command.strict and run.behind() and not repose.reached():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0)
    if command.strict:
        future: Future[None] = Future()
        run.caught_up(lambda: turns.come(future))
        try:
            await _before_long(engine, future)
        except TimeoutError:
            raise run.die(turns.never(run, run.first())) from None


async def stall(engine: Runtime, command: Stall) -> None:
    """Wait for the turn of a cancellation, and raise it."""
    run = command.run
    if run.pending:
        engine.recorders.linger(run)
    cancelled = await _come_to(engine, run, command.ordinal, command.error)
    raise cancelled or asyncio.CancelledError  # it cancelled itself: whoever else would have, has by now


async def _come_to(
    engine: Runtime, run: Run, ordinal: int, cancelled: BaseException | None = None, *, rest: bool = True
) -> BaseException | None:
    """Wait for a turn to its end; answers what has asked for a cancellation by then, if anything has."""
    repose = Repose(run, asyncio.current_task())
    while True:
        try:
            if not run.its_turn(ordinal):
                await _its_turn(engine, run, ordinal)
            if rest or run.forked or run.calls is not None:
                await _at_rest(engine, repose)
                run.check()
        except asyncio.CancelledError as error:
            if run.dead is not None:
                raise
            cancelled = error if error.args or cancelled is None else cancelled
        else:
            return cancelled


async def _its_turn(engine: Runtime, run: Run, ordinal: int) -> None:
    try:
        await _before_long(engine, _turn_future(run, ordinal))
    except TimeoutError:
        raise run.die(turns.never(run, ordinal)) from None
    finally:
        run.turns.pop(ordinal, None)


def _turn_future(run: Run, ordinal: int) -> Future[None]:
    turns.unless_alone(run, ordinal)
    future: Future[None] = Future()
    run.turns[ordinal] = lambda: turns.come(future)
    if run.its_turn(ordinal) and run.turns.pop(ordinal, None) is not None:
        turns.come(future)  # it came on another thread, between the look and the note
    return future


async def _before_long(engine: Runtime, future: Future[None]) -> None:
    """Wait for what other branches bring; by the engine's timers, for those of the loop are the body's own.

    Raises:
        TimeoutError: it does not come.
    """
    limit = engine.timers.after(turns.STUCK, lambda: turns.come(future, TimeoutError()))
    try:
        await bridged(future)
    finally:
        limit.cancel()


async def _at_rest(engine: Runtime, repose: Repose) -> None:
    """Let the other branches go on until each waits for something; not for ever, if one spins."""
    run = repose.run
    while not repose.reached():
        if run.lines.at_rest():
            await asyncio.sleep(0)
            continue
        future: Future[None] = Future()
        run.lines.once_at_rest(partial(turns.come, future))
        _overlook(engine, run, future, turns.Patience(engine.clock))
        try:
            await bridged(future)
        finally:
            turns.come(future)


def _overlook(engine: Runtime, run: Run, rest: Future[None], patience: turns.Patience) -> None:
    """Wait no longer for the threads of a run, unless they come to rest before long."""

    def look() -> None:
        patience.end()
        if rest.done():
            return
        if patience:
            _overlook(engine, run, rest, patience)
        else:
            run.lines.overlook()

    patience.begin()
    engine.timers.after(turns.SLICE, look)
