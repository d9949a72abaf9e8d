"""How an engine behaves: data that an app can make without the engine; it must not know what any of it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from operon.core.states import Status


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
    keep: Mapping[Status, float | None] = field(default_factory=dict[Status, "float | None"])
    """How many seconds the record of an outcome is kept, where its function does not say; None is for ever."""
    keep_keys: float | None = None
    """How many seconds after its end a workflow's key is known; None is for ever."""
