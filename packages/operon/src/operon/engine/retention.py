"""What this process does about old records: little at a time, beside any number of others.

Nothing is agreed between processes: each sweeps what its own code says, and passes by what another has locked. Must
not know what a record consists of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from operon.core import retention
from operon.core.commands import Op, Prune, Strip, Sweep, ask
from operon.core.function import Function
from operon.core.rows import Policy
from operon.engine.settings import Settings

PAGE = 200
"""Workflows that a sweep looks at; and what else is removed at a time."""
ENTRIES = 2000
"""Journal entries that are removed at a time."""
PAUSE, LONG_PAUSE = 60.0, 3600.0
"""Seconds until the next look where nothing was found: for records; for keys, and for what is left of the dead."""
DAY = 86400.0


class Retention:
    """The sweeping of one process."""

    def __init__(self, functions: Callable[[], Mapping[str, Function]], settings: Settings) -> None:
        self._functions = functions
        self._settings = settings
        self._records = Round(keys=False)
        self._keys = Round(keys=True)
        self._next = self._next_cleaning = float("-inf")

    def tick(self, now: float) -> Op[int]:
        """Do one batch of what is due at this instant; answers how much was found: there is more, unless it is 0."""
        if now < self._next:
            return 0
        found = yield from self._records.go_on(retention.records(self._functions(), self._settings.keep))
        if found or now >= self._next_cleaning:
            found += yield from ask(Strip(ENTRIES))
        if now >= self._next_cleaning:
            cleaned = yield from self._keys.go_on(retention.keys(self._functions(), self._settings.keep_keys))
            cleaned += yield from ask(Prune(PAGE, DAY))
            self._next_cleaning = now if found + cleaned else now + LONG_PAUSE
            found += cleaned
        self._next = now if found else now + PAUSE
        return found


class Round:
    """Where the sweeping stands: it looks at everything that is past its time, a page a call, and begins again."""

    def __init__(self, *, keys: bool) -> None:
        self._of_keys = keys
        self._policies: tuple[Policy, ...] = ()
        self._place = 0
        self._after: tuple[float, str] | None = None

    def go_on(self, policies: tuple[Policy, ...]) -> Op[int]:
        """Sweep the next page; answers how many went."""
        if policies != self._policies:
            self._policies, self._place, self._after = policies, 0, None
        if not policies:
            return 0
        swept = yield from ask(Sweep(policies[self._place :], PAGE, self._after, self._of_keys))
        self._after = swept.after
        self._place = 0 if swept.after is None else self._place + swept.policy
        return swept.gone
