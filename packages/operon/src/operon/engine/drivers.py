"""The only two places where sync and async differ: an operation is driven on a thread, or awaited on a loop."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import Token
from types import GeneratorType
from typing import Any, TypeVar

from msgspec.structs import replace

from operon.asynchronous import running
from operon.core import context
from operon.core.commands import Command, Invoke, Op, Pause
from operon.core.context import Place
from operon.core.journal import Branch, Run
from operon.core.recording import CatchUp, Flush, Stall, Turn, Wait
from operon.core.rows import Advanced, Outcome, Park
from operon.core.starting import Execute
from operon.engine import hearing, strays, taskturns, turns
from operon.engine.bridge import Bridged, Delivery, bridged
from operon.engine.exits import Busy, end_fork, told
from operon.engine.hearing import Hearing
from operon.engine.runtime import DrivingRuntime, Runtime
from operon.engine.wakeup import Rest
from operon.errors import Cancelled, Divergence, StepTimedOut, StoreError, Suspended, WrongColour
from operon.threads import GREEN, are_green

T = TypeVar("T")
ON_LOOP = (
    "A blocking verb, step or workflow was called on a running event loop. Await its twin from operon.aio, "
    "or `await aio.call(function, ...)`, which runs it on a thread."
)


def drive(engine: DrivingRuntime, op: Op[T], line: Branch | None = None) -> T:
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
        raise WrongColour(GREEN if are_green() else ON_LOOP)
    return _driven(engine, op, line)


def serve(engine: DrivingRuntime, op: Op[T]) -> T:
    """Run an operation of the engine's own on this thread, outside of any workflow, even if a loop runs here."""
    return contextvars.Context().run(_driven, engine, op, None)


def _driven(engine: DrivingRuntime, op: Op[T], line: Branch | None) -> T:
    answer: Any = None
    failure: BaseException | None = None
    token = None if line is None else _begin()
    try:
        while True:
            command = op.send(answer) if failure is None else op.throw(failure)
            if line is not None and line.run.lines.threaded:
                line.run.lines.sleeps(line)
            try:
                answers: Callable[[DrivingRuntime, Any], Any] = BLOCKING.get(type(command), _ask)
                answer, failure = answers(engine, command), None
            except BaseException as error:
                failure = error  # thrown outside of this block, which would be the context of what is raised then
    except StopIteration as done:
        result: T = done.value
        return result
    except Cancelled:
        if line is not None:
            hearing.told(line)
        raise
    finally:
        failure = None  # whose traceback has this frame
        if line is not None and line.run.lines.threaded:
            line.run.lines.wakes(line)
        if token is not None:
            context.back(token)


async def adrive(engine: DrivingRuntime, op: Op[T], line: Branch | None = None) -> T:
    """Run an operation on this event loop, yielding to it; see `drive`.

    Raises:
        WrongColour: no event loop of asyncio runs here, as under trio.
    """
    if asyncio._get_running_loop() is None:  # noqa: SLF001 - as above
        running()  # raises it
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
                        answer = await written(engine, run, command.end)
                    finally:
                        engine.waits.leave(run)
                else:
                    answers: Callable[[DrivingRuntime, Any], Awaitable[Any]] = AWAITED.get(type(command), _submit)
                    answer = await answers(engine, command)
                failure = None
            except BaseException as error:
                failure = error  # likewise
    except StopIteration as done:
        result: T = done.value
        return result
    except Cancelled:
        if line is not None:
            await hearing.hears(line)
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


def out_of_reach(engine: DrivingRuntime, error: StoreError) -> BaseException:
    """What a verb raises when the store fails: a workflow cannot decide on that, and is left."""
    here = context.current()
    if here is None:
        return error
    return engine.kill(here.run, Suspended(f"{here.run.id} was left: {error}") if error.transient else error)


