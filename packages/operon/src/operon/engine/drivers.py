"""The only two places where sync and async differ: an operation is driven on a thread, or awaited on a loop."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from operon.core import context
from operon.core.commands import Command, Invoke, Op, Pause
from operon.core.host import elsewhere
from operon.core.journal import Branch, CatchUp, Flush, Run, Stall, Turn, Wait
from operon.core.starting import Execute
from operon.engine import interrupting, strays, turns
from operon.engine.bell import Rest
from operon.engine.exits import Busy, left_by_its_loop
from operon.engine.interrupting import Hearing
from operon.engine.landing import arrived, cancel_later, settled
from operon.engine.repose import Repose
from operon.errors import Cancelled, Divergence, StepTimedOut, StoreError, Suspended, WrongColour

if TYPE_CHECKING:
    from operon.engine.engine import Engine

T = TypeVar("T")


def drive(engine: Engine, op: Op[T]) -> T:
    """Run an operation on this thread, blocking it.

    Raises:
        WrongColour: this thread runs an event loop, which must not be blocked.
    """
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the cheap spelling of get_running_loop
        op.close()
        raise WrongColour(
            "A blocking verb, step or workflow was called on a running event loop. Await its twin from operon.aio, "
            "or `await aio.call(function, ...)`, which runs it on a thread."
        )
    return _driven(engine, op)


def serve(engine: Engine, op: Op[T]) -> T:
    """Run an operation of the engine's own on this thread, outside of any workflow, even if a loop runs here."""
    return contextvars.Context().run(_driven, engine, op)


def _driven(engine: Engine, op: Op[T]) -> T:
    answer: Any = None
    failure: BaseException | None = None
    with Verb(engine, op) as line:
        try:
            while True:
                command = op.send(answer) if failure is None else op.throw(failure)
                if line is not None and line.run.lines.threaded:
                    line.run.lines.sleeps(line)
                try:
                    answer, failure = blocking(command)(engine, command), None
                except BaseException as error:
                    failure = error  # thrown outside of this block, which would be the context of what is raised then
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            failure = None  # whose traceback has this frame
            if line is not None and line.run.lines.threaded:
                line.run.lines.wakes(line)


def _reset(token: contextvars.Token[bool]) -> None:
    try:
        context.driving.reset(token)
    except ValueError:  # whoever closes a coroutine that was left has a context of its own
        return


@contextmanager
def own_code() -> Generator[None]:
    """Run a body, whose code is its own, though it is called by what drives its life."""
    token = context.driving.set(False)
    try:
        yield
    finally:
        _reset(token)


class Verb:
    """What is not the body's own code, though it is done in its name: gives the branch that it is done for.

    Raises:
        WrongDatabase: it is a verb of a client, or of an app on another database, which this workflow cannot record.
    """

    __slots__ = ("_line", "_token")

    def __init__(self, engine: Engine, op: Op[Any]) -> None:
        self._line = context.current()
        if self._line is not None and self._line.run.host is not engine:
            op.close()
            raise elsewhere(self._line.run)

    def __enter__(self) -> Branch | None:
        """Begin."""
        if self._line is not None:
            self._token = context.driving.set(True)
        return self._line

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _at: object) -> None:
        """End; whoever hears here that it is cancelled has been told."""
        if self._line is not None:
            if isinstance(error, Cancelled):
                interrupting.told(self._line)
            _reset(self._token)


async def adrive(engine: Engine, op: Op[T]) -> T:
    """Run an operation on this event loop, yielding to it."""
    answer: Any = None
    failure: BaseException | None = None
    with Verb(engine, op) as line:
        strays.admit_task(line)
        try:
            while True:
                command = op.send(answer) if failure is None else op.throw(failure)
                try:
                    answer, failure = await awaited(command)(engine, command), None
                except BaseException as error:
                    failure = error  # likewise
        except StopIteration as done:
            result: T = done.value
            return result
        except Cancelled:
            await interrupting.told_in_turn(line)
            raise
        finally:
            failure = None


def blocking(command: Command[Any]) -> Callable[[Engine, Any], Any]:
    """Choose what answers a command on a thread; the store, if nobody else does."""
    return BLOCKING.get(type(command), _ask)


