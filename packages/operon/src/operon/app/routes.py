"""Declaring functions: the decorators that an app and its parts share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from operon.app.declarations import (
    AsyncStep,
    AsyncTransaction,
    AsyncWorkflow,
    Declaration,
    Launchable,
    Seconds,
    Step,
    Transaction,
    Workflow,
)
from operon.app.endpoints import Endpoint, Endpoints, refuse_served
from operon.app.names import Names
from operon.app.options import rules_of
from operon.app.schedules import Timetable
from operon.core.batches import ItemFunction
from operon.core.codec.hints import signature_of
from operon.core.function import Function, FunctionKind
from operon.core.ids import checked
from operon.core.ledger import Isolation
from operon.core.retention import Keep
from operon.core.retry import RetryOn
from operon.errors import DeclarationError

if TYPE_CHECKING:
    from operon.core.function import Home
    from operon.core.schedules import Definition

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")
Tx = TypeVar("Tx")
CLASSES: dict[tuple[FunctionKind, bool], type[Declaration]] = {
    ("workflow", False): Workflow,
    ("workflow", True): AsyncWorkflow,
    ("transaction", False): Transaction,
    ("transaction", True): AsyncTransaction,
    ("step", False): Step,
    ("step", True): AsyncStep,
}


class WorkflowDecorator(Protocol):
    """What `workflow(...)` with options gives."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncWorkflow[P, R]: ...  # type: ignore[overload-overlap] # a coroutine is a result, too
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Workflow[P, R]: ...


class BatchDecorator(Protocol):
    """What `workflow(batch=...)` gives: of a function of a list it makes a workflow of one item."""

    @overload
    def __call__(self, fn: Callable[[list[T]], Coroutine[Any, Any, list[R]]], /) -> AsyncWorkflow[[T], R]: ...
    @overload
    def __call__(self, fn: Callable[[list[T]], Coroutine[Any, Any, None]], /) -> AsyncWorkflow[[T], None]: ...
    @overload
    def __call__(self, fn: Callable[[list[T]], list[R]], /) -> Workflow[[T], R]: ...
    @overload
    def __call__(self, fn: Callable[[list[T]], None], /) -> Workflow[[T], None]: ...
    @overload
    def __call__(self, fn: Callable[[S, list[T]], Coroutine[Any, Any, list[R]]], /) -> AsyncWorkflow[[S, T], R]: ...
    @overload
    def __call__(self, fn: Callable[[S, list[T]], list[R]], /) -> Workflow[[S, T], R]: ...


class TransactionDecorator(Protocol):
    """What `transaction(...)` with options gives."""

    @overload
    def __call__(self, fn: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> AsyncTransaction[P, R]: ...  # type: ignore[overload-overlap] # a coroutine is a result, too
    @overload
    def __call__(self, fn: Callable[Concatenate[Any, P], R], /) -> Transaction[P, R]: ...


class StepDecorator(Protocol):
    """What `step(...)` with options gives."""

    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]:
        """Declare the step."""
        ...


