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
def outside(name: str, key: str) -> Generator[None]:
    """Run a step that no workflow is around: once, unrecorded, under a key that is nobody else's."""
    if step.get() is not None or branch.get() is not None:
        yield
        return
    token = step.set(Step(name, "", 1, key))
    try:
        yield
    finally:
        step.reset(token)


def copied() -> Context:
    """Copy everything ambient, for a thread that works for this one."""
    return copy_context()


def snapshot() -> Where:
    """Tell where this code runs: in which workflow, step and attempt, and on whose behalf.

    In a step outside a workflow the id is None and the key is fresh.

    Raises:
        NotInWorkflow: this is neither a workflow nor a step.
    """
    here, doing = branch.get(), step.get()
    if here is None and doing is None:
        raise NotInWorkflow("context() was called outside of any workflow or step.")
    row = here.run.row if here is not None else None
    return Where(
        workflow_id=row.id if row else None,
        step=doing.name if doing else None,
        attempt=doing.attempt if doing else 1,
        idempotency_key=doing.idempotency_key if doing else (row.id if row else ""),
        user=row.user if row else None,
        roles=row.roles if row else (),
    )
