"""The arguments and the result of one function as JSON text and back; it must not know when the function is called."""

from __future__ import annotations

import hashlib
import inspect
from functools import cached_property
from inspect import Parameter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import json

from operon.core.codec.hints import Unannotated, hints_of, result_hint
from operon.errors import NotDeserializable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from operon.core.codec.codec import Codec
    from operon.core.codec.form import Form

_DIGEST_SIZE = 16


class Signature:
    """Record the calls of one function: arguments by name, defaults left out, so that equal calls look equal.

    Args:
        fn: the undecorated function; its annotations are resolved when the first call is recorded.
        codec: what its values are written with.
        skip: how many leading parameters the caller does not pass and nobody records (`self`, `tx`).
        ignore: parameters that are passed but neither recorded nor compared (clients, sessions).
    """

    def __init__(
        self, fn: Callable[..., object], codec: Codec, *, skip: int = 0, ignore: tuple[str, ...] = ()
    ) -> None:
        self._fn = fn
        self._codec = codec
        self._name = fn.__qualname__
        self._home = fn.__module__
        self._ignore = frozenset(ignore)
        signature = inspect.signature(fn)
        self._parameters = dict(list(signature.parameters.items())[skip:])
        self._signature = signature.replace(parameters=list(self._parameters.values()))

    def encode(self, args: Sequence[object], kwargs: Mapping[str, object]) -> str:
        """Return the record of a call: a JSON object of its arguments by name.

        Raises:
            TypeError: the function cannot be called like this.
            NotSerializable: an argument cannot be recorded.
        """
        bound = self._bind(args, kwargs)
        record = {
            name: msgspec.Raw(self._forms[name].encode(value, f"the argument {name!r} of {self._name}()").encode())
            for name, value in bound.items()
            if name not in self._ignore
        }
        return self._codec.rules.check_size(json.encode(record), f"the arguments of {self._name}()")

    def decode(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a record, to call the function with; ignored ones are missing.

        Raises:
            NotDeserializable: they do not fit the function as it is now.
        """
        try:
            record = _read_record(text)
        except (ValueError, RecursionError):
            message = f"a record cannot be read as the arguments of {self._name}(): it is no JSON object"
            raise NotDeserializable(message) from None
        if unknown := record.keys() - self._parameters.keys():
            message = f"a recorded call of {self._name}() has the arguments {sorted(unknown)}, which it no longer takes"
            raise NotDeserializable(message)
        return self._arrange({name: self._forms[name].decode(bytes(raw).decode()) for name, raw in record.items()})

    def digest(self, call: str | tuple[Sequence[object], Mapping[str, object]]) -> str:
        """Return 32 hexadecimal digits that are the same for equal calls, in every process and Python version.

        Args:
            call: the record of a call, or its `(args, kwargs)`.
        """
        text = call if isinstance(call, str) else self.encode(*call)
        canonical = json.encode(_canonical(json.decode(text)), order="sorted")
        return hashlib.blake2b(canonical, digest_size=_DIGEST_SIZE).hexdigest()

    def encode_result(self, value: object) -> str:
        """Return the record of what the function returned (an async one: of what it gave when awaited).

        Raises:
            NotSerializable: it cannot be recorded.
        """
        return self._result.encode(value, f"the result of {self._name}()")

    def decode_result(self, text: str) -> Any:
        """Return the result of a record.

        Raises:
            NotDeserializable: it does not fit the function's annotation.
        """
        return self._result.decode(text)

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return hints_of(self._fn)

    @cached_property
    def _result(self) -> Form:
        return self._codec.form(result_hint(self._hints), self._home)

    @cached_property
    def _forms(self) -> dict[str, Form]:
        return {name: self._codec.form(self._hint(parameter), self._home) for name, parameter in self._parameters.items()}

    def _hint(self, parameter: Parameter) -> Any:
        hint = self._hints.get(parameter.name, Unannotated)
        if hint is Unannotated:
            return hint
        wrap = {Parameter.VAR_POSITIONAL: tuple[hint, ...], Parameter.VAR_KEYWORD: dict[str, hint]}
        return wrap.get(parameter.kind, hint)

    def _bind(self, args: Sequence[object], kwargs: Mapping[str, object]) -> Mapping[str, object]:
        try:
            return self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            message = f"{self._name}() {error}"
            raise TypeError(message) from None

    def _arrange(self, values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """By position what must be: positional-only parameters, and all in front of a `*args` that is not empty."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        variadic = next((n for n, p in self._parameters.items() if p.kind is Parameter.VAR_POSITIONAL and values.get(n)), None)
        for name, value in values.items():
            kind = self._parameters[name].kind
            if kind is Parameter.VAR_POSITIONAL:
                args.extend(value)
            elif kind is Parameter.VAR_KEYWORD:
                kwargs.update(value)
            elif kind is Parameter.POSITIONAL_ONLY or (variadic and kind is Parameter.POSITIONAL_OR_KEYWORD):
                args.append(value)
            else:
                kwargs[name] = value
        return tuple(args), kwargs


_read_record = json.Decoder(dict[str, msgspec.Raw]).decode


def _canonical(node: Any) -> Any:
    """A record without the order that equal values may differ in: pairs of a dict are sorted, as its keys are."""
    if isinstance(node, list):
        return [_canonical(item) for item in node]
    if not isinstance(node, dict):
        return node
    clean = {key: _canonical(item) for key, item in node.items()}
    if clean.get("$") in {"dict", "counter"} and isinstance(clean.get("v"), list):
        clean["v"].sort(key=json.encode)
    return clean
