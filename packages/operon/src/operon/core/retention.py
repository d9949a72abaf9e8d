"""How long records are kept: what the code says, as policies for the store. Must not know when anything is swept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TypeAlias

from operon.core.function import Function
from operon.core.given import LONGEST, seconds
from operon.core.rows import Policy
from operon.core.states import ENDED, Status
from operon.errors import BadValue, DeclarationError

Duration: TypeAlias = "float | timedelta"
Keep: TypeAlias = "Duration | Mapping[str, Duration | None] | None"
"""For all outcomes, or for each: `{"succeeded": timedelta(days=7), "failed": None}`; None is for ever."""


def keeping(keep: Keep, what: str = "keep=") -> dict[Status, float | None]:
    """Say in seconds how long the record of each outcome is kept that is named; None is for ever.

    Raises:
        DeclarationError: no duration, or an outcome that does not exist.
    """
    if not isinstance(keep, Mapping):
        return dict.fromkeys(sorted(ENDED), _length(keep, what))
    if unknown := next((it for it in keep if it not in set(ENDED)), None):
        held = " What is held has not ended, and is kept until somebody decides." if unknown == Status.HELD else ""
        raise DeclarationError(f"{what}: {unknown!r} is no outcome; there are {', '.join(sorted(ENDED))}.{held}")
    return {Status(outcome): _length(length, f"{what} of {outcome!r}") for outcome, length in keep.items()}


def _length(given: Duration | None, what: str) -> float | None:
    if isinstance(given, timedelta):  # timedelta.max is a way to say for ever
        given = min(given, timedelta(seconds=LONGEST))
    try:
        return None if given is None else seconds(given, what)
    except BadValue as error:
        raise DeclarationError(f"{error} None keeps for ever.") from None


def records(functions: Mapping[str, Function], default: Mapping[Status, float | None]) -> tuple[Policy, ...]:
    """List how long the records of these functions are kept, by every name that rows know them by."""
    return tuple(
        Policy(name, outcome, length)
        for name, function in sorted(functions.items())
        if function.kind != "step"
        for outcome, length in ({**default, **function.rules.keep}).items()
        if length is not None
    )


def keys(functions: Mapping[str, Function], keep: float | None) -> tuple[Policy, ...]:
    """List how long the keys of these functions' workflows are known."""
    if keep is None:
        return ()
    names = sorted(name for name, function in functions.items() if function.kind != "step")
    return tuple(Policy(name, outcome, keep) for name in names for outcome in sorted(ENDED))
