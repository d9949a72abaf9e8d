"""Workflows of other processes: a recorded name and a signature, to start what this process cannot run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from operon.app.declarations import AsyncWorkflow, Launchable, Workflow
from operon.core.codec import Codec
from operon.core.function import Function, Rules
from operon.core.ids import checked
from operon.errors import BadValue, DeclarationError

if TYPE_CHECKING:
    from operon.core.commands import Op
    from operon.core.ledger import Done, Ledger, Work

P = ParamSpec("P")
R = TypeVar("R")


class RemoteDecorator(Protocol):
    """What `remote(...)` gives."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncWorkflow[P, R]: ...  # type: ignore[overload-overlap] # a coroutine is a result, too
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Workflow[P, R]: ...


class RemoteHome(Launchable):
    """The home of functions that another process has: values can be recorded for them, and nothing be run."""

    pin = False
    raises: tuple[type[BaseException], ...] = ()

    def __init__(self) -> None:
        self.codec = Codec()

    def declared(self, function: Function) -> None:
        """Belong here."""
        function.home = self

    def remembers(self, function: Function) -> bool:
        """Whose database it is, is known where it runs."""
        raise DeclarationError(_elsewhere(function.name))

    def transact(self, function: Function, work: Work, ledger: Ledger | None) -> Op[Done]:
        """Refuse."""
        del work, ledger
        raise DeclarationError(_elsewhere(function.name))

    def instance(self, name: str) -> object:
        """Refuse."""
        raise DeclarationError(_elsewhere(name))

    def instance_name(self, instance: object) -> str:
        """Refuse."""
        raise DeclarationError(_elsewhere(type(instance).__qualname__))


HOME = RemoteHome()


def remote(name: str) -> RemoteDecorator:
    """Declare a workflow or transaction whose code is elsewhere, to start it through a client with checked types.

    The decorated function is its signature; its body is never run.

    Args:
        name: its recorded name there, such as `"billing.invoice"`.
    """

    def declare(fn: Callable[..., Any]) -> Any:
        function = _abroad(name, fn)
        kind: type[AsyncWorkflow[..., Any] | Workflow[..., Any]] = AsyncWorkflow if function.asynchronous else Workflow
        return kind(function)

    return declare


def named(name: str, arguments: Iterable[str]) -> Workflow[..., Any]:
    """Give a workflow of this recorded name which takes arguments of these names, and any values."""

    def elsewhere(**_: Any) -> Any:
        raise DeclarationError(_elsewhere(name))

    elsewhere.__qualname__ = elsewhere.__name__ = name
    vars(elsewhere)["__signature__"] = Signature([Parameter(each, Parameter.KEYWORD_ONLY) for each in arguments])
    return Workflow(_abroad(name, elsewhere))


def _abroad(name: str, fn: Callable[..., Any]) -> Function:
    if not inspect.isroutine(fn):
        raise DeclarationError(f"remote({name!r}) decorates a function, which says what arguments there are.")
    function = Function(fn, "workflow", checked(name, "The name of a workflow", BadValue), Rules())
    HOME.declared(function)
    return function


def _elsewhere(name: str) -> str:
    return f"{name} is declared in another process; start it through a Client."
