"""What the decorators return: callables that keep their function's signature and colour, and can be started.

Declarations know their function and, at call time, the launched app; how a call becomes durable is core's affair.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast, get_args, overload
from uuid import uuid4

from msgspec import Struct
from msgspec.structs import replace

from operon.app.versions import spelled
from operon.asynchronous import on_loop
from operon.core import context
from operon.core.apps import locate
from operon.core.codec.hints import signature_of
from operon.core.commands import Op
from operon.core.function import Function, OnDuplicate, Using
from operon.core.given import labels, seconds, whole
from operon.core.host import Host
from operon.core.ids import checked, names
from operon.core.journal import Branch
from operon.core.results import call
from operon.core.steps import step
from operon.core.transactions import transaction
from operon.errors import BadValue, DeclarationError, WrongColour

P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)
M = TypeVar("M", bound=Callable[..., Any])
S = TypeVar("S")

Verb = Callable[[Host, Any, tuple[Any, ...], dict[str, Any]], Op[Any]]


class Launchable:
    """What a function is declared on: an app, or what stands for the app of another process."""

    host: Host | None = None
    """The app as verbs see it, while it is launched."""


class Declaration:
    """A function, the object it is bound to, and the options of one call."""

    verb: Verb

    def __init__(self, function: Function, instance: object | None = None, options: Using | None = None) -> None:
        self.function = function
        self.instance = instance
        self.options = options or Using()
        self.__name__ = getattr(function.fn, "__name__", function.name)
        self.__qualname__ = getattr(function.fn, "__qualname__", function.name)
        self.__module__ = function.module
        self.__doc__ = function.fn.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        """Learn that this is a method: its object is not part of the arguments."""
        self.function.method = True

    def __repr__(self) -> str:
        return repr(self.function)

    @property
    def fn(self) -> Callable[..., Any]:
        """The undecorated function."""
        return self.function.fn

    @property
    def name(self) -> str:
        """Its recorded name."""
        return self.function.name

    @property
    def host(self) -> Host | None:
        """The launched app that this belongs to."""
        home: object = self.function.home  # the core knows only what it needs of it
        return home.host if isinstance(home, Launchable) else None

    @property
    def __signature__(self) -> inspect.Signature:
        """What the caller passes: without the object and the transaction."""
        full = signature_of(self.function.fn)
        hidden = self.function.hidden
        return full.replace(parameters=list(full.parameters.values())[hidden:])

    def of_class(self) -> DeclarationError:
        """Say that it was made a classmethod."""
        return DeclarationError(
            f"{self.name} is called as a classmethod, and a row can name a registered object, but no class. "
            "Make it a staticmethod, with @staticmethod outside."
        )

    def _refuse_class(self, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], type) and self._is_classmethod_of(args[0]):
            raise self.of_class()

    def _op(self, host: Host, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Op[Any]:
        self._refuse_class(args)
        return type(self).verb(host, self, args, kwargs)

    def _is_classmethod_of(self, owner: type) -> bool:
        """From Python 3.13 on a classmethod binds no descriptor, and gives the class as an argument."""
        members: Iterator[object] = (member for base in owner.__mro__ for member in vars(base).values())
        return any(type(it) is classmethod and getattr(cast("Any", it), "__func__", None) is self for it in members)

    def _bound(self, instance: object) -> Self:
        if isinstance(instance, type):
            raise self.of_class()
        return self if instance is None else type(self)(self.function, instance, self.options)

    def _with(self, options: Mapping[str, Any]) -> Self:
        given = {name: value for name, value in options.items() if value is not None}
        return type(self)(self.function, self.instance, replace(self.options, **given))


class Blocking(Declaration):
    """The colour of plain functions."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it here and now, durably."""
        host = locate(self)
        return host.drive(self._op(host, args, kwargs))


def _on_loop(here: Branch) -> bool:
    """Whether an event loop runs on this thread, on which a body is executing."""
    return here.run.host.on_loop(here) or on_loop()


class Awaitable:
    """The `__call__` of an async declaration: refuses, as it is looked up, to be called in a blocking workflow.

    Otherwise the caller would be given a coroutine that nobody awaits. Whoever inspects it sees an async method.
    """

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method

    def __get__(self, declared: Declaration | None, owner: type) -> Callable[..., Any]:
        """Give the method."""
        if declared is not None and (here := context.current()) is not None and not _on_loop(here):
            raise WrongColour(
                f"{declared.name} is async and was called in a blocking workflow; make that one async, too, "
                "or start() it and wait for its result()."
            )
        method: Callable[..., Any] = self._method.__get__(declared, owner)
        return method