def awaited(command: Command[Any]) -> Callable[[Engine, Any], Awaitable[Any]]:
    """Choose what answers a command on a loop; the store, if nobody else does."""
    return AWAITED.get(type(command), _submit)


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
    with Busy(engine):
        if invoke.timeout is not None:
            return _limited(engine, invoke)
        if invoke.body:
            with own_code():
                value = turns.whole(engine, context.branch.get(), lambda: invoke.fn(*invoke.args, **invoke.kwargs))
        else:
            value = invoke.fn(*invoke.args, **invoke.kwargs)
    if inspect.isawaitable(value):
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
        turns.take(engine, run, command.ordinal, context.branch.get())


def _unless_alone(run: Run, ordinal: int) -> None:
    if not (run.forked or run.timed):
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
    raise run.die(
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
        return await settled(engine.store.submit(command))
    except StoreError as error:
        raise out_of_reach(engine, error) from error


async def _ainvoke(engine: Engine, invoke: Invoke[Any]) -> Any:
    with Busy(engine, waits=invoke.body, task=asyncio.current_task()):
        if invoke.body:
            with left_by_its_loop(engine), own_code():
                value = invoke.fn(*invoke.args, **invoke.kwargs)
                return await _awhole(value) if inspect.isawaitable(value) else value
        value = invoke.fn(*invoke.args, **invoke.kwargs)
        if not inspect.isawaitable(value):
            return value
        return await (value if invoke.timeout is None else _alimited(invoke, value))


async def _awhole(value: Awaitable[Any]) -> Any:
    """Run a body to its end, and to that of what it gave to threads; nobody waits for these if it fails."""
    here = context.branch.get()
    result = await (value if here is None else Hearing.of(value, here))
    if here is not None and here.run.lines.pieces:
        future: Future[None] = Future()
        turns.once_done(here.run, lambda: _come(future))
        await arrived(future)
    return result


async def _alimited(invoke: Invoke[Any], value: Awaitable[Any]) -> Any:
    limit = asyncio.timeout(invoke.timeout)
    try:
        async with limit:
            return await value
    except TimeoutError:
        if limit.expired():
            raise StepTimedOut(_too_long(invoke)) from None
        raise


async def _aflush(engine: Engine, command: Flush) -> Any:
    engine.waits.enter(command.run)  # likewise
    try:
        return await settled(engine.pens.of(command.run).submit(command.end))
    finally:
        engine.waits.leave(command.run)


async def _aturn(engine: Engine, command: Turn) -> None:
    """Wait for a turn to its end: what is recorded is given to the code, and only then is it cancelled.

    It may be cancelled in every turn of the loop meanwhile: anyio's scopes do that until they are left.
    """
    run, cancelled = command.run, None
    if run.pending:
        engine.pens.linger(run)
    if not run.forked and run.its_turn(command.ordinal):
        return
    repose = Repose(run, asyncio.current_task())
    while True:
        try:
            if not run.its_turn(command.ordinal):
                await _its_turn(engine, run, command.ordinal)
            if run.forked:
                await _at_rest(engine, repose)
                run.check()
            break
        except asyncio.CancelledError as error:
            if run.dead is not None:
                raise
            cancelled = error if error.args or cancelled is None else cancelled
    if cancelled is not None:
        cancel_later(cancelled)


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
        future.result()
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
    if not run.its_turn(command.ordinal):
        await _its_turn(engine, run, command.ordinal)
    await _at_rest(engine, Repose(run, asyncio.current_task()))
    run.check()
    raise asyncio.CancelledError  # it cancelled itself: whoever else would have, has by now


async def _await(engine: Engine, command: Wait) -> Any:
    waiting = engine.waits.begin(command, on_loop=True)
    try:
        await arrived(waiting.future)
        return waiting.future.result()
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
    Flush: _aflush,
    Turn: _aturn,
    CatchUp: _acatch_up,
    Stall: _astall,
    Wait: _await,
    Pause: _apause,
    Execute: _aexecute,
    Rest: _arest,
}
