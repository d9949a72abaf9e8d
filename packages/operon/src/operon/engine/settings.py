"""How an engine behaves: data that an app can make without the engine; it must not know what any of it does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How an engine behaves; durations in seconds."""

    threads: int = 64
    tasks: int = 1000
    grace: float = 1.0
    """How long a wait stays in the process before its run is parked."""
    ttl: float = 15.0
    """How long an executor's lease lasts; it is renewed every fifth of that."""
    poison: int = 5
    cleanup: float = 60.0
    run: bool = True
    only: tuple[str, ...] | None = None
    """The queues it runs; None is all that its program declares."""