def awaitable(method: M) -> M:
    """Mark the `__call__` of an async declaration."""
    return cast("M", Awaitable(method))


class Awaited(Declaration):
    """The colour of async functions."""

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it here and now, durably."""
        host = locate(self)
        return await host.adrive(self._op(host, args, kwargs))


class Call(Struct, Generic[R_co], frozen=True):
    """One call of a workflow, bound to its arguments and not yet made."""

    declared: Declaration
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


Seconds = float | timedelta


class Durable(Declaration, Generic[P, R_co]):
    """What can be started: a workflow or a transaction, of either colour."""

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Call[R_co]:
        """Bind the arguments of a call that is made later, by a plural verb."""
        return Call(self, args, kwargs)

    def using(
        self,
        *,
        key: str | None = None,
        timeout: Seconds | None = None,
        delay: Seconds = 0.0,
        priority: int | None = None,
        partition: str | None = None,
        dedupe: str | None = None,
        on_duplicate: OnDuplicate | None = None,
        attributes: Mapping[str, Any] | None = None,
        user: str | None = None,
        roles: tuple[str, ...] | list[str] | None = None,
        version: str | None = None,
        within: object = None,
    ) -> Self:
        """Give the same callable with options for the calls made through it.

        Args:
            key: the workflow's id; once and only once per key.
            timeout: seconds from the start to the deadline; children inherit it.
            delay: seconds until it may begin.
            priority: in a queue only: higher is sooner; a level is worth a minute of waiting.
            partition: in a queue only: whose share of it: partitions are served in turn.
            dedupe: a key that is free again once the run has ended; of one run in the database, whatever its function.
            on_duplicate: when the key or the dedupe is taken; without either it means nothing. "join" that run if it is
                the same call (KeyConflict if not), take "first" whatever is there, "reject" with Duplicate, or
                "replace" who has the dedupe: cancel it and start anew, in one commit.
            attributes: labels to find it by; JSON values.
            user: on whose behalf; children inherit it.
            roles: the user's roles.
            version: the only code version that may run it.
            within: an open connection or session of the caller: the start commits or rolls back with it.

        Raises:
            BadValue: an option that cannot be meant.
        """
        if on_duplicate not in {None, *get_args(OnDuplicate)}:
            raise BadValue(f"on_duplicate={on_duplicate!r}: there are {', '.join(get_args(OnDuplicate))}.")
        given = {
            "key": None if key is None else checked(key),
            "timeout": None if timeout is None else seconds(timeout, "timeout="),
            "delay": seconds(delay, "delay=") or None,
            "priority": None if priority is None else whole("priority", priority),
            "partition": None if partition is None else (partition and checked(partition)),
            "dedupe": None if dedupe is None else checked(dedupe),
            "on_duplicate": on_duplicate,
            "attributes": None if attributes is None else labels(attributes),
            "user": None if user is None else checked(user, "user=", BadValue),
            "roles": None if roles is None else names(roles, "roles=", "A role"),
            "version": None if version is None else spelled(checked(version, "version=", BadValue)),
            "within": within,
        }
        return self._with(given)


def startable(verb: str, given: object) -> None:
    """See that a verb was given what it can start.

    Raises:
        DeclarationError: it was not.
    """
    if isinstance(method := getattr(given, "__func__", None), Declaration):
        raise method.of_class()
    if not isinstance(given, Durable):
        raise DeclarationError(f"{verb}() takes a workflow or a transaction, and {given!r} is none.")


class Workflow(Durable[P, R_co], Blocking, Generic[P, R_co]):
    """A blocking workflow."""

    verb = staticmethod(call)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Start it, run it here if possible, and give its result; inside a workflow it is a child of that."""
        return cast("R_co", super().__call__(*args, **kwargs))

    @overload
    def __get__(self, instance: None, owner: type, /) -> Workflow[P, R_co]: ...
    @overload
    def __get__(self: Workflow[Concatenate[S, Q], R_co], instance: S, owner: type, /) -> Workflow[Q, R_co]: ...
    def __get__(self, instance: Any, owner: type, /) -> Any:
        """Bind it to an object."""
        return self._bound(instance)


