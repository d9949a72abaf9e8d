"""Endpoints: which functions are served over HTTP, and how; here they are data, and `operon.http` serves them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

from msgspec import Struct, field
from msgspec.structs import replace

from operon.app.declarations import Declaration, Seconds
from operon.core.codec.hints import hints_of
from operon.core.given import seconds, whole
from operon.core.ids import names
from operon.errors import DeclarationError

F = TypeVar("F", bound=Callable[..., Any])
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
WAIT = 30.0
MAX_BODY = 10_000_000
SERVED = "__operon_served__"
"""Marks a plain function that is an endpoint: it cannot become a workflow any more."""

AMBIENT = {
    "starlette.requests": ("HTTPConnection",),
    "starlette.responses": ("Response",),
    "starlette.background": ("BackgroundTasks",),
    "starlette.datastructures": ("UploadFile",),
    "fastapi.security": ("SecurityScopes",),
    "sqlalchemy": ("Connection", "Engine"),
    "sqlalchemy.orm": ("Session",),
    "sqlalchemy.ext.asyncio": ("AsyncConnection", "AsyncEngine", "AsyncSession"),
    "sqlite3": ("Connection",),
    "psycopg": ("Connection", "AsyncConnection"),
    "asyncpg": ("Connection", "Pool"),
}
"""What belongs to one request or one process: it cannot be recorded, so it cannot be a workflow's input."""


class Endpoint(Struct, frozen=True):
    """One function behind one method and path."""

    method: Method
    path: str
    target: Callable[..., Any] | Declaration
    wait: float = WAIT
    """Seconds that a request waits for its workflow before it is answered 202."""
    roles: tuple[str, ...] = ()
    max_body: int = MAX_BODY
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """FastAPI's own."""

    @property
    def durable(self) -> Declaration | None:
        """The workflow or transaction that is served; None for a plain function."""
        return self.target if isinstance(self.target, Declaration) else None


class Endpoints:
    """The HTTP decorators that an app and its parts share; outermost, they return what they are given."""

    def __init__(self) -> None:
        self._endpoints: list[Endpoint] = []

    def get(
        self, path: str, *, wait: Seconds = WAIT, roles: Sequence[str] = (), max_body: int = MAX_BODY, **fastapi: Any
    ) -> Callable[[F], F]:
        """Serve a function under GET.

        Args:
            path: as FastAPI takes it: `"/accounts/{id}"`.
            wait: seconds that a request waits for its workflow; then it is answered 202 with a `Location`.
            roles: the user needs one of them; they become those of the workflow or transaction.
            max_body: the largest request body, in bytes; a larger one is answered 413.
            fastapi: whatever else FastAPI's decorator takes: `status_code`, `response_model`, `tags`...

        Raises:
            DeclarationError: a parameter that cannot be recorded (`Request`, a session), or a step.
        """
        return self._serve("GET", path, wait=wait, roles=roles, max_body=max_body, options=fastapi)

    def post(
        self, path: str, *, wait: Seconds = WAIT, roles: Sequence[str] = (), max_body: int = MAX_BODY, **fastapi: Any
    ) -> Callable[[F], F]:
        """Serve a function under POST: once per `Idempotency-Key`. Takes what `get` takes."""
        return self._serve("POST", path, wait=wait, roles=roles, max_body=max_body, options=fastapi)

    def put(
        self, path: str, *, wait: Seconds = WAIT, roles: Sequence[str] = (), max_body: int = MAX_BODY, **fastapi: Any
    ) -> Callable[[F], F]:
        """Serve a function under PUT: once per `Idempotency-Key`. Takes what `get` takes."""
        return self._serve("PUT", path, wait=wait, roles=roles, max_body=max_body, options=fastapi)

    def patch(
        self, path: str, *, wait: Seconds = WAIT, roles: Sequence[str] = (), max_body: int = MAX_BODY, **fastapi: Any
    ) -> Callable[[F], F]:
        """Serve a function under PATCH: once per `Idempotency-Key`. Takes what `get` takes."""
        return self._serve("PATCH", path, wait=wait, roles=roles, max_body=max_body, options=fastapi)

    def delete(
        self, path: str, *, wait: Seconds = WAIT, roles: Sequence[str] = (), max_body: int = MAX_BODY, **fastapi: Any
    ) -> Callable[[F], F]:
        """Serve a function under DELETE: once per `Idempotency-Key`. Takes what `get` takes."""
        return self._serve("DELETE", path, wait=wait, roles=roles, max_body=max_body, options=fastapi)

    def endpoints(self) -> Iterator[Endpoint]:
        """Every endpoint declared here, in order."""
        yield from self._endpoints

    def _serve(
        self, method: Method, path: str, *, wait: Seconds, roles: Sequence[str], max_body: int, options: dict[str, Any]
    ) -> Callable[[F], F]:
        def serve(target: F) -> F:
            taken, most = names(roles, "roles=", "A role"), whole("max_body", max_body, least=0)
            endpoint = Endpoint(method, path, target, seconds(wait, "wait="), taken, most, options)
            if endpoint.durable is None:
                setattr(target, SERVED, f"{method} {path}")
            else:
                _check(endpoint, endpoint.durable)
            self._endpoints.append(endpoint)
            return target

        return serve


def refuse_served(fn: object) -> None:
    """Say that HTTP decorators are outermost, where one is not.

    Raises:
        DeclarationError: the function is an endpoint already.
    """
    if (served := getattr(fn, SERVED, None)) is not None:
        raise DeclarationError(
            f"{getattr(fn, '__qualname__', fn)} is served as {served} already, as a plain function. "
            "HTTP decorators are outermost: write @app.post(...) above @app.workflow."
        )


def _check(endpoint: Endpoint, declared: Declaration) -> None:
    function, where = declared.function, f"{endpoint.method} {endpoint.path} ({declared.name})"
    if function.kind == "step":
        raise DeclarationError(f"{where} serves a step, which no request can retry; serve a workflow that calls it.")
    if endpoint.roles and function.rules.roles not in {(), endpoint.roles}:
        raise DeclarationError(f"{where} has roles of its own, {function.rules.roles}; say them once.")
    function.rules = replace(function.rules, roles=endpoint.roles or function.rules.roles)
    hints = hints_of(function.fn)
    for name, parameter in declared.__signature__.parameters.items():
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
            raise DeclarationError(f"{where}: a request gives parameters by name, and {str(parameter)!r} has none.")
        if (ambient := _ambient(hints.get(name, parameter.annotation))) is not None:
            raise DeclarationError(
                f"{where}: {name!r} is a {ambient}, which cannot be recorded. Parameters are the workflow's input: "
                "take what you need of it by a dependency, as in Annotated[str, Depends(...)]."
            )
    if (ambient := _ambient(hints.get("return"))) is not None:
        raise DeclarationError(f"{where} returns a {ambient}, which cannot be recorded; return a value.")


def _ambient(hint: Any) -> str | None:
    """Name the class in an annotation that cannot be recorded; whoever has one in hand has imported its module."""
    if isinstance(hint, type):
        for module, names in AMBIENT.items():
            classes = [getattr(sys.modules.get(module), name, None) for name in names]
            if issubclass(hint, tuple(it for it in classes if inspect.isclass(it))):
                return str(hint.__qualname__)
    parts = get_args(hint)[:1] if hasattr(hint, "__metadata__") else get_args(hint)
    return next((found for part in parts if (found := _ambient(part)) is not None), None)
