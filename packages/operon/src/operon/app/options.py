"""The options of the decorators: which a kind of function has, and what each may be."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from operon.app.declarations import Seconds
from operon.core.codec.hints import signature_of
from operon.core.function import Batch, FunctionKind, Rules
from operon.core.given import seconds, shown
from operon.core.ids import names
from operon.core.ledger import Isolation
from operon.core.retention import keeping
from operon.core.retry import Retry
from operon.errors import DeclarationError

LARGEST_BATCH = 10_000
OPTIONS: Mapping[FunctionKind, tuple[str, ...]] = {
    "workflow": ("name", "timeout", "raises", "aliases", "roles", "pin", "keep", "batch", "batch_wait"),
    "transaction": ("isolation", "read_only", "datasource", "name", "raises", "aliases", "roles", "keep"),
    "step": (*Retry.__struct_fields__, "timeout", "raises", "ignore", "name"),
}


def rules_of(kind: FunctionKind, fn: Callable[..., Any], options: dict[str, Any]) -> Rules:
    """Sort a decorator's options.

    Raises:
        DeclarationError: one that this kind does not have, or that cannot be meant.
    """
    for name in options:
        _refuse_another(kind, name)
    retry = {key: options.pop(key) for key in tuple(options) if key in Retry.__struct_fields__}
    if (timeout := options.pop("timeout", None)) is not None:
        options["timeout"] = seconds(timeout, f"timeout= of a {kind}")
    for each in ("roles", "aliases"):
        if each in options:
            options[each] = names(
                options[each],
                f"{each}= of a {kind}",
                f"The name of a {kind}" if each == "aliases" else "A role",
                DeclarationError,
            )
    if (wait := options.pop("batch_wait", None)) is not None and "batch" not in options:
        raise DeclarationError(f"batch_wait={wait!r} of a {kind} needs batch=, the number of items.")
    if "batch" in options:
        options["batch"] = _batch(options["batch"], 1.0 if wait is None else wait)
    if "keep" in options:
        options["keep"] = keeping(options["keep"], f"keep= of a {kind}")
    if "raises" in options:
        options["raises"] = _errors(options["raises"], f"raises= of a {kind}")
    if "ignore" in options:
        options["ignore"] = _parameters(fn, options["ignore"])
    if "isolation" in options and (isolation := options["isolation"]) not in get_args(Isolation):
        levels = ", ".join(map(repr, get_args(Isolation)))
        raise DeclarationError(f"isolation={shown(isolation)} of a transaction must be one of {levels}.")
    return Rules(retry=Retry(**retry), **options)


def _refuse_another(kind: FunctionKind, name: str) -> None:
    if name in OPTIONS[kind]:
        return
    others = [f"a {other}" for other, options in OPTIONS.items() if name in options]
    whose = f", which {' and '.join(others)} may have" if others else ""
    raise DeclarationError(f"A {kind} has no option {name}={whose}. Its own are {', '.join(OPTIONS[kind])}.")


def _batch(size: object, wait: Seconds) -> Batch:
    if type(size) is not int or not 0 < size <= LARGEST_BATCH:
        raise DeclarationError(f"batch={size!r} is a number of items, from 1 to {LARGEST_BATCH}.")
    return Batch(size, seconds(wait, "batch_wait="))


def _errors(given: Any, what: str) -> tuple[type[BaseException], ...]:
    errors: list[Any] = [given] if _is_one(given) else [*given]
    for each in errors:
        if not _is_error(each):
            raise DeclarationError(f"{what} must be a list of exception classes, and {shown(each)} is none.")
    return tuple(errors)


def _is_error(given: object) -> bool:
    return isinstance(given, type) and issubclass(given, BaseException)


def _is_one(given: object) -> bool:
    return isinstance(given, type | str) or not isinstance(given, Iterable)


def _parameters(fn: Callable[..., Any], given: Iterable[str]) -> tuple[str, ...]:
    ignored = names(given, "ignore= of a step", "The name of a parameter", DeclarationError)
    parameters = signature_of(fn).parameters
    if any(it.kind is inspect.Parameter.VAR_KEYWORD for it in parameters.values()):
        return ignored
    for name in ignored:
        if name not in parameters:
            raise DeclarationError(f"ignore= of a step names {name!r}, and its function has no such parameter.")
    return ignored
