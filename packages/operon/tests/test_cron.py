"""When a cron expression comes round: held against a walk over the wall clock, which knows nothing of its ways."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operon.core.cron import NICKNAMES, Cron
from operon.errors import BadValue

ZONES = (
    "Africa/Cairo", "Africa/Casablanca", "America/Asuncion", "America/Havana", "America/New_York", "America/Nuuk",
    "America/Santiago", "America/St_Johns", "Antarctica/Troll", "Asia/Beirut", "Asia/Gaza", "Asia/Kolkata",
    "Atlantic/Azores", "Australia/Lord_Howe", "Australia/Sydney", "Europe/Chisinau", "Europe/London",
    "Pacific/Chatham", "Pacific/Norfolk", "UTC",
)  # fmt: skip
BEGIN, END = datetime(2023, 11, 1, tzinfo=UTC).timestamp(), datetime(2026, 11, 20, tzinfo=UTC).timestamp()
DAY = 86_400.0
STEP = timedelta(minutes=15)
"""Every zone's clock is put back and forward by a multiple of it, at a multiple of it."""

Matches = Callable[[datetime], bool]
NAMED: dict[str, Matches] = {
    "30 2 * * *": lambda wall: (wall.hour, wall.minute) == (2, 30),
    "0 0 * * *": lambda wall: (wall.hour, wall.minute) == (0, 0),
    "15 3 * * SUN": lambda wall: (wall.hour, wall.minute) == (3, 15) and wall.isoweekday() == 7,
    "*/15 1-3 * * *": lambda wall: 1 <= wall.hour <= 3,
    "30 */2 * * *": lambda wall: wall.minute == 30 and wall.hour % 2 == 0,
    "0 45 23,0,1 * * *": lambda wall: wall.minute == 45 and wall.hour in {23, 0, 1},
    "0 1 L * *": lambda wall: (wall.hour, wall.minute) == (1, 0) and (wall + timedelta(days=1)).day == 1,
    "0 2 1 * SUN": lambda wall: (wall.hour, wall.minute) == (2, 0) and (wall.day == 1 or wall.isoweekday() == 7),
}
EVERY_HOUR: dict[str, Matches] = {
    "0 * * * *": lambda wall: wall.minute == 0,
    "*/30 * * * FRI-SAT,SUN": lambda wall: wall.minute in {0, 30} and wall.isoweekday() >= 5,
    "45 * * * SUN": lambda wall: wall.minute == 45 and wall.isoweekday() == 7,
    "30 0-23 * 3,10 *": lambda wall: wall.minute == 30 and wall.month in {3, 10},
}


@dataclass(frozen=True)
class Moment:
    """A quarter of an hour, what the wall clock shows, and which times it shows or has left out for the first time."""

    at: float
    wall: datetime
    new: list[datetime]