# ── Blocking ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _ask(engine: DrivingRuntime, command: Command[Any]) -> Any:
    try:
        return engine.store.ask(command)
    except StoreError as error:
        raise out_of_reach(engine, error) from error


def _invoke(engine: DrivingRuntime, invoke: Invoke[Any]) -> Any:
    with Busy(engine, context.branch()):
        if not invoke.body:
            return called(engine, invoke)
        with own_code():
            value = turns.whole(engine, context.branch(), lambda: invoke.fn(*invoke.args, **invoke.kwargs))
    return _blocking(invoke, value)


def called(engine: DrivingRuntime, invoke: Invoke[Any]) -> Any:
    """Call a function, for no longer than it may take."""
    try:
        if invoke.timeout is not None:
            return _limited(engine, invoke)
        value = invoke.fn(*invoke.args, **invoke.kwargs)
    finally:
        if engine.forked:
            end_fork(sys.exception())
    return _blocking(invoke, value)


def _blocking(invoke: Invoke[Any], value: Any) -> Any:
    """Refuse what is to be awaited.

    Raises:
        WrongColour: it is.
    """
    if _awaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise WrongColour(
            f"{_named(invoke)} is async and was called in blocking code; start() it, or make the caller async."
        )
    return value


def _limited(engine: DrivingRuntime, invoke: Invoke[Any]) -> Any:
    """Run a blocking step on a thread of its own, and leave it there when its time is over."""
    done: Future[Any] = Future()
    around = context.copied()

    def run() -> None:
        try:
            value = around.run(invoke.fn, *invoke.args, **invoke.kwargs)
            if engine.forked:
                end_fork(None)
            done.set_result(value)
        except BaseException as error:
            if engine.forked:
                end_fork(error)
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


def _flush(engine: DrivingRuntime, command: Flush) -> Any:
    engine.waits.enter(command.run)  # once a record is written its branch goes on, and would do a step in vain
    try:
        return engine.recorders.of(command.run).flush(command.end)
    finally:
        engine.waits.leave(command.run)


def _turn(engine: DrivingRuntime, command: Turn) -> None:
    run = command.run
    if run.pending:
        engine.recorders.linger(run)
    if run.lines.threaded or not run.its_turn(command.ordinal):
        turns.unless_alone(run, command.ordinal)
        turns.take(engine, run, command.ordinal, context.branch())


def _catch_up(engine: DrivingRuntime, command: CatchUp) -> None:
    if command.strict:
        turns.catch_up(engine, command.run)


def _stall(engine: DrivingRuntime, command: Stall) -> None:
    del engine
    run = command.run
    raise command.error or run.die(
        Divergence(f"{run.id}: the journal says that an operation was cancelled here; blocking code cannot be.")
    )


def _wait(engine: DrivingRuntime, command: Wait) -> Any:
    if command.run is None:
        return engine.waits.begin(command).future.result()
    engine.waits.leave(command.run)
    try:
        return engine.waits.begin(command).future.result()
    finally:
        engine.waits.enter(command.run)


def _pause(engine: DrivingRuntime, command: Pause) -> None:
    del engine
    time.sleep(command.seconds)


def _execute(engine: DrivingRuntime, command: Execute) -> Any:
    return engine.execute(command)


def _rest(engine: DrivingRuntime, command: Rest) -> None:
    del engine
    command.wakeup.wait(command.seconds)


