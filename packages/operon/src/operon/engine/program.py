"""What the engine runs, and what it may ask of it; it must not know who declared it, nor how."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from operon.core.codec import Codec
from operon.core.function import Function
from operon.core.host import Opened
from operon.core.rows import Limits
from operon.core.schedules import Definition

T = TypeVar("T")


class Program(Protocol):
    """What the engine runs: the app, as its declarations made it."""

    name: str
    codec: Codec

    @property
    def version(self) -> str:
        """The version of the code."""
        ...

    @property
    def functions(self) -> Mapping[str, Function]:
        """The declared functions by recorded name, aliases included."""
        ...

    @property
    def limits(self) -> Mapping[str, Limits]:
        """The declared queues, and their limits."""
        ...

    @property
    def timetable(self) -> Sequence[Definition]:
        """The declared schedules."""
        ...

    def instances(self) -> tuple[str, ...]:
        """The names of the registered objects."""
        ...

    def within(self, connection: object) -> Opened:
        """See an open transaction of the caller."""
        ...

    def around(self, body: Callable[[], T]) -> T:
        """Run one execution inside what the app puts around each."""
        ...

    @property
    def awaits(self) -> bool:
        """Whether `enter` needs an event loop."""
        ...

    def enter(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Enter what lives as long as the launched app, before anything is claimed."""
        ...

    def leave(self, seconds: float) -> None:
        """Leave it, after the drain; what is left on a loop is waited for so long. Harmless when it was not entered."""
        ...
