"""The only two places where sync and async differ: an operation is driven on a thread, or awaited on a loop."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from contextvars import Token
from functools import partial
from types import GeneratorType
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from operon.cancelling import cancel_later
from operon.core import context
from operon.core.commands import Command, Invoke, Op, Pause
from operon.core.context import Place
from operon.core.journal import Branch, CatchUp, Flush, Run, Stall, Turn, Wait
from operon.core.starting import Execute
from operon.engine import interrupting, strays, turns
from operon.engine.bell import Rest
from operon.engine.exits import Busy, left_by_its_loop, told
from operon.engine.interrupting import Hearing
from operon.engine.landing import Landing, arrived
from operon.engine.repose import Repose
from operon.errors import Cancelled, Divergence, StepTimedOut, StoreError, Suspended, WrongColour

if TYPE_CHECKING:
    from operon.engine.engine import Engine

T = TypeVar("T")


def drive(engine: Engine, op: Op[T], line: Branch | None = None) -> T:
    """Run an operation on this thread, blocking it.

    Args:
        engine: answers it.
        op: the operation.
        line: the branch that it is a verb of, if it is one of a body.

    Raises:
        WrongColour: this thread runs an event loop, which must not be blocked.
    """
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the cheap spelling of get_running_loop
        op.close()
        raise WrongColour(
            "A blocking verb, step or workflow was called on a running event loop. Await its twin from operon.aio, "
            "or `await aio.call(function, ...)`, which runs it on a thread."
        )
    return _driven(engine, op, line)


def serve(engine: Engine, op: Op[T]) -> T:
    """Run an operation of the engine's own on this thread, outside of any workflow, even if a loop runs here."""
    return contextvars.Context().run(_driven, engine, op, None)


def _driven(engine: Engine, op: Op[T], line: Branch | None) -> T:
    answer: Any = None
    failure: BaseException | None = None
    token = None if line is None else _begin()
    try:
        while True:
            command = op.send(answer) if failure is None else op.throw(failure)
            if line is not None and line.run.lines.threaded:
                line.run.lines.sleeps(line)
            try:
                answers: Callable[[Engine, Any], Any] = BLOCKING.get(type(command), _ask)
                answer, failure = answers(engine, command), None
            except BaseException as error:
                failure = error  # thrown outside of this block, which would be the context of what is raised then
    except StopIteration as done:
        result: T = done.value
        return result
    except Cancelled:
        if line is not None:
            interrupting.told(line)
        raise
    finally:
        failure = None  # whose traceback has this frame
        if line is not None and line.run.lines.threaded:
            line.run.lines.wakes(line)
        if token is not None:
            context.back(token)


async def adrive(engine: Engine, op: Op[T], line: Branch | None = None) -> T:
    """Run an operation on this event loop, yielding to it; see `drive`."""
    answer: Any = None
    failure: BaseException | None = None
    token = None if line is None else _begin()
    try:
        if line is not None:
            strays.admit_task(line)
        while True:
            command = op.send(answer) if failure is None else op.throw(failure)
            try:
                if isinstance(command, Flush):  # the most frequent by far; the others are in the table
                    run = command.run
                    engine.waits.enter(run)  # once a record is written its branch goes on, and would do a step in vain
                    try:
                        answer = await Landing(engine.pens.of(run).submit(command.end), firm=True)
                    finally:
                        engine.waits.leave(run)
                else:
                    answers: Callable[[Engine, Any], Awaitable[Any]] = AWAITED.get(type(command), _submit)
                    answer = await answers(engine, command)
                failure = None
            except BaseException as error:
                failure = error  # likewise
    except StopIteration as done:
        result: T = done.value
        return result
    except Cancelled:
        if line is not None:
            await interrupting.told_in_turn(line)
            interrupting.told(line)
        raise
    finally:
        failure = None
        if token is not None:
            context.back(token)


def _begin() -> Token[Place]:
    """What is done from here on is not the body's own code, though it is done in its name."""
    return context.place.set(Place(context.place.get().branch, driving=True))


def own_code() -> context.at:
    """Run a body, whose code is its own, though it is called by what drives its life."""
    return context.at(replace(context.place.get(), driving=False))


def out_of_reach(engine: Engine, error: StoreError) -> BaseException:
    """What a verb raises when the store fails: a workflow cannot decide on that, and is left."""
    here = context.current()
    if here is None:
        return error
    return engine.kill(here.run, Suspended(f"{here.run.id} was left: {error}") if error.transient else error)


# ── Blocking ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _ask(engine: Engine, command: Command[Any]) -> Any:
    try:
        return engine.store.ask(command)
    except StoreError as error:
        raise out_of_reach(engine, error) from error


def _invoke(engine: Engine, invoke: Invoke[Any]) -> Any:
    with Busy(engine, context.branch()):
        if invoke.timeout is not None:
            return _limited(engine, invoke)
        if invoke.body:
            with own_code():
                value = turns.whole(engine, context.branch(), lambda: invoke.fn(*invoke.args, **invoke.kwargs))
        else:
            value = invoke.fn(*invoke.args, **invoke.kwargs)
    if _awaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise WrongColour(
            f"{_named(invoke)} is async and was called in blocking code; start() it, or make the caller async."
        )
    return value


