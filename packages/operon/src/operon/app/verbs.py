"""The verbs as a user calls them: each finds its app and drives core's generator, blocking or awaited.

A verb is bound to its colour here, once; `operon/__init__.py` and `operon/aio.py` list them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from operon.app.declarations import Call, Declaration, Durable, startable
from operon.app.queues import Queue
from operon.core import asking, results
from operon.core.apps import locate
from operon.core.commands import Op
from operon.core.host import Host
from operon.core.results import Handle

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
OWNED: tuple[type, ...] = (Declaration, Handle, Queue)
"""What belongs to an app, and says so."""


def blocking(verb: Callable[Concatenate[Host, P], Op[T]]) -> Callable[P, T]:
    """Make the blocking verb."""

    @wraps(verb)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        host = locate(_owner(args))
        return host.drive(verb(host, *args, **kwargs))

    return _seen(call, verb)


def awaited(verb: Callable[Concatenate[Host, P], Op[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make the awaited verb."""

    @wraps(verb)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        host = locate(_owner(args))
        return await host.adrive(verb(host, *args, **kwargs))

    return _seen(call, verb)


def _seen(call: F, verb: Callable[..., Any]) -> F:
    """Let `help()` show what the caller passes: not the host."""
    signature = inspect.signature(verb)
    vars(call)["__signature__"] = signature.replace(parameters=[*signature.parameters.values()][1:])
    return call


def start(host: Host, workflow: Durable[Q, R], /, *args: Q.args, **kwargs: Q.kwargs) -> Op[Handle[R]]:
    """Start a workflow or transaction in the background: once this returns, it will end, whatever crashes.

    In a workflow it becomes a child; in a transaction it starts when that commits.

    Raises:
        KeyConflict: the key of `.using(key=...)` names other work.
        Duplicate: the key is taken, and `on_duplicate="reject"`.
        NotSerializable: an argument cannot be recorded.
        DeclarationError: a step, or a function that is not declared.
    """
    startable("start", workflow)
    return results.start(host, workflow, args, kwargs)


def retrieve(host: Host, workflow_id: str, of: Durable[..., R] | None = None, /) -> Op[Handle[R]]:
    """Give the handle of a workflow that was started before.

    Args:
        workflow_id: its id.
        of: the workflow it runs; gives the handle its type.

    Raises:
        NotFound: no workflow has this id.
    """
    return asking.retrieve(host, workflow_id, of)


def _owner(args: tuple[Any, ...]) -> object:
    """Find the argument that says which app is meant; what only gives a handle its type need not be launched."""
    first: object
    second: object
    third: object
    first, second, third = (*args, None, None, None)[:3]
    for each in (first, third.declared if isinstance(third, Call) else third):
        if isinstance(each, OWNED):
            return each
    return second if isinstance(second, Declaration) and second.host is not None else None
