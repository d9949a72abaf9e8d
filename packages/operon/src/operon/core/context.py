"""Where the code is: in which branch of which run, in which step, in which transaction; nothing else is ambient."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any

from msgspec import Struct

from operon.core.journal import Branch
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


branch: ContextVar[Branch | None] = ContextVar("operon_branch", default=None)
step: ContextVar[Step | None] = ContextVar("operon_step", default=None)
transaction: ContextVar[Any] = ContextVar("operon_transaction", default=None)
"""The open transaction of the user, as its datasource made it."""


def current() -> Branch | None:
    """Give the branch whose body is running; None outside a workflow and inside a step or transaction."""
    return None if step.get() is not None or transaction.get() is not None else branch.get()


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


@contextmanager
def doing(what: Step) -> Generator[None]:
    """Run the function of a step, or of a transaction."""
    token = step.set(what)
    try:
        yield
    finally:
        step.reset(token)


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
