"""When a failed step is tried again; it must not know clocks, and is given its randomness."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, cast

from msgspec import Struct

from operon.core.given import LONGEST, shown, whole
from operon.errors import DeclarationError

RetryOn = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]

STEEPEST = 1e4
"""Of `factor`: its 64th power is still a number."""


class Retry(Struct, frozen=True):
    """`retries` further attempts after the first; the n-th waits `backoff * factor**(n-1)` seconds, `cap` at most."""

    retries: int = 0
    backoff: float = 1.0
    factor: float = 2.0
    cap: float = 3600.0
    jitter: bool = True
    retry_on: RetryOn = Exception

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        whole("retries", self.retries, least=0, error=DeclarationError)
        for name, least, most in (("backoff", 0, LONGEST), ("factor", 1, STEEPEST), ("cap", 0, LONGEST)):
            value: object = getattr(self, name)
            if isinstance(value, bool) or not (isinstance(value, int | float) and least <= value <= most):
                raise DeclarationError(
                    f"{name}={shown(value)} of a step must be a number, at least {least} and at most {most:.0e}."
                )
        if not (callable(self.retry_on) or _are_classes(self.retry_on)):
            raise DeclarationError(
                f"retry_on={shown(self.retry_on)} of a step must be an exception class, a tuple of them, or a function "
                "that is given the error and answers whether to try again."
            )

    def again(self, attempt: int, error: BaseException) -> bool:
        """Whether a step that failed in this attempt (1 is the first) is tried once more."""
        if attempt > self.retries:
            return False
        if callable(self.retry_on) and not isinstance(self.retry_on, type):
            return self.retry_on(error)
        return isinstance(error, self.retry_on)

    def delay(self, attempt: int, random: Random) -> float:
        """Seconds to wait after this attempt failed; with jitter, somewhere in the upper half."""
        whole = min(self.cap, self.backoff * self.factor ** min(attempt - 1, 64))
        return whole * random.uniform(0.5, 1.0) if self.jitter else whole


def _are_classes(given: Any) -> bool:
    return isinstance(given, tuple) and all(isinstance(it, type) for it in cast("Any", given))
