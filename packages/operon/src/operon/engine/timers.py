"""The timers that a workflow's body sets on its loop: recorded when they fire, so that in a replay they fire there too.

`asyncio.timeout`, `wait_for`, `wait(timeout=)` and `sleep`, and what other libraries build of `loop.call_later`, are
timers of the loop. One that a body sets keeps its instant over a crash and while the run is parked, and its firing is
an event like the result of a step: a replay does not wait for it, it fires in its turn. Timers of steps, transactions
and of whatever else runs on the loop are not touched. Must not know what a timer is for.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from functools import partial
from typing import Any

from operon.core import context as ambient
from operon.core.host import RunHost
from operon.core.journal import WAKE, Branch, Run
from operon.core.rows import Entry, Kind
from operon.engine import nested, strays
from operon.engine.repose import Repose
from operon.engine.waits import Waits

BUSY = 0.005
"""Seconds after which a timer looks again whether its run has been parked."""
TICK = 1e-6
"""Seconds that a body's clock shows past the instant of a timer that fires: it never seems to fire too early."""
ALIKE = 0.1
"""Seconds by which the delay of a timer may differ from what was recorded, and it is the same one."""


class BodyTimer(asyncio.Handle):
    """A timer of a body; to asyncio it is what `loop.call_at` gives."""

    __slots__ = ("_when", "enlisted", "ordinal", "position", "raw", "run", "until")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
        run: Run,
        position: str,
    ) -> None:
        super().__init__(callback, args, loop, context)
        self._when = when
        self.run = run
        self.position = position
        self.until = 0.0
        """When it is due, by the store's clock."""
        self.ordinal = 0
        """Of its firing, once that has one."""
        self.raw: asyncio.TimerHandle | None = None
        self.enlisted = False
        """Its run is kept from being parked until it has fired."""

    def when(self) -> float:
        """The instant on the loop's clock, as asyncio asks for it."""
        return self._when

    def cancel(self) -> None:
        """Do not fire."""
        if not self.cancelled():
            super().cancel()
            self.close()

    def close(self) -> None:
        """Have nothing more to do with the run."""
        run = self.run
        if self.raw is not None:
            self.raw.cancel()
        run.timers.pop(self, None)
        run.riding.pop(self.position, None)
        if self.ordinal:
            run.given(self.ordinal)


