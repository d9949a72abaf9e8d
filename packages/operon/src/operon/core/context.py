"""Where the code is: in which branch of which run, in which step, in which transaction; nothing else is ambient."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import Context, ContextVar, Token, copy_context
from typing import Any, NoReturn

from msgspec import Struct

from operon.core.codec.foreign import refuse_verbs
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


class Stray(Struct, frozen=True):
    """Code that the body of a workflow sent where nothing of it can be recorded."""

    where: str
    run: Run | None = None
    """Whose body it was, unless this is another process."""


class Place(Struct, frozen=True):
    """Where code is, in one look: all of it changes together, and none of it is inherited but by a copied context."""

    branch: Branch | None = None
    step: Step | None = None
    transaction: Any = None
    """The open transaction of the user, as its datasource made it."""
    driving: bool = False
    """Whether a verb of the branch is under way, so that what its thread does is not the body's code."""


place: ContextVar[Place] = ContextVar("operon_place", default=Place())  # noqa: B039 - it is frozen
stray: ContextVar[Stray | None] = ContextVar("operon_stray", default=None)


def branch() -> Branch | None:
    """Give the branch that this is done for; a context may be taken along to a thread that has one of its own."""
    here = place.get().branch
    return here if here is None or here.stand_in is None else here.stand_in(here)


def step() -> Step | None:
    """Give the step whose function is running."""
    return place.get().step


def transaction() -> Any:
    """Give the transaction that is open."""
    return place.get().transaction


def current() -> Branch | None:
    """Give the branch whose body is running; None outside a workflow and inside a step or transaction."""
    now = place.get()
    here = now.branch
    if here is None or now.step is not None or now.transaction is not None:
        return None
    return here if here.stand_in is None else here.stand_in(here)


def body() -> Branch | None:
    """Give the branch whose own code this is; None in a verb that it called, too."""
    here = current()
    return None if here is None or place.get().driving else here


def admit() -> None:
    """Refuse verbs where a workflow's body sent its code and nothing of it can be recorded.

    Raises:
        NotInWorkflow: this is such a place.
    """
    here = stray.get()
    if here is not None and branch() is None and step() is None:
        refuse(here)


def refuse(here: Stray) -> NoReturn:
    """Refuse a verb, and end the run whose body it was: the workflow is held, for a person to mend its code."""
    run = here.run
    error = NotInWorkflow(
        f"{'A workflow' if run is None else run.id} calls Operon {here.where}, where nothing can be recorded. In the "
        "body of a workflow, use a ThreadPoolExecutor, asyncio.to_thread, aio.call or tasks of asyncio: what is done "
        "there is recorded. Or do all of it in one step."
    )
    if run is not None and run.dead is None:
        run.host.kill(run, error)
    raise error


def within_workflow(verb: str) -> Branch:
    """Give the running branch.

    Raises:
        NotInWorkflow: there is none, or a step or transaction is running in it.
    """
    here = current()
    if here is None:
        where = "inside a step or transaction" if branch() is not None else "outside a workflow"
        raise NotInWorkflow(f"{verb}() was called {where}; call it in the body of a workflow.")
    here.run.check()
    return here


class at:  # noqa: N801 - it reads as where something is done: `with at(place):`
    """What is done here is done at another place."""

    __slots__ = ("_place", "_token")

    def __init__(self, there: Place) -> None:
        self._place = there

    def __enter__(self) -> None:
        """Begin."""
        self._token = place.set(self._place)

    def __exit__(self, *_failure: object) -> None:
        """End."""
        back(self._token)


def back(token: Token[Place]) -> None:
    """Be where one was before; whoever closes a coroutine that was left has a context of its own, and is nowhere."""
    try:
        place.reset(token)
    except ValueError:
        return


def doing(what: Step) -> at:
    """The function of a step, or of a transaction, runs."""
    here = place.get()
    return at(Place(here.branch, what, here.transaction, here.driving))


def transacting(what: object) -> at:
    """A transaction is open."""
    here = place.get()
    return at(Place(here.branch, here.step, what, here.driving))


def within(line: Branch | None) -> at:
    """What is done is done for this branch."""
    here = place.get()
    return at(Place(line, here.step, here.transaction, here.driving))


@contextmanager
def outside(name: str, key: str) -> Generator[None]:
    """Run a step that no workflow is around: once, unrecorded, under a key that is nobody else's.

    Raises:
        NotInWorkflow: code that the codec calls asks for it.
    """
    refuse_verbs()
    if step() is not None or branch() is not None:
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
    here, now = branch(), step()
    row = None if here is None else here.run.row
    if now is None:
        if row is None:
            raise NotInWorkflow("context() was called outside of any workflow, step or transaction.")
        return Where(row.id, None, 1, row.id, row.user, row.roles)
    if row is None or now.workflow_id is not None:
        return Where(now.workflow_id, now.name, now.attempt, now.idempotency_key, now.user, now.roles)
    return Where(row.id, now.name, now.attempt, now.idempotency_key, row.user, row.roles)
