"""Which adapter a type of connection or session belongs to; a driver is imported only if a program names its type."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, get_origin

from operon.core.codec.hints import signature_of
from operon.errors import DeclarationError


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of connection or session."""

    module: str
    asynchronous: bool
    dialects: tuple[str, ...]

    @property
    def adapters(self) -> Any:
        """The module that serves it."""
        return import_module(f"operon.datasources.adapters.{self.module}")


POSTGRES, SQLITE, BOTH = ("postgres",), ("sqlite",), ("postgres", "sqlite")
KINDS = {
    "sqlite3.Connection": Kind("sqlite", asynchronous=False, dialects=SQLITE),
    "psycopg.Connection": Kind("psycopg", asynchronous=False, dialects=POSTGRES),
    "psycopg.AsyncConnection": Kind("psycopg", asynchronous=True, dialects=POSTGRES),
    "asyncpg.connection.Connection": Kind("asyncpg", asynchronous=True, dialects=POSTGRES),
    "asyncpg.pool.PoolConnectionProxy": Kind("asyncpg", asynchronous=True, dialects=POSTGRES),
    "sqlalchemy.engine.base.Connection": Kind("sqlalchemy", asynchronous=False, dialects=BOTH),
    "sqlalchemy.ext.asyncio.engine.AsyncConnection": Kind("sqlalchemy", asynchronous=True, dialects=BOTH),
    "sqlalchemy.orm.session.Session": Kind("sqlalchemy", asynchronous=False, dialects=BOTH),
    "sqlalchemy.ext.asyncio.session.AsyncSession": Kind("sqlalchemy", asynchronous=True, dialects=BOTH),
}
"""By the type's own name; a subclass is served as its base. SQLModel's sessions are SQLAlchemy's."""

NAME = re.compile(r"""['"]?(?:(?:\w+\.)?Annotated\[)?\s*([\w.]+)""")
CHOICES = (
    "sqlite3.Connection, psycopg.Connection, psycopg.AsyncConnection, asyncpg.Connection, sqlalchemy.Connection, "
    "sqlalchemy.orm.Session, sqlalchemy.ext.asyncio.AsyncConnection or sqlalchemy.ext.asyncio.AsyncSession"
)


def kind_of(handle: type) -> Kind | None:
    """Find the kind of a type."""
    names = (f"{base.__module__}.{base.__qualname__}" for base in handle.__mro__)
    return next((KINDS[name] for name in names if name in KINDS), None)


def declared(function: Callable[..., Any]) -> type:
    """Give the type of a transaction's first parameter, checked against the function's colour.

    Raises:
        DeclarationError: the type is missing, unknown, or of the other colour.
    """
    parameters = [*signature_of(function).parameters.values()]
    if len(parameters) > 1 and parameters[0].name == "self":
        parameters.pop(0)
    name = function.__qualname__
    if not parameters or parameters[0].annotation is inspect.Parameter.empty:
        raise DeclarationError(
            f"The transaction {name} must say what it works on: annotate its first parameter with {CHOICES}."
        )
    handle: object = _resolve(function, parameters[0].annotation)
    kind = kind_of(handle) if isinstance(handle, type) else None
    if kind is None or not isinstance(handle, type):
        raise DeclarationError(f"The transaction {name} takes {parameters[0].annotation}; it can take {CHOICES}.")
    if kind.asynchronous != inspect.iscoroutinefunction(function):
        colour, other = ("async", "a plain def") if kind.asynchronous else ("blocking", "an async def")
        raise DeclarationError(
            f"The transaction {name} is {other} and takes {handle.__qualname__}, which is {colour}: "
            f"change the one or the other. It can take {CHOICES}."
        )
    return handle


def _resolve(function: Callable[..., Any], annotation: Any) -> Any:
    if isinstance(annotation, str):
        scope = dict(inspect.getclosurevars(function).nonlocals) | getattr(function, "__globals__", {})
        dotted = NAME.match(annotation)
        annotation = _look_up(dotted[1] if dotted else annotation, scope, function)
    while hasattr(annotation, "__metadata__"):  # Annotated[...]
        annotation = annotation.__origin__
    return get_origin(annotation) or annotation


def _look_up(dotted: str, scope: dict[str, Any], function: Callable[..., Any]) -> Any:
    root, *rest = dotted.split(".")
    try:
        found = scope[root] if root in scope else _imported_for_types(root, function)
        for name in rest:
            found = getattr(found, name)
    except (AttributeError, ImportError, LookupError, OSError, TypeError) as error:
        raise DeclarationError(
            f"The type {dotted!r} of the first parameter of the transaction {function.__qualname__} cannot be found: "
            f"import it at the top of its module. It can be {CHOICES}."
        ) from error
    return found


def _imported_for_types(name: str, function: Callable[..., Any]) -> Any:
    """Import what a module imports only `if TYPE_CHECKING`."""
    for node in ast.walk(ast.parse(inspect.getsource(sys.modules[function.__module__]))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                if name == (alias.asname or alias.name.partition(".")[0]):
                    return _import(node, alias, function)
    raise LookupError(name)


def _import(node: ast.Import | ast.ImportFrom, alias: ast.alias, function: Callable[..., Any]) -> Any:
    if isinstance(node, ast.ImportFrom):
        package = function.__globals__["__package__"]
        return getattr(import_module("." * node.level + (node.module or ""), package), alias.name)
    module = import_module(alias.name)
    return module if alias.asname else sys.modules[alias.name.partition(".")[0]]