class BodyTimers:
    """Stands before `call_at`, `call_later` and `time` of the loop that an engine's bodies run on."""

    def __init__(self, host: RunHost[Run, Branch], waits: Waits) -> None:
        self.host = host
        self._waits = waits
        self._loop: Any = None
        self._nobody = contextvars.Context()
        """What is called in it is no part of a body."""
        self._call_at: Callable[..., asyncio.TimerHandle]
        self._call_later: Callable[..., asyncio.TimerHandle]
        self._time: Callable[[], float]
        self._passing = False
        self._offset: float | None = None
        """From the store's clock to the loop's."""

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stand before the loop's own."""
        self._loop, self._call_at, self._call_later, self._time = loop, loop.call_at, loop.call_later, loop.time
        self._loop.call_at, self._loop.call_later, self._loop.time = self.call_at, self.call_later, self.time

    def remove(self) -> None:
        """Give the loop its own back, unless somebody else has stood before it since."""
        if self._loop is not None and self._loop.call_at == self.call_at:
            self._loop.call_at, self._loop.call_later = self._call_at, self._call_later
            self._loop.time = self._time

    def time(self) -> float:
        """Tell the loop's time; to a body, the same in each run: so is what it computes of it, a deadline for steps."""
        branch = self._body()
        if branch is None:
            return self._time()
        nested.refuse_turn()
        now = self.host.now()
        if self._offset is None:
            self._offset = self._time() - now
        return branch.moment(now) + self._offset

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        """Call this in so many seconds."""
        if self._body() is None:
            return self._call_later(delay, callback, *args, context=context)
        return self.call_at(self._loop.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        """Call this at an instant; recorded, if it is a body that asks."""
        branch = self._body()
        if branch is None:
            return self._call_at(when, callback, *args, context=context)
        strays.admit_task(branch)
        run = branch.run
        timer = BodyTimer(self._loop, when, callback, args, context, run, branch.timer())
        fired = run.journal.get(timer.position + WAKE)
        run.timers[timer] = None
        run.timed = True
        self._set_instant(timer, max(0.0, when - self._loop.time()))
        if fired is None:
            left = timer.until - self.host.now()
            timer.raw = self._raw(max(0.0, left), self._due, timer)
        else:
            self._await_turn(timer, fired.ordinal)
        return timer

    def _raw(self, seconds: float, call: Callable[..., object], timer: BodyTimer) -> asyncio.TimerHandle:
        """Set a timer of the loop itself: some build `call_at` of `call_later`, others `call_later` of `call_at`."""
        self._passing = True
        try:
            return self._call_at(self._time() + seconds, call, timer, context=self._nobody)
        finally:
            self._passing = False

    def _body(self) -> Branch | None:
        """The branch of the body that this is, if it is one of this engine's that may still record."""
        if self._passing:
            return None
        branch = ambient.current()
        mine = branch is not None and branch.run.host is self.host and branch.run.dead is None
        return branch if mine else None

    def _set_instant(self, timer: BodyTimer, delay: float) -> None:
        """Fix when it is due: as recorded, or from now, and then that is written with whatever is written next."""
        run, position = timer.run, timer.position
        recorded = run.journal.get(position)
        if recorded is not None and abs(float(recorded.digest) - delay) <= max(ALIKE, delay / 100):
            timer.until = float(recorded.output or 0)
            return
        timer.until = self.host.now() + delay
        if recorded is None:
            output, digest = repr(timer.until), f"{delay:.3f}"
            run.aside(Entry(position, 0, Kind.TIMER, "timer", digest, output, version=self.host.version))

    def _due(self, timer: BodyTimer) -> None:
        """Fire, when all that is being given to the code has been; while it is being parked, nothing is told."""
        run = timer.run
        if timer.cancelled():
            return
        if run.dead is not None:
            timer._run()  # noqa: SLF001 - as the loop would
        elif run.parking:
            timer.raw = self._raw(BUSY, self._due, timer)
        else:
            self._await_turn(timer, run.number())

    def _await_turn(self, timer: BodyTimer, ordinal: int) -> None:
        run = timer.run
        timer.ordinal = ordinal
        self._waits.enter(run)
        come = partial(self._loop.call_soon_threadsafe, self._in_turn, timer, Repose(run), context=self._nobody)
        if run.its_turn(ordinal):
            come()
        else:
            run.turns[ordinal] = come

    def _in_turn(self, timer: BodyTimer, repose: Repose) -> None:
        """Fire once every branch has come to rest, so that nothing is done at the same time."""
        run = timer.run
        if timer.cancelled():
            self._waits.leave(run)
        elif run.dead is not None:
            self._waits.leave(run)
            timer._run()  # noqa: SLF001 - as the loop would
        elif not repose.reached():
            self._loop.call_soon(self._in_turn, timer, repose, context=self._nobody)
        else:
            self._fire(timer)

    def _fire(self, timer: BodyTimer) -> None:
        run, mark = timer.run, timer.position + WAKE
        if mark not in run.journal:
            entry = Entry(mark, timer.ordinal, Kind.WAKE, "timer", version=self.host.version)
            run.pending.append(entry)
            self.host.linger(run)
        run.told_at(max(timer.until, timer.when() - (self._offset or 0.0)) + TICK)
        timer._run()  # noqa: SLF001 - as the loop would
        timer.close()
        self._settle(run, Repose(run))

    def _settle(self, run: Run, repose: Repose) -> None:
        """Let the run be parked again, once the code has heard of the firing."""
        if repose.reached():
            self._waits.leave(run)
        else:
            self._loop.call_soon(self._settle, run, repose, context=self._nobody)
