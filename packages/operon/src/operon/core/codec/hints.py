"""What annotations say, of functions and of classes; it must not know how values are written."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from operon.core.codec.records import family_of


class Unannotated:
    """Stands for the annotation of what has none."""


ANYTHING: tuple[object, ...] = (Unannotated, Any, object)


def signature_of(function: Callable[..., object]) -> inspect.Signature:
    """Return a function's signature; annotations that cannot be resolved here stay what they say.

    Python 3.14 evaluates annotations only now, when a name may be lacking that none but type checkers import.
    """
    if sys.version_info >= (3, 14):
        import annotationlib

        return inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(function)


def _annotations(thing: Any) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(thing, format=annotationlib.Format.FORWARDREF)
    return dict(getattr(thing, "__annotations__", {}))


def hints_of(thing: Callable[..., object]) -> dict[str, Any]:
    """Return the annotations of a function or class; those that cannot be resolved here are left out."""
    try:
        return typing.get_type_hints(thing, include_extras=True)
    except Exception:  # a forward reference may be any expression, and fail in any way
        return _one_by_one(thing)


def _one_by_one(thing: Any) -> dict[str, Any]:
    """Resolve what resolves: one name that only type checkers import must not cost the others their types."""
    found: dict[str, Any] = {}
    for name, hint in _annotations(thing).items():
        alone = type("Alone", (), {"__annotations__": {name: hint}, "__module__": thing.__module__})
        try:
            scope = getattr(thing, "__globals__", None)
            found |= typing.get_type_hints(alone, globalns=scope, include_extras=True)
        except Exception:  # noqa: S112 - as above
            continue
    return found


def result_hint(hints: dict[str, Any]) -> Any:
    """Return the annotation of what a call gives once it has been awaited, if it must be."""
    hint = hints.get("return", Unannotated)
    if typing.get_origin(hint) in {Awaitable, Coroutine}:
        return typing.get_args(hint)[-1]
    return hint


def types_in(hint: Any) -> set[type]:
    """Return every class that an annotation names, also in the fields of those it names."""
    found: set[type] = set()
    _gather(hint, found, set())
    return found


def _gather(hint: Any, found: set[type], aliases: set[int]) -> None:
    if id(hint) in aliases:
        return
    if (meaning := getattr(hint, "__supertype__", getattr(hint, "__value__", None))) is not None:
        aliases.add(id(hint))
        _gather(meaning, found, aliases)
        return
    for part in typing.get_args(hint):
        _gather(part, found, aliases)
    cls = typing.get_origin(hint) or hint
    if isinstance(cls, type) and cls not in found:
        found.add(cls)
        for part in hints_of(cls).values() if family_of(cls) or typing.is_typeddict(cls) else ():
            _gather(part, found, aliases)
