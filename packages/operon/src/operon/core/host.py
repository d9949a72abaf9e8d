"""What a verb needs of the process it runs in, and which process-wide apps there are."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from operon.core import context
from operon.core.commands import Op
from operon.errors import AmbiguousApp, NotLaunched, WrongDatabase

if TYPE_CHECKING:
    from operon.core.codec import Codec
    from operon.core.function import Declared, Function
    from operon.core.journal import Branch, Run
    from operon.core.rows import Guard
    from operon.core.store import Store

T = TypeVar("T")


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

    def linger(self, run: Run) -> None:
        """See that what a run has pending is written within a few milliseconds, whatever its body does."""
        ...

    def kill(self, run: Run, cause: BaseException) -> BaseException:
        """End a run from outside: all its verbs raise the first cause given, which is answered."""
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

    def astep(
        self, line: Branch, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """Run a step of the body that is executing, awaited on this loop."""
        ...


launched: list[Host] = []
"""The apps that are launched in this process."""


def cancelled(host: Host, guards: Iterable[Guard]) -> None:
    """Tell all who may run it that something was cancelled: every app of this process now, others by a word."""
    claims = tuple(guards)
    for each in dict.fromkeys((*launched, host)):
        each.revoke(claims)
    host.nudge(cancelled=True)


def elsewhere(run: Run) -> WrongDatabase:
    """Say that a body asks what its workflow's database cannot record."""
    return WrongDatabase(
        f"{run.id} asks a client, or an app on another database, in the body of a workflow: its own database cannot "
        "record that. Do it in a step. What is in the workflow's own database, the verbs of `operon` and `operon.aio` "
        "ask, and that is recorded."
    )


def _same(one: Store, other: Store) -> bool:
    return one is other or (one.url == other.url and one.dialect != "memory")


def locate(owner: object = None) -> Host:
    """Say which app a verb means: that of the running workflow, else the owner's, else the only one launched.

    Raises:
        NotLaunched: none is.
        AmbiguousApp: several are.
        WrongDatabase: it is the body of a workflow, and the owner is of an app on another database.
    """
    host: Host | None = getattr(owner, "host", None)
    here = context.branch()
    if here is not None and (mine := here.run.host) is not None:
        if host is None or _same(host.store, mine.store):
            return mine
        if context.current() is not None:
            raise elsewhere(here.run)
    if host is not None:
        return host
    if len(launched) == 1 and owner is None:
        return launched[0]
    if owner is not None or not launched:
        raise NotLaunched("No app is launched here: wrap the call in `with app:` (or `async with app:`).")
    names = ", ".join(host.name for host in launched)
    raise AmbiguousApp(f"Several apps are launched ({names}); pass one of their functions, or run inside a workflow.")
