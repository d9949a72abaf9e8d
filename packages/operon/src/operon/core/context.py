"""Where the code is: in which branch of which run, in which step, in which transaction; nothing else is ambient."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import Context, ContextVar, Token, copy_context
from typing import Any, NoReturn

from msgspec import Struct

from operon.core.journal import Branch, Run
from operon.errors import NotInWorkflow
from operon.types import Context as Where


class Step(Struct, frozen=True):
    """The step whose function is running."""

    name: str
    position: str
    attempt: int
    idempotency_key: str
    workflow_id: str | None = None
    """That, and on whose behalf, where no run says it: in a transaction that is a workflow of its own."""
    user: str | None = None
    roles: tuple[str, ...] = ()


class Here:
    """In which branch the code is, by its context and its thread."""

    def __init__(self) -> None:
        self.known: ContextVar[Branch | None] = ContextVar("operon_branch", default=None)

    def get(self) -> Branch | None:
        """Give the branch; a context may have been taken along to a thread that has a branch of its own."""
        known = self.known.get()
        return known if known is None or known.stand_in is None else known.stand_in(known)

    def set(self, here: Branch | None) -> Token[Branch | None]:
        """Be in this branch from here on, in this context."""
        return self.known.set(here)

    def reset(self, token: Token[Branch | None]) -> None:
        """Be where one was before."""
        self.known.reset(token)


class Stray(Struct, frozen=True):
    """Code that the body of a workflow sent where nothing of it can be recorded."""

    where: str
    run: Run | None = None
    """Whose body it was, unless this is another process."""


branch = Here()
stray: ContextVar[Stray | None] = ContextVar("operon_stray", default=None)
driving: ContextVar[bool] = ContextVar("operon_driving", default=False)
"""Whether a verb of the branch is under way, so that what its thread does is not the body's code."""
step: ContextVar[Step | None] = ContextVar("operon_step", default=None)
transaction: ContextVar[Any] = ContextVar("operon_transaction", default=None)
"""The open transaction of the user, as its datasource made it."""


def current() -> Branch | None:
    """Give the branch whose body is running; None outside a workflow and inside a step or transaction."""
    here = branch.known.get()
    if here is None or step.get() is not None or transaction.get() is not None:
        return None
    return here if here.stand_in is None else here.stand_in(here)


def body() -> Branch | None:
    """Give the branch whose own code this is; None in a verb that it called, too."""
    here = current()
    return None if here is None or driving.get() else here


def admit() -> None:
    """Refuse verbs where a workflow's body sent its code and nothing of it can be recorded.

    Raises:
        NotInWorkflow: this is such a place.
    """
    here = stray.get()
    if here is not None and branch.get() is None and step.get() is None:
        refuse(here)


def refuse(here: Stray) -> NoReturn:
    """Refuse a verb, and end the run whose body it was: the workflow is held, for a person to mend its code."""
    run = here.run
    error = NotInWorkflow(
        f"{'A workflow' if run is None else run.id} calls Operon {here.where}, where nothing can be recorded. In the "
        "body of a workflow, use a ThreadPoolExecutor, asyncio.to_thread, aio.call or tasks of asyncio: what is done "
        "there is recorded. Or do all of it in one step."
    )
    if run is not None and run.dead is None and run.host is not None:
        run.host.kill(run, error)
    raise error


def within_workflow(verb: str) -> Branch:
    """Give the running branch.

    Raises:
        NotInWorkflow: there is none, or a step or transaction is running in it.
    """
    here = current()
    if here is None:
        where = "inside a step or transaction" if branch.get() is not None else "outside a workflow"
        raise NotInWorkflow(f"{verb}() was called {where}; call it in the body of a workflow.")
    here.run.check()
    return here


class doing:  # noqa: N801 - it reads as what is done: `with doing(what):`
    """The function of a step, or of a transaction, runs."""

    __slots__ = ("_token", "_what")

    def __init__(self, what: Step) -> None:
        self._what = what

    def __enter__(self) -> None:
        """Begin."""
        self._token = step.set(self._what)

    def __exit__(self, *_failure: object) -> None:
        """End."""
        step.reset(self._token)


@contextmanager
def outside(name: str, key: str) -> Generator[None]:
    """Run a step that no workflow is around: once, unrecorded, under a key that is nobody else's."""
    if step.get() is not None or branch.get() is not None:
        yield
        return
    with doing(Step(name, "", 1, key)):
        yield


def copied() -> Context:
    """Copy everything ambient, for a thread that works for this one."""
    return copy_context()


def snapshot() -> Where:
    """Tell where this code runs: in which workflow, step and attempt, and on whose behalf.

    In a step outside a workflow the id is None and the key is fresh.

    Raises:
        NotInWorkflow: this is neither a workflow nor a step or a transaction.
    """
    here, now = branch.get(), step.get()
    row = None if here is None else here.run.row
    if now is None:
        if row is None:
            raise NotInWorkflow("context() was called outside of any workflow, step or transaction.")
        return Where(row.id, None, 1, row.id, row.user, row.roles)
    if row is None or now.workflow_id is not None:
        return Where(now.workflow_id, now.name, now.attempt, now.idempotency_key, now.user, now.roles)
    return Where(row.id, now.name, now.attempt, now.idempotency_key, row.user, row.roles)
