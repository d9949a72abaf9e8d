"""The apps that are launched in this process: which of them a verb means, and how all hear of a cancellation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from operon.core import context
from operon.core.host import Host
from operon.errors import AmbiguousApp, NotLaunched, WrongDatabase

if TYPE_CHECKING:
    from operon.core.journal import Run
    from operon.core.rows import Guard
    from operon.core.store import Store

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
    if here is not None:
        if host is None or _same(host.store, here.run.host.store):
            return here.run.host
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
