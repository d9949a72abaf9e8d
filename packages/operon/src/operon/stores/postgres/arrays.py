"""Columns packed as Postgres' binary arrays, by hand: a seventh of what a driver takes for it. Knows no table.

Most columns of a batch say the same in every row, or nothing, and few have nulls among values: each is packed by the
shortest way that is right for it, and all ways give the same bytes.
"""

from __future__ import annotations

import struct
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Pack: TypeAlias = "Callable[[Sequence[Any]], bytes]"

HEADER = struct.Struct("!iiiii")
LENGTH = struct.Struct("!i")
LETTERS = tuple(LENGTH.pack(length).decode() for length in range(128))
"""Lengths that are ASCII."""
NULL = LENGTH.pack(-1)
TEXT_TYPE = 25


def texts(values: Sequence[str | None]) -> bytes:
    """Pack a `text[]`."""
    if not values:
        return empty(TEXT_TYPE)
    number, first = len(values), values[0]
    if values.count(first) == number:
        body = text(first) * number
    elif None in values:
        body = b"".join(map(text, values))
    else:
        body = several(values)  # type: ignore[arg-type]  # None is not among them
    return HEADER.pack(1, 1, TEXT_TYPE, number, 1) + body


def several(values: Sequence[str]) -> bytes:
    """Pack texts, none of which is null: short ones in ASCII as one text, for which their lengths are letters too."""
    if max(map(len, values)) < len(LETTERS):
        together = "".join([LETTERS[len(value)] + value for value in values])
        if together.isascii():
            return together.encode()
    return b"".join(map(text, values))


def text(value: str | None) -> bytes:
    """Pack one text."""
    if value is None:
        return NULL
    data = value.encode()
    return LENGTH.pack(len(data)) + data


def numbers(type_: int, code: str) -> Pack:
    """Make the packer for an array of numbers of one type."""
    item = struct.Struct("!i" + code)
    size = item.size - LENGTH.size

    def pack(values: Sequence[float | None]) -> bytes:
        if not values:
            return empty(type_)
        number, first = len(values), values[0]
        if values.count(first) == number:
            body = (NULL if first is None else item.pack(size, first)) * number
        elif None in values:
            body = b"".join([NULL if value is None else item.pack(size, value) for value in values])
        else:
            body = b"".join(map(item.pack, repeat(size), values))
        return HEADER.pack(1, 1, type_, number, 1) + body

    return pack


def empty(type_: int) -> bytes:
    """Pack an array that has nothing in it."""
    return struct.pack("!iii", 0, 0, type_)


ints = numbers(23, "i")
bigints = numbers(20, "q")
floats = numbers(701, "d")
