"""The usual step of an async body: awaited as it is, without an operation that yields commands.

Its run is alone, so that nothing can come in between, and this is the step's first attempt. What a step is, the core
says in either case (`core.steps`); whatever is not as usual goes on as an operation there. Must not know the store.
"""

from __future__ import annotations

import asyncio
from typing import Any

from operon.core import context, steps
from operon.core.context import Place
from operon.core.function import Declared
from operon.core.journal import Branch, hand_out, noted
from operon.core.steps import Attempts
from operon.engine import drivers
from operon.engine.exits import told
from operon.engine.hearing import hears
from operon.engine.runtime import DrivingRuntime
from operon.errors import Cancelled


async def step(
    engine: DrivingRuntime, line: Branch, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run a step on this loop; see `core.steps.step`."""
    if not _usual(line):
        return await drivers.adrive(engine, steps.step(engine, declared, args, kwargs), line)
    run, driving = line.run, Place(line, driving=True)
    attempts = Attempts(engine, line, declared, args, kwargs)
    engine.waits.enter(run)
    token = context.place.set(driving)
    try:
        if run.pending or run.writing:
            await drivers.written(engine, run)
            run.check()
        begun = engine.clock()
        context.place.set(Place(line, attempts.doing(1), driving=True))
        try:
            value = await drivers.called(engine, attempts.invoke())
            text, value = attempts.taken(value)
        except BaseException as error:
            failed = attempts.failed(1, begun, told(run, error, line.task))
        else:
            entry = attempts.done(1, begun, text)
            if not noted(run, entry):
                context.place.set(driving)
                await drivers.adrive(engine, hand_out(run, entry), line)
            return value
        context.place.set(driving)
        return await drivers.adrive(engine, attempts.until_done(failed), line)
    except Cancelled:
        await hears(line)
        raise
    finally:
        engine.waits.leave(run)
        context.back(token)


def _usual(line: Branch) -> bool:
    """Whether it goes on by itself, in its own task, and nothing is known yet of what it does next."""
    run = line.run
    return run.alone and run.dead is None and not run.failures and asyncio.current_task() is line.task