class Routes(Endpoints, Timetable):
    """A part of an app: declares functions under a common prefix, and is included by the app."""

    def __init__(self, prefix: str = "") -> None:
        Endpoints.__init__(self)
        Timetable.__init__(self)
        self.prefix = f"{prefix}." if prefix else ""
        self._own: list[Function] = []
        self._parts: list[Routes] = []
        self.names = Names()
        """The recorded names that are taken here."""
        self._home: Home | None = None

    def __repr__(self) -> str:
        return f"<Routes {self.prefix.removesuffix('.')!r}>"

    # ── Workflows ────────────────────────────────────────────────────────────────────────────────────────────────────

    @overload
    def workflow(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncWorkflow[P, R]: ...  # type: ignore[overload-overlap] # a coroutine is a result, too
    @overload
    def workflow(self, fn: Callable[P, R], /) -> Workflow[P, R]: ...
    @overload
    def workflow(
        self,
        /,
        *,
        name: str | None = None,
        timeout: Seconds | None = None,
        raises: Sequence[type[BaseException]] = (),
        aliases: Sequence[str] = (),
        roles: Sequence[str] = (),
        pin: bool | None = None,
        keep: Keep = ...,
    ) -> WorkflowDecorator: ...
    @overload
    def workflow(
        self,
        /,
        *,
        batch: int,
        batch_wait: Seconds = 1.0,
        name: str | None = None,
        timeout: Seconds | None = None,
        raises: Sequence[type[BaseException]] = (),
        aliases: Sequence[str] = (),
        roles: Sequence[str] = (),
        pin: bool | None = None,
        keep: Keep = ...,
    ) -> BatchDecorator: ...
    def workflow(self, fn: Any = None, /, **options: Any) -> Any:
        """Declare a workflow: it resumes after any crash at its last recorded step.

        Args:
            fn: the function; sync or async, its signature is kept.
            name: its recorded name, instead of the function's qualified name.
            timeout: seconds from the start to the deadline.
            raises: errors of other packages that are recorded as themselves.
            aliases: names under which older rows know it.
            roles: a user on whose behalf it runs needs one of these roles, whenever it is started or taken up again.
            pin: run a row only on the code version that started it; the app's setting by default.
            keep: how long its workflows' records are kept once they have ended, as `Operon(keep=)`; the app's setting
                for outcomes that are not named.
            batch: the function takes a list of up to so many items, and gives a list with a result for each, or None;
                callers enqueue single items, each a workflow of its own.
            batch_wait: seconds after which a batch of a queue begins that is not full; 1 by default.

        Raises:
            DeclarationError: a generator, a second function of this name, or decorators in another order.
        """
        return self._declare("workflow", fn, options=options)

    # ── Transactions ─────────────────────────────────────────────────────────────────────────────────────────────────

    @overload
    def transaction(self, fn: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> AsyncTransaction[P, R]: ...  # type: ignore[overload-overlap] # a coroutine is a result, too
    @overload
    def transaction(self, fn: Callable[Concatenate[Any, P], R], /) -> Transaction[P, R]: ...
    @overload
    def transaction(
        self,
        /,
        *,
        isolation: Isolation = "serializable",
        read_only: bool = False,
        datasource: str | None = None,
        name: str | None = None,
        raises: Sequence[type[BaseException]] = (),
        aliases: Sequence[str] = (),
        roles: Sequence[str] = (),
        keep: Keep = ...,
    ) -> TransactionDecorator: ...
    def transaction(self, fn: Any = None, /, **options: Any) -> Any:
        """Declare a transaction: the user's rows and our record are one commit, so it happens exactly once.

        The type of the first parameter says what it gets, and which driver is used; the caller does not pass it.

        Args:
            fn: the function; sync or async, its signature without the first parameter is kept.
            isolation: the transaction's isolation level.
            read_only: the transaction writes nothing.
            datasource: the name of another database of the app's.
            name: its recorded name, instead of the function's qualified name.
            raises: errors of other packages that are recorded as themselves.
            aliases: names under which older rows know it.
            roles: a user on whose behalf it runs needs one of these roles, whenever it is started or taken up again.
            keep: how long its records are kept where it is a workflow of its own, as `Operon(keep=)`; the app's setting
                for outcomes that are not named.

        Raises:
            DeclarationError: a generator, a second function of this name, or decorators in another order.
        """
        return self._declare("transaction", fn, options=options)

    # ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @overload
    def step(self, fn: Callable[P, R], /) -> Step[P, R]: ...
    @overload
    def step(
        self,
        /,
        *,
        retries: int = 0,
        backoff: float = 1.0,
        factor: float = 2.0,
        cap: float = 3600.0,
        jitter: bool = True,
        timeout: Seconds | None = None,
        retry_on: RetryOn = Exception,
        raises: Sequence[type[BaseException]] = (),
        ignore: Sequence[str] = (),
        name: str | None = None,
    ) -> StepDecorator: ...
    def step(self, fn: Any = None, /, **options: Any) -> Any:
        """Declare a step: at least once, then never again, for its output is recorded.

        Args:
            fn: the function; sync or async, its signature and colour are kept.
            retries: further attempts after the first; they survive a crash.
            backoff: seconds before the first retry.
            factor: how much longer each further wait is.
            cap: the longest wait, in seconds.
            jitter: spread the waits.
            timeout: seconds after which an attempt fails with StepTimedOut; a blocking one is abandoned.
            retry_on: errors, or a test of the error, that are worth another attempt.
            raises: errors of other packages that are recorded as themselves.
            ignore: parameters that are neither recorded nor compared, such as clients and sessions.
            name: its recorded name, instead of the function's qualified name.

        Raises:
            DeclarationError: a generator, a second function of this name, or an option that cannot be meant.
        """
        return self._declare("step", fn, options=options)

    # ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def include(self, part: Routes) -> None:
        """Take in the functions of a part, those declared later too; to say it twice is harmless.

        Raises:
            DeclarationError: a function of that name is there, or the part is included elsewhere.
        """
        if part in self._parts:
            return
        if part.names.outer is not None or not part.free or part.names in self.names.outwards():
            raise DeclarationError(f"{part!r} has its place already; declare another Routes(...) for this one.")
        functions = tuple(part.each())
        for function in functions:
            self.names.refuse_second(function)
        for function in functions:
            self.names.add(function)
        part.names.outer = self.names
        part.settle(self._home)
        self._parts.append(part)

    def each(self) -> Iterator[Function]:
        """Every function of this part and of those that it includes, once."""
        yield from self._own
        for part in self._parts:
            yield from part.each()

    def endpoints(self) -> Iterator[Endpoint]:
        """Every endpoint of this part and of those that it includes."""
        yield from super().endpoints()
        for part in self._parts:
            yield from part.endpoints()

    def definitions(self) -> Iterator[Definition]:
        """Every schedule of this part and of those that it includes."""
        yield from super().definitions()
        for part in self._parts:
            yield from part.definitions()

    @property
    def launched(self) -> bool:
        """Whether the app that this belongs to is launched."""
        home: object = self._home
        return isinstance(home, Launchable) and home.host is not None

    @property
    def free(self) -> bool:
        """Whether this belongs to no app yet."""
        return self._home is None

    def settle(self, home: Home | None) -> None:
        """Give every function its app."""
        self._home = home
        for function in self._own:
            function.home = home
            if home is not None:
                home.declared(function)
        for part in self._parts:
            part.settle(home)

    # ── Declaring ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _declare(self, kind: FunctionKind, fn: Any, *, options: dict[str, Any]) -> Any:
        if fn is None:
            return partial(self._declare, kind, options=options)
        _refuse(kind, fn)
        options = dict(options)
        name = options.pop("name", None)
        recorded = self.prefix + _own_name(kind, fn) if name is None else name
        rules = rules_of(kind, fn, options)
        function = Function(fn, kind, recorded, rules) if rules.batch is None else ItemFunction(fn, recorded, rules)
        for each in function.names:
            checked(each, f"The name of a {kind}", DeclarationError)
        if kind == "transaction" and not _leading(fn):
            raise DeclarationError(f"{function.name} needs a first parameter: the connection or session it is given.")
        for it in function.all:
            self._add(it)
        return CLASSES[kind, function.asynchronous](function)

    def _add(self, function: Function) -> None:
        function.home = self._home
        self.names.refuse_second(function)
        if self._home is None or function.name not in self.names:
            self.names.add(function)
            self._own.append(function)
            if self._home is not None:
                self._home.declared(function)


def _refuse(kind: FunctionKind, fn: Any) -> None:
    """Say what stands in the wrong order, or cannot be declared at all."""
    if isinstance(fn, Declaration):
        raise DeclarationError(
            f"{fn.name} is a {fn.function.kind} already; one function has one kind. Declare the inner part apart."
        )
    if isinstance(fn, staticmethod):
        raise DeclarationError(f"@staticmethod goes outside: write it above the {kind}'s decorator.")
    if isinstance(fn, classmethod):
        raise DeclarationError(
            f"A classmethod cannot be a {kind}: a row names a registered object, and a class is none. Make it a method "
            "of an object that app.register(...) knows, or a staticmethod, with @staticmethod outside."
        )
    if not callable(fn) or isinstance(fn, type):
        raise DeclarationError(f"{kind} decorates a function, and {fn!r} is none; HTTP decorators go outside.")
    refuse_served(fn)


def _own_name(kind: FunctionKind, fn: Any) -> str:
    name: object = getattr(fn, "__qualname__", None)
    if not isinstance(name, str):
        raise DeclarationError(f"{fn!r} has no name of its own to be recorded by: write {kind}(name=...).")
    return name


def _leading(fn: Callable[..., Any]) -> bool:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(parameter.kind in kinds for parameter in signature_of(fn).parameters.values())