def changes(zone: str) -> list[float]:
    """The days on which the clocks of a zone are put back or forward."""
    tz = ZoneInfo(zone)
    days = [BEGIN + DAY * number for number in range(int((END - BEGIN) // DAY))]
    offsets = [datetime.fromtimestamp(day, tz).utcoffset() for day in days]
    return [day for day, old, new in zip(days, offsets, offsets[1:], strict=False) if old != new]


def walk(zone: str, begin: float, end: float) -> list[Moment]:
    tz, at, moments = ZoneInfo(zone), begin, list[Moment]()
    furthest = datetime.fromtimestamp(at, tz).replace(tzinfo=None, fold=0) - STEP
    while at < end:
        wall = datetime.fromtimestamp(at, tz).replace(tzinfo=None, fold=0)
        new = [furthest + STEP * number for number in range(1, (wall - furthest) // STEP + 1)]
        moments.append(Moment(at, wall, new))
        furthest = max(furthest, wall)
        at += STEP.total_seconds()
    return moments


def shown(walked: list[Moment], matches: Matches) -> list[float]:
    """Each instant at which the clock shows a time that matches."""
    return [moment.at for moment in walked if matches(moment.wall)]


def once(walked: list[Moment], matches: Matches) -> list[float]:
    """The first instant of each time that matches; for those that no clock showed, when it went on."""
    return [moment.at for moment in walked if any(map(matches, moment.new))]


def meant(expression: str, zone: str, begin: float = BEGIN, end: float = END) -> list[float]:
    return list(takewhile(lambda at: at < end, Cron(expression, zone).after(begin - 1)))


@pytest.mark.parametrize("zone", ZONES)
def test_what_is_meant_is_what_a_walk_over_the_wall_clock_finds(zone: str) -> None:
    """Once a wall-clock time where hours are named, each time it is shown where not.

    Twenty zones, every change of their clocks in three years, with some days about it, and a month and a half.
    """
    about = [(BEGIN, BEGIN + 45 * DAY), *((change - 4 * DAY, change + 5 * DAY) for change in changes(zone))]
    for begin, end in about:
        walked = walk(zone, begin, end)
        for expression, matches in NAMED.items():
            assert meant(expression, zone, begin, end) == once(walked, matches), expression
        for expression, matches in EVERY_HOUR.items():
            assert meant(expression, zone, begin, end) == shown(walked, matches), expression


@pytest.mark.parametrize("zone", ZONES)
def test_wherever_one_begins_to_look_the_next_is_the_same(zone: str) -> None:
    """The state of a schedule is one instant: from any other instant on, the same ones follow."""
    for expression in ("*/15 * * * *", "*/15 1-3 * * *", "30 */2 * * *"):
        cron = Cron(expression, zone)
        for change in changes(zone):
            begin, end = change - 3_600.0, change + 200_000.0
            whole = list(takewhile(end.__gt__, cron.after(begin - 86_400)))
            while begin < change + 100_000:
                assert cron.next(begin) == whole[bisect_right(whole, begin)]
                begin += 1_700


def test_seconds_come_first() -> None:
    assert meant("*/20 0 0 1 1 *", "UTC")[:4] == [
        datetime(2024, 1, 1, 0, 0, second, tzinfo=UTC).timestamp() for second in (0, 20, 40)
    ] + [datetime(2025, 1, 1, tzinfo=UTC).timestamp()]


@pytest.mark.parametrize("nickname", NICKNAMES)
def test_nicknames_mean_what_they_stand_for(nickname: str) -> None:
    assert meant(f" {nickname.upper()}", "Europe/London") == meant(NICKNAMES[nickname], "Europe/London")


@pytest.mark.parametrize("expression", ["*/5 * * * * *", "30 2 * * *", "0 9 1 1 *", "0 0 29 2 *"])
def test_the_last_of_many_is_found_without_counting_them(expression: str) -> None:
    cron = Cron(expression, "Europe/London")
    first = cron.next(BEGIN)
    assert first is not None
    for until in (first, first + 0.5, END, END + 1e9):
        last = cron.last(first, until)
        assert last <= until
        later = cron.next(last)
        assert later is None or later > until


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("61 * * * *", "'61' is no minute"),
        ("* 24 * * *", "'24' is no hour"),
        ("* * 0 * *", "'0' is no day-of-month"),
        ("* * * FOO *", "'FOO' is no month"),
        ("* * * * MON#6", "'MON#6' is no day-of-week"),
        ("60 * * * * *", "'60' is no second"),
        ("*/0 * * * *", "'*/0' is no minute"),
        ("* * * *", "it has 4 fields"),
        ("", "it has 0 fields"),
        ("@fortnightly", "it has 1 fields"),
        ("0 0 30 2 *", "'30' is no day-of-month"),
        ("*" * 300, "no text of at most 255"),
        (7, "no text of at most 255"),
    ],
)
def test_what_is_no_cron_expression_is_told_which_field_is_wrong(expression: str, said: str) -> None:
    with pytest.raises(BadValue, match=re.escape(said)):
        Cron(expression)


@pytest.mark.parametrize("tz", ["Mars/Base", "", "../etc/passwd", "/etc/passwd", "Europe", None, "a\0b", "x" * 300])
def test_an_unknown_time_zone_is_refused(tz: str) -> None:
    with pytest.raises(BadValue, match=r"time zone|no text"):
        Cron("* * * * *", tz)


@given(st.text("0123456789*/,-#L WMONJA@", max_size=30), st.sampled_from(ZONES))
def test_whatever_is_written_means_instants_or_is_refused(expression: str, zone: str) -> None:
    try:
        cron = Cron(expression, zone)
    except BadValue:
        return
    first = cron.next(BEGIN)
    assert first is None or first > BEGIN
