"""The builtin types that JSON has no form for, as one closed table; it must not know how values nest.

`dump` gives something simpler, which is recorded in its turn; `load` makes the value again.
"""

from __future__ import annotations

import base64
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from msgspec import Struct

from operon.core.codec.refusal import Refusal

class_of: Callable[[object], type[Any]] = type
"""`type`, to checkers a class like any other: never `__class__`, by which a proxy may lie."""


class Kind(Struct, frozen=True):
    """One builtin type: its tag, and the way there and back."""

    tag: str
    type: type
    dump: Callable[[Any], object]
    load: Callable[[Any], object]


def _pairs(mapping: Mapping[object, object]) -> list[list[object]]:
    return [[key, value] for key, value in mapping.items()]


def _base64(raw: bytes | bytearray) -> str:
    return base64.b64encode(raw).decode()


def _deque(recorded: list[Any]) -> deque[object]:
    items, maxlen = recorded
    return deque(items, maxlen)


def _standard(zone: tzinfo | None) -> tzinfo | None:
    """Pydantic reads fixed offsets as a class of its own, which means what `timezone` means."""
    if zone is None or type(zone).__module__.partition(".")[0] != "pydantic_core":
        return zone
    return timezone(zone.utcoffset(None) or timedelta())


def _offset(zone: timezone) -> list[object]:
    return [zone.utcoffset(None), None if _is_nameless(zone) else zone.tzname(None)]


def _timezone(recorded: list[Any]) -> timezone:
    offset, name = recorded
    return timezone(offset) if name is None else timezone(offset, name)


def _is_nameless(zone: timezone) -> bool:
    return zone.tzname(None) == timezone(zone.utcoffset(None)).tzname(None)


def _zone_key(zone: ZoneInfo) -> str:
    if not zone.key:
        raise Refusal("is a time zone without a key; make it with ZoneInfo(key)")
    return zone.key


def _clock(value: datetime | time) -> object:
    """An ISO text if that says everything; else with the zone (as an object) and the fold beside it."""
    zone = _standard(value.tzinfo)
    if not value.fold and (zone is None or (type(zone) is timezone and _is_nameless(zone))):
        return value.replace(tzinfo=zone).isoformat()
    return [value.replace(tzinfo=None, fold=0).isoformat(), zone, value.fold]


def _read_clock(cls: type[datetime | time], recorded: Any) -> object:
    if isinstance(recorded, str):
        return cls.fromisoformat(recorded)
    text, zone, fold = recorded
    return cls.fromisoformat(text).replace(tzinfo=zone, fold=fold)


KINDS = (
    Kind("tuple", tuple, list, tuple),
    Kind("set", set, list, set),
    Kind("frozenset", frozenset, list, frozenset),
    Kind("dict", dict, _pairs, dict),
    Kind("ordered", OrderedDict, _pairs, OrderedDict),
    Kind("counter", Counter, _pairs, lambda pairs: Counter(dict(pairs))),
    Kind("deque", deque, lambda items: [list(items), items.maxlen], _deque),
    Kind("range", range, lambda r: [r.start, r.stop, r.step], lambda parts: range(*parts)),
    Kind("int", int, hex, lambda text: int(text, 16)),
    Kind("float", float, repr, float),
    Kind("complex", complex, lambda z: [z.real, z.imag], lambda parts: complex(*parts)),
    Kind("decimal", Decimal, str, Decimal),
    Kind("bytes", bytes, _base64, partial(base64.b64decode, validate=True)),
    Kind("bytearray", bytearray, _base64, lambda text: bytearray(base64.b64decode(text, validate=True))),
    Kind("datetime", datetime, _clock, partial(_read_clock, datetime)),
    Kind("time", time, _clock, partial(_read_clock, time)),
    Kind("date", date, date.isoformat, date.fromisoformat),
    Kind("timedelta", timedelta, lambda d: [d.days, d.seconds, d.microseconds], lambda parts: timedelta(*parts)),
    Kind("timezone", timezone, _offset, _timezone),
    Kind("zone", ZoneInfo, _zone_key, ZoneInfo),
    Kind("uuid", UUID, str, UUID),
    Kind("path", type(Path()), str, Path),
)

BY_TYPE: Mapping[type, Kind] = {kind.type: kind for kind in KINDS}
BY_TAG: Mapping[str, Kind] = {kind.tag: kind for kind in KINDS}
UNORDERED = frozenset({"set", "frozenset"})
