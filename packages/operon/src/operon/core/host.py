"""What a verb needs of the app it runs in, and what a run needs of the app that executes it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from operon.core.commands import Op

if TYPE_CHECKING:
    from operon.core.codec import Codec
    from operon.core.function import Declared, Function
    from operon.core.rows import Guard
    from operon.core.store import Store

T = TypeVar("T")
Run_contra = TypeVar("Run_contra", contravariant=True)
Branch_contra = TypeVar("Branch_contra", contravariant=True)
"""Who executes runs knows what one is (`journal.Run`); a verb does not ask for it."""


class Opened(Protocol):
    """A transaction that is open on the user's connection."""

    def execute(self, query: str, parameters: Mapping[str, Any]) -> Any:
        """Execute one of the store's named queries in it."""
        ...

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call this once it has committed, if that can be known here."""
        ...


class Host(Protocol):
    """A launched app, or a client of one, seen from a verb."""

    name: str
    codec: Codec
    version: str
    random: Random
    store: Store
    locks: bool
    """Whether the store has a `lock` statement."""
    queues: set[str]
    """The queues that are known to exist."""

    @property
    def executor(self) -> int:
        """This process, as the store knows it."""
        ...

    def executes(self, workflow_id: str) -> bool:
        """Whether it runs in this process: then whoever waits for it here is told of its end."""
        ...

    def clock(self) -> float:
        """Seconds by a clock that only goes forward."""
        ...

    def now(self) -> float:
        """Estimate the store's clock."""
        ...

    def observe(self, now: float) -> None:
        """Learn from an answer what the store's clock shows."""
        ...

    def new_id(self) -> str:
        """Make an id that no other workflow has; later ones sort behind."""
        ...

    def within(self, connection: object) -> Opened:
        """See an open transaction of the caller as one that a start can join."""
        ...

    def reserve(self, function: Function, nonce: int, *, inline: bool) -> int | None:
        """Take a place to run this function here and give this executor's id; None if it cannot run here now.

        Inline, the caller's own thread is the place. Until the start with this nonce is executed, or the place
        released, a row that the store has of it is not taken for a lost one.
        """
        ...

    def release(self, function: Function, nonce: int) -> None:
        """Give a reserved place back unused."""
        ...

    def nudge(self, delay: float = 0.0, *, cancelled: bool = False) -> None:
        """Say that something will be ready in so many seconds, or that something was cancelled."""
        ...

    def replan(self) -> None:
        """Say that a schedule was changed: whoever fires it looks when its next instant is."""
        ...

    def function(self, name: str) -> Function | None:
        """Find what is declared under a recorded name."""
        ...

    def revoke(self, guards: Iterable[Guard]) -> None:
        """Interrupt what was cancelled: once this returns, none of it begins anything here but its clean-up."""
        ...

    def drive(self, op: Op[T]) -> T:
        """Run an operation, blocking this thread."""
        ...

    def adrive(self, op: Op[T]) -> Coroutine[Any, Any, T]:
        """Run an operation, awaited on this loop."""
        ...


class RunHost(Host, Protocol[Run_contra, Branch_contra]):
    """A launched app, seen from a run that it executes."""

    def linger(self, run: Run_contra) -> None:
        """See that what a run has pending is written within a few milliseconds, whatever its body does."""
        ...

    def kill(self, run: Run_contra, cause: BaseException) -> BaseException:
        """End a run from outside: all its verbs raise the first cause given, which is answered."""
        ...

    def on_loop(self, line: Branch_contra) -> bool:
        """Whether it is the line's own task that is executing, here and now."""
        ...

    def step(self, line: Branch_contra, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a step of that line on this thread."""
        ...

    def astep(
        self, line: Branch_contra, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """Run a step of the body that is executing, awaited on this loop."""
        ...