def _limited(engine: Engine, invoke: Invoke[Any]) -> Any:
    """Run a blocking step on a thread of its own, and leave it there when its time is over."""
    done: Future[Any] = Future()
    around = context.copied()

    def run() -> None:
        try:
            done.set_result(around.run(invoke.fn, *invoke.args, **invoke.kwargs))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name=f"operon-step-{_named(invoke)}", daemon=True).start()
    try:
        return done.result(invoke.timeout)
    except TimeoutError:
        if done.done():
            return done.result()
        engine.abandoned(done)
        raise StepTimedOut(_too_long(invoke)) from None


def _awaitable(value: object) -> bool:
    """Whether a function gave what is to be awaited, as `inspect.isawaitable` says of few things and slowly."""
    kind = value.__class__
    return hasattr(kind, "__await__") or (kind is GeneratorType and inspect.isawaitable(value))


def _named(invoke: Invoke[Any]) -> str:
    return str(getattr(invoke.fn, "__qualname__", invoke.fn))


def _too_long(invoke: Invoke[Any]) -> str:
    return f"{_named(invoke)} ran for more than its timeout of {invoke.timeout} s and was abandoned."


def _flush(engine: Engine, command: Flush) -> Any:
    engine.waits.enter(command.run)  # once a record is written its branch goes on, and would do a step in vain
    try:
        return engine.pens.of(command.run).flush(command.end)
    finally:
        engine.waits.leave(command.run)


def _turn(engine: Engine, command: Turn) -> None:
    run = command.run
    if run.pending:
        engine.pens.linger(run)
    if run.lines.threaded or not run.its_turn(command.ordinal):
        _unless_alone(run, command.ordinal)
        turns.take(engine, run, command.ordinal, context.branch())


def _unless_alone(run: Run, ordinal: int) -> None:
    if not (run.forked or run.timed) and run.calls is None:
        raise run.die(Divergence(f"{run.id}: the code asks for record {ordinal} before record {run.first()}."))


def _turn_future(run: Run, ordinal: int) -> Future[None]:
    _unless_alone(run, ordinal)
    future: Future[None] = Future()
    run.turns[ordinal] = lambda: _come(future)
    if run.its_turn(ordinal) and run.turns.pop(ordinal, None) is not None:
        _come(future)  # it came on another thread, between the look and the note
    return future


def _come(future: Future[None], error: BaseException | None = None) -> None:
    """Complete a future that two threads may complete; the first one does."""
    with suppress(InvalidStateError):
        future.set_result(None) if error is None else future.set_exception(error)


def _catch_up(engine: Engine, command: CatchUp) -> None:
    if command.strict:
        turns.catch_up(engine, command.run)


def _stall(engine: Engine, command: Stall) -> None:
    del engine
    run = command.run
    raise command.error or run.die(
        Divergence(f"{run.id}: the journal says that an operation was cancelled here; blocking code cannot be.")
    )


def _wait(engine: Engine, command: Wait) -> Any:
    if command.run is None:
        return engine.waits.begin(command).future.result()
    engine.waits.leave(command.run)
    try:
        return engine.waits.begin(command).future.result()
    finally:
        engine.waits.enter(command.run)


def _pause(engine: Engine, command: Pause) -> None:
    del engine
    time.sleep(command.seconds)


def _execute(engine: Engine, command: Execute) -> Any:
    return engine.execute(command)


def _rest(engine: Engine, command: Rest) -> None:
    del engine
    command.bell.wait(command.seconds)


BLOCKING: dict[type[Command[Any]], Callable[[Engine, Any], Any]] = {
    Invoke: _invoke,
    Flush: _flush,
    Turn: _turn,
    CatchUp: _catch_up,
    Stall: _stall,
    Wait: _wait,
    Pause: _pause,
    Execute: _execute,
    Rest: _rest,
}

# ── Awaited ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _submit(engine: Engine, command: Command[Any]) -> Any:
    try:
        return await Landing(engine.store.submit(command), firm=True)
    except StoreError as error:
        raise out_of_reach(engine, error) from error


async def _ainvoke(engine: Engine, invoke: Invoke[Any]) -> Any:
    if invoke.body:
        return await _abody(engine, invoke)
    line, waits = context.branch(), engine.waits
    task, run = (asyncio.current_task(), None) if line is None else (line.task, line.run)
    if run is not None:
        waits.enter(run)
    try:
        value = invoke.fn(*invoke.args, **invoke.kwargs)
        if not _awaitable(value):
            return value
        return await (value if invoke.timeout is None else _alimited(invoke, value))
    except BaseException as error:
        if (instead := told(run, error, task)) is error:
            raise
        raise instead from error
    finally:
        if run is not None:
            waits.leave(run)


