"""The usual step of a body: called or awaited as it is, without an operation that yields commands.

Its run is alone, so that nothing can come in between, and this is the step's first attempt. What a step is, the core
says in either case (`core.steps`); whatever is not as usual goes on as an operation there. Must not know the store.
"""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Coroutine
from typing import Any

from operon.core import context, steps
from operon.core.context import Place
from operon.core.function import Declared
from operon.core.journal import Branch, Run
from operon.core.recording import hand_out, noted
from operon.core.steps import Attempts, Failed
from operon.engine import drivers
from operon.engine.exits import told_from
from operon.engine.hearing import hears, told
from operon.engine.runtime import DrivingRuntime
from operon.errors import Cancelled


def step(
    engine: DrivingRuntime, line: Branch, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run a step on this thread; see `core.steps.step`."""
    if usual(line.run) and _get_running_loop() is None:
        return _first(engine, line, declared, args, kwargs)
    return drivers.drive(engine, steps.step(engine, declared, args, kwargs), line)


def astep(
    engine: DrivingRuntime, line: Branch, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Coroutine[Any, Any, Any]:
    """Run a step on this loop; see `core.steps.step`."""
    if usual(line.run) and engine.loop.executes(line):
        return _afirst(engine, line, declared, args, kwargs)
    return drivers.adrive(engine, steps.step(engine, declared, args, kwargs), engine.loop.admit(line))


def usual(run: Run) -> bool:
    """Whether a step of a run is the next thing that happens there, and has not been tried."""
    return run.alone and run.dead is None and not run.failures


def _first(
    engine: DrivingRuntime, line: Branch, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run a step that comes next, on the line's own thread, and whose first attempt this is."""
    run, waits = line.run, engine.waits
    value: Any = None
    failed: Failed | None = None
    token = context.place.set(Place(line, driving=True))
    try:
        attempts = Attempts(engine, line, declared, args, kwargs)
        waits.enter(run)  # and leave, before it waits to try again: it may be parked then
        try:
            if run.pending or run.writing:
                engine.recorders.of(run).flush()
                run.check()
            begun, text = engine.clock(), ""
            doing = context.place.set(Place(line, attempts.doing(1), driving=True))
            try:
                value = drivers.called(engine, attempts.invoke())
                text, value = attempts.taken(value)
            except BaseException as error:
                failed = attempts.failed(1, begun, told_from(run, error, None))
            finally:
                context.back(doing)
        finally:
            waits.leave(run)
        if failed is not None:
            return drivers.drive(engine, attempts.until_done(failed), line)
        entry = attempts.done(1, begun, text)
        if not noted(run, entry):
            drivers.drive(engine, hand_out(run, entry), line)
    except Cancelled:
        told(line)
        raise
    finally:
        failed = None  # whose traceback has this frame
        context.back(token)
    return value


async def _afirst(
    engine: DrivingRuntime, line: Branch, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run a step that comes next, in the line's own task, and whose first attempt this is."""
    run, waits = line.run, engine.waits
    value: Any = None
    failed: Failed | None = None
    token = context.place.set(Place(line, driving=True))
    try:
        attempts = Attempts(engine, line, declared, args, kwargs)
        waits.enter(run)  # and leave, before it waits to try again: it may be parked then
        try:
            if run.pending or run.writing:
                await drivers.written(engine, run, delivery=engine.loop.delivery)
                run.check()
            begun, text = engine.clock(), ""
            doing = context.place.set(Place(line, attempts.doing(1), driving=True))
            try:
                value = await drivers.acalled(engine, attempts.invoke())
                text, value = attempts.taken(value)
            except BaseException as error:
                failed = attempts.failed(1, begun, told_from(run, error, line.task))
            finally:
                context.back(doing)
        finally:
            waits.leave(run)
        if failed is not None:
            return await drivers.adrive(engine, attempts.until_done(failed), line)
        entry = attempts.done(1, begun, text)
        if not noted(run, entry):
            await drivers.adrive(engine, hand_out(run, entry), line)
    except Cancelled:
        await hears(line)
        raise
    finally:
        failed = None  # whose traceback has this frame
        context.back(token)
    return value
