"""Which texts may name a workflow."""

from __future__ import annotations

import re
from collections.abc import Iterable

from operon.core.given import shown
from operon.errors import BadValue, InvalidId, OperonError

LONGEST = 255
UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and halves of one."""


def possible(workflow_id: str) -> bool:
    """Whether a workflow could have this id; of others a database need not be asked."""
    try:
        return bool(checked(workflow_id))
    except InvalidId:
        return False


def checked(key: str, what: str = "A key", error: type[OperonError] = InvalidId) -> str:
    """Give the key back if every database can hold it.

    Raises:
        InvalidId: it is not a text, empty, longer than 255 characters, or has control characters or lone surrogates.
    """
    if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise error(f"{what} is a text, and {shown(key)} is a {type(key).__name__}; write str(...).")
    if not key:
        raise error(f"{what} has 1 to {LONGEST} characters, and this one has none.")
    if len(key) > LONGEST:
        raise error(f"{what} has 1 to {LONGEST} characters, and this one has {len(key)}: {shown(key[:40])}…")
    if found := UNWRITABLE.search(key):
        raise error(
            f"{what} has no control characters, and character {found.start()} of {key[:40]!r} is {found.group()!r}."
        )
    return key


def names(given: Iterable[str], what: str, each: str, error: type[OperonError] = BadValue) -> tuple[str, ...]:
    """Give several names back if every database can hold them.

    Raises:
        BadValue: it is one text, or nothing that has texts, or one of them cannot be held.
    """
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise error(f"{what} takes several texts, and {shown(given)} is none; write [{shown(given)}].")
    return tuple(checked(name, each, error) for name in given)
