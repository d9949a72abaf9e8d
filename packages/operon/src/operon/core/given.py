"""What a user gives is held against what every database, clock and reader can: durations, instants, numbers, labels.

Names and keys are in `ids`. Whatever passes here can be stored, and can be shown again by whoever looks later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from operon.errors import BadValue, OperonError

LONGEST = 1e11
"""Seconds, some three thousand years: so far from now, an instant is one that a calendar has."""
MOST = 2**31 - 1
DEEPEST = 32
"""Levels of one label's value."""
LARGEST = 100_000
"""Characters of all labels of a workflow: it is found by them, and its data is elsewhere."""


def seconds(duration: object, what: str = "a duration") -> float:
    """Give a duration in seconds.

    Raises:
        BadValue: it is negative, not finite, longer than `LONGEST`, or no duration at all.
    """
    try:
        value = duration.total_seconds() if isinstance(duration, timedelta) else _number(duration)
    except (TypeError, ValueError, OverflowError):
        value = -1.0
    if not 0 <= value <= LONGEST:
        raise BadValue(
            f"{what} is a number of seconds or a timedelta, at least 0 and at most {LONGEST:.0e}; "
            f"{shown(duration)} is not."
        )
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool | str | bytes):
        raise TypeError
    return float(value)


def instant(at: object, what: str) -> float:
    """Give an instant in seconds since 1970.

    Raises:
        BadValue: it is no datetime, has no time zone, or is outside the years 1 to 9999 of UTC.
    """
    if not isinstance(at, datetime):
        raise BadValue(f"{what} takes a datetime, and {shown(at)} is a {type(at).__name__}.")
    try:
        offset = at.utcoffset()
        if offset is not None:
            return at.astimezone(UTC).timestamp()
    except (OverflowError, ValueError):
        raise BadValue(f"{what} {at} is outside the years 1 to 9999 of UTC.") from None
    raise BadValue(f"{what} {at} needs a time zone, such as datetime(..., tzinfo=UTC).")


def whole(what: str, value: object, least: int = -MOST, most: int = MOST, error: type[OperonError] = BadValue) -> int:
    """Give a number back if it is a whole one that every database can hold.

    Raises:
        BadValue: it is none, or outside the bounds.
    """
    if type(value) is not int or not least <= value <= most:
        raise error(f"{what}={shown(value)} must be a whole number from {least} to {most}.")
    return value


def text(value: object, what: str) -> str:
    """Give a text back if a database can be asked for it.

    Raises:
        BadValue: it is no text, or holds a NUL or half a surrogate pair, which no record has.
    """
    if not isinstance(value, str):
        raise BadValue(f"{what} is a text, and {shown(value)} is a {type(value).__name__}.")
    if (why := _unstorable(value)) is not None:
        raise BadValue(f"{what} {shown(value)} {why}, which no record can have.")
    return value


def labels(attributes: object, what: str = "attributes=") -> str:
    """Spell a workflow's labels as JSON text, keys in order.

    Raises:
        BadValue: they are no labels by name, or hold what JSON or a database does not.
    """
    if not isinstance(attributes, Mapping):
        raise BadValue(f"{what} takes labels by name, such as {{'tenant': 'acme'}}; {shown(attributes)} is none.")
    spelled = json.dumps(_plain(cast("Mapping[object, object]", attributes), what, 0), sort_keys=True, allow_nan=False)
    if len(spelled) > LARGEST:
        raise BadValue(
            f"{what} takes {LARGEST} characters of JSON, and these are {len(spelled)}; data goes in arguments."
        )
    return spelled


def _plain(value: object, where: str, depth: int) -> object:
    """Give a value as what JSON has, and nothing that it would change in silence."""
    if depth > DEEPEST:
        raise BadValue(f"{where} is nested deeper than {DEEPEST} levels.")
    if isinstance(value, Mapping):
        return {
            _name(key, where): _plain(item, f"{where}[{shown(key)}]", depth + 1)
            for key, item in cast("Mapping[object, object]", value).items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{at}]", depth + 1) for at, item in enumerate(cast("Sequence[object]", value))]
    if isinstance(value, str):
        if (why := _unstorable(value)) is not None:
            raise BadValue(f"{where}: {shown(value)} {why}, which no record can have.")
        return str(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return int(value)
    if isinstance(value, float) and float("-inf") < value < float("inf"):
        return float(value)
    raise BadValue(
        f"{where}: {shown(value)} is no text, truth value or number of at most 64 bits that JSON can hold; "
        "write str(...)."
    )


def _name(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise BadValue(f"{where} are labels by name, and {shown(key)} is no text.")
    if (why := _unstorable(key)) is not None:
        raise BadValue(f"{where}: the name {shown(key)} {why}, which no record can have.")
    return str(key)


def _unstorable(value: str) -> str | None:
    if "\0" in value:
        return "holds a NUL"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "holds half a surrogate pair"
    return None


def shown(value: object) -> str:
    """Show a value in a message: short, and in characters that every terminal and log takes."""
    try:
        spelled = ascii(value)
    except Exception:  # an int of too many digits, or a __repr__ of the user's
        return f"this {type(value).__name__}"
    return spelled if len(spelled) <= 80 else f"{spelled[:80]}…"
