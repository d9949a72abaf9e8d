"""When a cron expression comes round in a time zone: arithmetic on instants. Must not know what happens then."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from operon.errors import BadValue

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * SUN",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
FIELDS = ("second", "minute", "hour", "day-of-month", "month", "day-of-week")
EVERY_HOUR = set(range(24))
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a wall clock has no zone
DAY = 86_400.0
LONGEST = 255


class Cron:
    """A cron expression in a time zone, and the instants that it means.

    Five fields, from the minute to the day of the week, or six, the first of which is the second. Wall-clock times
    where clocks are put back or forward: with hours that are named, a time that comes twice is meant once, the first
    time, and one that is left out is meant when the gap ends. With every hour, each time the clock shows is meant, so
    that what comes every ten minutes does so through the night, too.

    Raises:
        BadValue: no cron expression, naming the field; one that never comes; or no time zone.
    """

    def __init__(self, expression: str, tz: str = "UTC") -> None:
        self.zone = zone(tz)
        self._fields = NICKNAMES.get(_text(expression).strip().lower(), expression)
        self._every_hour = _parsed(expression, self._fields).hours == EVERY_HOUR

    def after(self, instant: float) -> Iterator[float]:
        """Every instant that is later, in order."""
        for found in self._from(instant):
            if found > instant:
                yield found
                instant = found

    def next(self, instant: float) -> float | None:
        """The first instant that is later; None when there is none within fifty years."""
        return next(self.after(instant), None)

    def last(self, first: float, until: float) -> float:
        """The latest instant up to `until`, where `first` is one of them: however many lie between is no matter."""
        low, high, found = first, until, first
        while high - low > 0.5:
            middle = (low + high) / 2
            later = self.next(middle)
            if later is None or later > until:
                high = middle
            else:
                low = found = later
        return found

    def _from(self, instant: float) -> Iterator[float]:
        """The instants, from this one on at the latest."""
        again: list[float] = []
        for wall in CronSim(self._fields, self._begin(instant)):
            before, after = self._instant(wall, fold=0), self._instant(wall, fold=1)
            if before < after and self._every_hour:
                again.append(after)
            elif again:
                yield from again
                again.clear()
            if before <= after:
                yield before
            elif not self._every_hour:
                yield self._end_of_gap(after, before)
        yield from again

    def _begin(self, instant: float) -> datetime:
        """The wall clock from which on to look: where it will soon be put back, from the first time to be repeated."""
        offset = self._offset(instant)
        back = max(0.0, offset - self._offset(instant + DAY))
        return EPOCH + timedelta(seconds=instant + offset - back - (1 if back else 0))

    def _offset(self, instant: float) -> float:
        offset = datetime.fromtimestamp(instant, self.zone).utcoffset()
        return offset.total_seconds() if offset is not None else 0.0

    def _instant(self, wall: datetime, *, fold: int) -> float:
        """When the wall clock shows this, by the offset before a change (fold 0) or behind it (fold 1)."""
        return wall.replace(tzinfo=self.zone, fold=fold).timestamp()

    def _end_of_gap(self, low: float, high: float) -> float:
        """When the clock was put forward: between these, at a full second."""
        offset = self._offset(low)
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(middle) == offset:
                low = middle
            else:
                high = middle
        return high


def zone(tz: str) -> ZoneInfo:
    """Give a time zone by its name.

    Raises:
        BadValue: there is none of this name.
    """
    try:
        return ZoneInfo(_text(tz))
    except (KeyError, ValueError, OSError):
        raise BadValue(
            f"There is no time zone {tz!r}; write one as in tz='Europe/London' or tz='UTC'. A machine without a "
            "database of time zones gets one by `pip install tzdata`."
        ) from None


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > LONGEST:
        raise BadValue(f"{value!r:.80} is no text of at most {LONGEST} characters.")
    return value


def _parsed(expression: str, fields: str) -> CronSim:
    """Parse an expression, and see that it means any time at all."""
    try:
        found = CronSim(fields, EPOCH)
    except CronSimError as error:
        raise BadValue(f"{expression!r} is no cron expression: {_why(fields.split(), str(error))}.") from None
    if next(CronSim(fields, EPOCH), None) is None:
        raise BadValue(f"{expression!r} never comes: no day has all that it asks for.")
    return found


def _why(parts: list[str], error: str) -> str:
    name = error.removeprefix("Bad ")
    if name not in FIELDS:
        nicknames = ", ".join(NICKNAMES)
        return (
            f"it has {len(parts)} fields, and needs five (minute, hour, day of month, month, day of week), six with "
            f"the second in front, or is one of {nicknames}"
        )
    place = FIELDS.index(name) - (len(parts) == 5)
    return f"{parts[place]!r} is no {name}"
