"""Where the code is: in which branch of which run, in which step, in which transaction; nothing else is ambient."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from operon.core.journal import Branch
from operon.errors import NotInWorkflow


@dataclass(frozen=True, slots=True)
class Step:
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