BLOCKING: dict[type[Command[Any]], Callable[[DrivingRuntime, Any], Any]] = {
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


def written(
    engine: Runtime, run: Run, end: Outcome | Park | None = None, delivery: Delivery | None = None
) -> Bridged[Advanced]:
    """Have what a run has noted written, and await that."""
    answer: Bridged[Advanced] = Bridged(firm=True, delivery=delivery)
    return answer.of(engine.recorders.of(run).submit(end, answer))


async def _submit(engine: DrivingRuntime, command: Command[Any]) -> Any:
    try:
        answer: Bridged[Any] = Bridged(firm=True)
        return await answer.of(engine.store.submit(command, answer))
    except StoreError as error:
        raise out_of_reach(engine, error) from error


async def _ainvoke(engine: DrivingRuntime, invoke: Invoke[Any]) -> Any:
    if invoke.body:
        return await _abody(engine, invoke)
    line, waits = context.branch(), engine.waits
    task, run = (asyncio.current_task(), None) if line is None else (line.task, line.run)
    if run is not None:
        waits.enter(run)
    try:
        return await acalled(engine, invoke)
    except BaseException as error:
        if told(run, error, task) is error:  # likewise
            raise
        raise told(run, error, task) from error
    finally:
        if run is not None:
            waits.leave(run)


async def acalled(engine: Runtime, invoke: Invoke[Any]) -> Any:
    """Call a function, and await what it gives if that is to be awaited, no longer than it may take."""
    try:
        value = invoke.fn(*invoke.args, **invoke.kwargs)
        if not _awaitable(value):
            return value
        return await (value if invoke.timeout is None else _alimited(invoke, value))
    finally:
        if engine.forked:
            end_fork(sys.exception())


async def _abody(engine: DrivingRuntime, invoke: Invoke[Any]) -> Any:
    """Run a body to its end, and to that of what it gave to threads; nobody waits for these if it fails."""
    line, task = context.branch(), asyncio.current_task()
    try:
        with own_code():
            value = invoke.fn(*invoke.args, **invoke.kwargs)
            if _awaitable(value):
                value = await (value if line is None else Hearing.of(value, line))
            if line is not None and line.run.lines.pieces:
                future: Future[None] = Future()
                turns.once_done(line.run, lambda: turns.come(future))
                await bridged(future)
            if engine.forked:
                end_fork(None)
            return value
    except BaseException as error:
        if engine.forked:
            end_fork(error)
        if line is not None:
            _left_by_its_loop(engine, line.run, task, error)
        run = None if line is None else line.run
        if told(run, error, task) is error:  # and is in no variable of this frame, which its traceback holds
            raise
        raise told(run, error, task) from error


def _left_by_its_loop(engine: Runtime, run: Run, task: asyncio.Task[object] | None, error: BaseException) -> None:
    """Leave a run whose body is cancelled from outside, as by a loop that goes down: that is not the body's failure."""
    outside = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling()
    if outside and run.dead is None and engine.loop.went_down(run):
        engine.kill(run, Suspended(f"{run.id} was left: its task was cancelled."))


async def _alimited(invoke: Invoke[Any], value: Awaitable[Any]) -> Any:
    limit = asyncio.timeout(invoke.timeout)
    try:
        async with limit:
            return await value
    except TimeoutError:
        if limit.expired():
            raise StepTimedOut(_too_long(invoke)) from None
        raise


async def _await(engine: DrivingRuntime, command: Wait) -> Any:
    waiting = engine.waits.begin(command, on_loop=True)
    try:
        return await bridged(waiting.future)
    finally:
        engine.waits.end(waiting, {})


async def _apause(engine: DrivingRuntime, command: Pause) -> None:
    over: Future[None] = Future()
    timer = engine.timers.after(command.seconds, lambda: turns.come(over))
    try:
        await bridged(over)
    finally:
        timer.cancel()


async def _aexecute(engine: DrivingRuntime, command: Execute) -> Any:
    return await engine.aexecute(command)


async def _arest(engine: DrivingRuntime, command: Rest) -> None:
    del engine
    await command.wakeup.awaited(command.seconds)


AWAITED: dict[type[Command[Any]], Callable[[DrivingRuntime, Any], Awaitable[Any]]] = {
    Invoke: _ainvoke,
    Turn: taskturns.take,
    CatchUp: taskturns.catch_up,
    Stall: taskturns.stall,
    Wait: _await,
    Pause: _apause,
    Execute: _aexecute,
    Rest: _arest,
}