async def _abody(engine: Engine, invoke: Invoke[Any]) -> Any:
    """Run a body to its end, and to that of what it gave to threads; nobody waits for these if it fails."""
    line, task = context.branch(), asyncio.current_task()
    try:
        with own_code():
            value = invoke.fn(*invoke.args, **invoke.kwargs)
            if _awaitable(value):
                value = await (value if line is None else Hearing.of(value, line))
            if line is not None and line.run.lines.pieces:
                future: Future[None] = Future()
                turns.once_done(line.run, lambda: _come(future))
                await arrived(future)
            return value
    except BaseException as error:
        if line is not None:
            left_by_its_loop(engine, line.run, task, error)
        if (instead := told(None if line is None else line.run, error, task)) is error:
            raise
        raise instead from error


async def _alimited(invoke: Invoke[Any], value: Awaitable[Any]) -> Any:
    limit = asyncio.timeout(invoke.timeout)
    try:
        async with limit:
            return await value
    except TimeoutError:
        if limit.expired():
            raise StepTimedOut(_too_long(invoke)) from None
        raise


async def _aturn(engine: Engine, command: Turn) -> None:
    """Wait for a turn to its end: what is recorded is given to the code, and only then is it cancelled.

    It may be cancelled in every turn of the loop meanwhile: anyio's scopes do that until they are left.
    """
    run = command.run
    if run.pending:
        engine.pens.linger(run)
    if not run.forked and run.calls is None and run.its_turn(command.ordinal):
        return
    cancelled = await _come_to(engine, run, command.ordinal, rest=run.forked or run.calls is not None)
    if isinstance(cancelled, asyncio.CancelledError):
        cancel_later(cancelled)


async def _come_to(
    engine: Engine, run: Run, ordinal: int, cancelled: BaseException | None = None, *, rest: bool = True
) -> BaseException | None:
    """Wait for a turn to its end; answers what has asked for a cancellation by then, if anything has."""
    repose = Repose(run, asyncio.current_task())
    while True:
        try:
            if not run.its_turn(ordinal):
                await _its_turn(engine, run, ordinal)
            if rest or run.forked:
                await _at_rest(engine, repose)
                run.check()
        except asyncio.CancelledError as error:
            if run.dead is not None:
                raise
            cancelled = error if error.args or cancelled is None else cancelled
        else:
            return cancelled


async def _its_turn(engine: Engine, run: Run, ordinal: int) -> None:
    try:
        await _before_long(engine, _turn_future(run, ordinal))
    except TimeoutError:
        raise run.die(turns.never(run, ordinal)) from None
    finally:
        run.turns.pop(ordinal, None)


async def _before_long(engine: Engine, future: Future[None]) -> None:
    """Wait for what other branches bring; by the engine's timers, for those of the loop are the body's own.

    Raises:
        TimeoutError: it does not come.
    """
    limit = engine.clockwork.after(turns.STUCK, lambda: _come(future, TimeoutError()))
    try:
        await arrived(future)
    finally:
        limit.cancel()


async def _acatch_up(engine: Engine, command: CatchUp) -> None:
    run, repose = command.run, Repose(command.run, asyncio.current_task())
    while not command.strict and run.behind() and not repose.reached():  # noqa: ASYNC110 - likewise
        await asyncio.sleep(0)
    if command.strict:
        future: Future[None] = Future()
        run.caught_up(lambda: _come(future))
        try:
            await _before_long(engine, future)
        except TimeoutError:
            raise run.die(turns.never(run, run.first())) from None


async def _at_rest(engine: Engine, repose: Repose) -> None:
    """Let the other branches go on until each waits for something; not for ever, if one spins."""
    run = repose.run
    while not repose.reached():
        if run.lines.at_rest():
            await asyncio.sleep(0)
            continue
        future: Future[None] = Future()
        run.lines.once_at_rest(partial(_come, future))
        limit = engine.clockwork.after(turns.PATIENCE, run.lines.overlook)
        try:
            await arrived(future)
        finally:
            limit.cancel()


async def _astall(engine: Engine, command: Stall) -> None:
    run = command.run
    if run.pending:
        engine.pens.linger(run)
    cancelled = await _come_to(engine, run, command.ordinal, command.error)
    raise cancelled or asyncio.CancelledError  # it cancelled itself: whoever else would have, has by now


async def _await(engine: Engine, command: Wait) -> Any:
    waiting = engine.waits.begin(command, on_loop=True)
    try:
        return await arrived(waiting.future)
    finally:
        engine.waits.end(waiting, {})


async def _apause(engine: Engine, command: Pause) -> None:
    over: Future[None] = Future()
    timer = engine.clockwork.after(command.seconds, lambda: _come(over))
    try:
        await arrived(over)
    finally:
        timer.cancel()


async def _aexecute(engine: Engine, command: Execute) -> Any:
    return await engine.aexecute(command)


async def _arest(engine: Engine, command: Rest) -> None:
    del engine
    await command.bell.heard(command.seconds)


AWAITED: dict[type[Command[Any]], Callable[[Engine, Any], Awaitable[Any]]] = {
    Invoke: _ainvoke,
    Turn: _aturn,
    CatchUp: _acatch_up,
    Stall: _astall,
    Wait: _await,
    Pause: _apause,
    Execute: _aexecute,
    Rest: _arest,
}
