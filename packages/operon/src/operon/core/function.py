"""A declared function: its recorded name, its colour, its arguments, and how its rows are read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

from msgspec import Struct, field

from operon.core.codec import Codec, Signature
from operon.core.codec.hints import signature_of
from operon.core.ledger import Isolation
from operon.core.retry import Retry
from operon.core.states import Status
from operon.errors import DeclarationError, Forbidden, NotLaunched

if TYPE_CHECKING:
    from operon.core.commands import Op
    from operon.core.ledger import Done, Ledger, Work

FunctionKind = Literal["workflow", "transaction", "step"]


class Home(Protocol):
    """The app, or the routes, that a function is declared on."""

    codec: Codec
    pin: bool
    """Whether rows run only on the code version that started them, where a function does not say."""

    @property
    def raises(self) -> tuple[type[BaseException], ...]:
        """Errors of other packages that every function may record as themselves."""
        ...

    def transact(self, function: Function, work: Work, ledger: Ledger | None) -> Op[Done]:
        """Run one transaction on the datasource that the function means."""
        ...

    def remembers(self, function: Function) -> bool:
        """Whether the function's transactions run in the database that holds the journal."""
        ...

    def instance_name(self, instance: object) -> str:
        """Under which name an object was registered."""
        ...

    def instance(self, name: str) -> object:
        """The object registered under a name."""
        ...

    def declared(self, function: Function) -> None:
        """Learn of a function."""
        ...


class Batch(Struct, frozen=True):
    """How items of a queue come together."""

    size: int
    """How many at most; so many begin at once."""
    wait: float
    """Seconds after which fewer begin."""


class Rules(Struct, frozen=True):
    """How a function runs; what does not concern its kind keeps its default."""

    retry: Retry = field(default_factory=Retry)
    timeout: float | None = None
    raises: tuple[type[BaseException], ...] = ()
    ignore: tuple[str, ...] = ()
    isolation: Isolation = "serializable"
    read_only: bool = False
    datasource: str | None = None
    pin: bool | None = None
    roles: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    batch: Batch | None = None
    keep: Mapping[Status, float | None] = field(default_factory=dict[Status, "float | None"])
    """How many seconds the record of an outcome is kept, where it is not as the app says; None is for ever."""


class Function:
    """What a decorator makes of a function, whatever its kind and colour."""

    def __init__(self, fn: Callable[..., Any], kind: FunctionKind, name: str | None, rules: Rules) -> None:
        self.fn = fn
        self.kind: FunctionKind = kind
        self.name: str = str(getattr(fn, "__qualname__", fn)) if name is None else name
        self.rules = rules
        self.module: str = getattr(fn, "__module__", "") or ""
        self.asynchronous = inspect.iscoroutinefunction(fn)
        self.method = False
        self.home: Home | None = None
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise DeclarationError(f"{self.name} is a generator; a {kind} returns its result, it does not yield.")

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"

    @property
    def all(self) -> tuple[Function, ...]:
        """What rows may name: this, and where it is a function of batches, those."""
        return (self,)

    @property
    def names(self) -> tuple[str, ...]:
        """Its recorded name, and those that older rows know it by."""
        return (self.name, *self.rules.aliases)

    @property
    def codec(self) -> Codec:
        """The codec of the app it is declared on."""
        if self.home is None:
            raise NotLaunched(f"{self.name} is declared on routes that no app includes; write app.include(...).")
        return self.home.codec

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"{self.kind} {self.name!r}"

    @property
    def hidden(self) -> int:
        """How many leading parameters are ours to fill, not the caller's: the object, the transaction."""
        return int(self.method) + int(self.kind == "transaction")

    @cached_property
    def signature(self) -> Signature:
        """Its arguments and result, as they are recorded."""
        return Signature(self.fn, self.codec, skip=self.hidden, ignore=self.rules.ignore)

    def named(self, text: str) -> dict[str, Any]:
        """Give recorded arguments by name."""
        args, kwargs = self.signature.decode(text)
        hidden = (None,) * self.hidden
        bound = signature_of(self.fn).bind_partial(*hidden, *args, **kwargs)
        return dict(tuple(bound.arguments.items())[self.hidden :])

    def round_trip(self, value: object) -> tuple[str, Any]:
        """Give the recorded form of a result, and what a replay will make of it."""
        return self.signature.round_trip(value)

    def round_trip_error(self, error: BaseException) -> tuple[str, BaseException]:
        """Give the recorded form of an error, and what a replay will raise."""
        return self.codec.round_trip_error(error, home=self.module, raises=self._raises, where=self.where)

    def decode_error(self, text: str) -> BaseException:
        """Rebuild a recorded error."""
        return self.codec.decode_error(text, home=self.module, raises=self._raises)

    def admit(self, user: str | None, roles: Collection[str]) -> None:
        """Let pass the program itself, which is no user, and users who have one of the function's roles.

        Raises:
            Forbidden: the user has none of them.
        """
        if self.rules.roles and user is not None and not set(self.rules.roles).intersection(roles):
            raise Forbidden(f"{self.where} needs one of the roles {', '.join(self.rules.roles)}; the user has none.")

    @property
    def _raises(self) -> tuple[type[BaseException], ...]:
        return self.rules.raises if self.home is None else (*self.rules.raises, *self.home.raises)


class Declared(Protocol):
    """What a decorator hands to the user: a function, an object it is bound to, and the options of `.using()`."""

    function: Function
    instance: object | None
    options: Using


OnDuplicate = Literal["join", "first", "reject", "replace"]


class Using(Struct, frozen=True):
    """What `.using(...)` says of one call."""

    key: str | None = None
    timeout: float | None = None
    delay: float = 0.0
    on_duplicate: OnDuplicate = "join"
    attributes: str | None = None
    user: str | None = None
    roles: tuple[str, ...] | None = None
    version: str | None = None
    within: Any = None
    request_id: str | None = None
    traceparent: str | None = None
    name: str | None = None
    retries: int | None = None
    queue: str | None = None
    partition: str = ""
    priority: int = 0
    dedupe: str | None = None