class AsyncWorkflow(Durable[P, R_co], Awaited, Generic[P, R_co]):
    """An async workflow."""

    verb = staticmethod(call)

    @awaitable
    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Start it, run it here if possible, and give its result; inside a workflow it is a child of that."""
        return cast("R_co", await super().__call__(*args, **kwargs))

    @overload
    def __get__(self, instance: None, owner: type, /) -> AsyncWorkflow[P, R_co]: ...
    @overload
    def __get__(
        self: AsyncWorkflow[Concatenate[S, Q], R_co], instance: S, owner: type, /
    ) -> AsyncWorkflow[Q, R_co]: ...
    def __get__(self, instance: Any, owner: type, /) -> Any:
        """Bind it to an object."""
        return self._bound(instance)


class Transaction(Durable[P, R_co], Blocking, Generic[P, R_co]):
    """A blocking transaction: the user's rows and our record in one commit."""

    verb = staticmethod(transaction)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run it: in a workflow as a step of that, elsewhere as a workflow of one commit."""
        return cast("R_co", super().__call__(*args, **kwargs))

    @overload
    def __get__(self, instance: None, owner: type, /) -> Transaction[P, R_co]: ...
    @overload
    def __get__(
        self: Transaction[Concatenate[S, Q], R_co], instance: object, owner: type, /
    ) -> Transaction[Q, R_co]: ...
    def __get__(self, instance: Any, owner: type, /) -> Any:
        """Bind it to an object; the transaction's parameter follows `self`."""
        return self._bound(instance)


class AsyncTransaction(Durable[P, R_co], Awaited, Generic[P, R_co]):
    """An async transaction."""

    verb = staticmethod(transaction)

    @awaitable
    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run it: in a workflow as a step of that, elsewhere as a workflow of one commit."""
        return cast("R_co", await super().__call__(*args, **kwargs))

    @overload
    def __get__(self, instance: None, owner: type, /) -> AsyncTransaction[P, R_co]: ...
    @overload
    def __get__(
        self: AsyncTransaction[Concatenate[S, Q], R_co], instance: object, owner: type, /
    ) -> AsyncTransaction[Q, R_co]: ...
    def __get__(self, instance: Any, owner: type, /) -> Any:
        """Bind it to an object; the transaction's parameter follows `self`."""
        return self._bound(instance)


class Step(Declaration, Generic[P, R_co]):
    """A step: at least once, then never again. Its type keeps the function's colour: an async one is awaited."""

    verb = staticmethod(step)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run it; in a workflow's body its output is recorded, elsewhere it is a plain call."""
        here = context.current()
        if here is None:
            context.admit()
            with context.outside(self.name, str(uuid4())):
                return cast("R_co", self._plain()(*args, **kwargs))
        self._refuse_class(args)
        return cast("R_co", here.run.host.step(here, self, args, kwargs))

    def using(self, *, name: str | None = None, retries: int | None = None, timeout: Seconds | None = None) -> Self:
        """Give the same step with another recorded name, number of retries, or timeout in seconds."""
        given = {
            "name": None if name is None else checked(name, "The name of a step", BadValue),
            "retries": None if retries is None else whole("retries", retries, least=0),
            "timeout": None if timeout is None else seconds(timeout, "timeout="),
        }
        return self._with(given)

    def _plain(self) -> Callable[..., Any]:
        fn = self.function.fn
        return fn if self.instance is None else fn.__get__(self.instance)

    @overload
    def __get__(self, instance: None, owner: type, /) -> Step[P, R_co]: ...
    @overload
    def __get__(self: Step[Concatenate[S, Q], R_co], instance: S, owner: type, /) -> Step[Q, R_co]: ...
    def __get__(self, instance: Any, owner: type, /) -> Any:
        """Bind it to an object."""
        return self._bound(instance)


class AsyncStep(Step[P, R_co], Generic[P, R_co]):
    """An async step, as it runs; its type is that of `Step`."""

    @awaitable
    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:  # type: ignore[override] # R_co is the coroutine
        """Run it; in a workflow's body its output is recorded, elsewhere it is a plain call."""
        here = context.current()
        if here is None:
            context.admit()
            with context.outside(self.name, str(uuid4())):
                return await self._plain()(*args, **kwargs)
        self._refuse_class(args)
        return await here.run.host.astep(here, self, args, kwargs)
