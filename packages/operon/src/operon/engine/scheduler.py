"""The schedules that this process fires: it learns from the heartbeat when the next instant is, and fires at that.

Which instants are fired, and as what, is the core's affair.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from operon.core.commands import Due, Fires, Op, Schedules, ask
from operon.core.firing import fire, rewound
from operon.core.host import Host
from operon.core.rows import Pulse
from operon.engine.clock import Clock
from operon.engine.program import Program
from operon.engine.settings import Settings
from operon.errors import RowLocked, StoreError

log = logging.getLogger("operon")
MOST = 100
"""Schedules that are looked at together."""


class Scheduler:
    """Fires what is due; a part of the executor's service, which wakes it at the instant.

    Args:
        host: what a firing is started by.
        program: declares schedules, and the functions that others are made for.
        settings: say whether anything runs here.
        clock: tells when an instant has come.
        replan: has the next instant learned.
    """

    def __init__(
        self, host: Host, program: Program, settings: Settings, clock: Clock, replan: Callable[[], None]
    ) -> None:
        self._host = host
        self._program = program
        self._settings = settings
        self._clock = clock
        self._replan = replan
        self._open = settings.run
        self.at: float | None = None
        """When the next instant of all comes, by the clock that only goes forward."""

    @property
    def due(self) -> bool:
        """Whether it has come."""
        return self.at is not None and self.at <= self._clock.monotonic()

    def fires(self) -> Fires:
        """Say which schedules this process fires: what its code declares, and what was made for its functions."""
        if not self._open:
            return Fires()
        program = self._program
        functions = tuple(name for name, it in program.functions.items() if it.kind != "step")
        return Fires(tuple(each.name for each in program.timetable), functions)

    def receive(self, pulse: Pulse) -> None:
        """Learn of the next instant from a heartbeat."""
        self.at = None if pulse.planned is None or not self._open else self._clock.monotonic() + pulse.planned

    def rewind(self) -> Op[None]:
        """Let what this process fires wait for the next instant, the store's clock having been put back."""
        fires = self.fires()
        if fires == Fires():
            return
        now = (yield from ask(Due(fires, 0))).now
        for row in (yield from ask(Schedules())):
            if fires.includes(row):
                try:
                    yield from rewound(row, now)
                except StoreError:
                    raise
                except Exception:
                    log.exception("The schedule %s stays as it was planned.", row.plan.name)

    def close(self) -> None:
        """Fire nothing more."""
        self._open = False
        self.at = None

    def fire(self) -> Op[None]:
        """Fire what is due, and have a heartbeat learn of the instant after that."""
        if not self.due:
            return
        self.at = None
        agenda = yield from ask(Due(self.fires(), MOST))
        stuck = 0
        for row in agenda.rows:
            try:
                yield from fire(self._host, row, agenda.now, self._settings.ttl)
            except RowLocked:
                log.info("The schedule %s is locked by a transaction elsewhere; it is tried again.", row.plan.name)
                stuck += 1
            except StoreError:
                raise
            except Exception:
                log.exception("The schedule %s cannot be fired here; it is tried again.", row.plan.name)
                stuck += 1
        if stuck == 0 or stuck < len(agenda.rows):
            self._replan()
