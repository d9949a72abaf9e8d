"""When a failed step is tried again; it must not know clocks, and is given its randomness."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from msgspec import Struct

from operon.errors import DeclarationError

RetryOn = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]


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
        for name, least in (("retries", 0), ("backoff", 0), ("factor", 1), ("cap", 0)):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and value >= least):
                raise DeclarationError(f"{name}={value!r} of a step must be a number, at least {least}.")

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
