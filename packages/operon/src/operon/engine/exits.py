"""What a function of the user's may raise: what is no `Exception` ends the process or the run, or is a failure."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import traceback
from contextlib import suppress
from typing import NoReturn

from operon.core.codec.failures import replaced
from operon.core.journal import Branch, Run
from operon.engine.runtime import Runtime
from operon.errors import Cancelled, StepFailed, Suspended


def told(run: Run | None, error: BaseException, task: asyncio.Task[object] | None = None) -> BaseException:
    """Say what is raised where a function was called: its own exception, or the failure in its place.

    No generator lets a `StopIteration` or a `GeneratorExit` through, and only an `Exception` can be recorded. So these
    are failures; not so what leaves a dead run, interrupts the process, or was delivered to the task from outside.

    Args:
        run: the run that the function was called for.
        error: what it raised.
        task: the task that called it, if one did.
    """
    if isinstance(error, StopIteration):
        return failure(error)
    if isinstance(error, Exception):
        return error
    if isinstance(error, GeneratorExit):
        closed = task is not None and _current() is not task  # nobody awaits it any more
        return error if closed else failure(error)
    if run is None or interrupts(error):
        return error
    if run.dead is not None and isinstance(error, Suspended | Cancelled | asyncio.CancelledError):
        return error
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        return error
    return failure(error)


def told_from(run: Run, error: BaseException, task: asyncio.Task[object] | None) -> BaseException:
    """Say it likewise, of an error that is not raised again: what is told in its place says whence it comes."""
    instead = told(run, error, task)
    if instead is not error:
        instead.__cause__ = error
    return instead


class Busy:
    """Something of the user's runs for a workflow, which is kept from being parked meanwhile."""

    __slots__ = ("_engine", "_run", "_waits")

    def __init__(self, engine: Runtime, line: Branch | None) -> None:
        self._engine = engine
        self._waits = engine.waits
        self._run = None if line is None else line.run

    def __enter__(self) -> None:
        """Begin."""
        if self._run is not None:
            self._waits.enter(self._run)

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _at: object) -> None:
        """End; what cannot be recorded is raised as a failure that can."""
        if self._engine.forked:
            end_fork(error)
        if self._run is not None:
            self._waits.leave(self._run)
        if error is not None and (instead := told(self._run, error)) is not error:
            raise instead from error


def end_fork(error: BaseException | None) -> NoReturn:
    """End this process, which a function of the user's forked and which came back from that function.

    The run is the parent's: here it would be recorded a second time, over connections that the parent is using, and no
    thread is left that it could wait for. So nothing is unwound either.
    """
    code = 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    with suppress(Exception):
        if error is None:
            sys.stderr.write("A forked process came back to Operon, and is ended: end it yourself, by os._exit().\n")
        elif not isinstance(error, SystemExit):
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 0xFF)


def interrupts(error: BaseException) -> bool:
    """Whether the process is asked to exit: by a signal, in its main thread; elsewhere `sys.exit()` is a failure."""
    asked = isinstance(error, KeyboardInterrupt | SystemExit)
    return asked and threading.current_thread() is threading.main_thread()


def failure(error: BaseException) -> StepFailed:
    """Make what is told in the place of an exception that cannot be recorded."""
    if isinstance(error, SystemExit):
        return StepFailed("SystemExit", f"sys.exit({error.code!r}) was called, which ends nothing here")
    return replaced(error)


def _current() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
