"""The arguments and the result of one function as JSON text and back; it must not know when the function is called."""

from __future__ import annotations

import hashlib
import inspect
import types
from copy import deepcopy
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from inspect import Parameter
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from msgspec import json

from operon.core.codec.form import unreadable
from operon.core.codec.hints import Unannotated, hints_of, result_hint, signature_of
from operon.core.codec.kinds import class_of
from operon.core.codec.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from operon.core.codec.codec import Codec
    from operon.core.codec.form import Form

_DIGEST_SIZE = 16
ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, Decimal, UUID, date, datetime, time, timedelta})
"""Types whose values nobody can change."""
_UNORDERED_PAIRS = ("dict", "counter")


class Signature:
    """Record the calls of one function: arguments by name, defaults left out, so that equal calls look equal.

    Args:
        fn: the undecorated function; its annotations are resolved when the first call is recorded.
        codec: what its values are written with.
        skip: how many leading parameters the caller does not pass and nobody records (`self`, `tx`).
        ignore: parameters that are passed but neither recorded nor compared (clients, sessions).
    """

    def __init__(self, fn: Callable[..., object], codec: Codec, *, skip: int = 0, ignore: tuple[str, ...] = ()) -> None:
        self._fn = fn
        self._codec = codec
        self._name: str = getattr(fn, "__qualname__", type(fn).__qualname__)
        self._home: str = getattr(fn, "__module__", "")
        self._of_result = f"the result of {self._name}()"
        self._ignore = frozenset(ignore)
        self._parameters = dict([*_parameters(fn).items()][skip:])
        self._signature = inspect.Signature([*self._parameters.values()])
        self._simple = _simple(self._parameters)
        self._changeable = {
            name: parameter.default
            for name, parameter in self._parameters.items()
            if type(parameter.default).__hash__ is None and name not in self._ignore  # as dataclasses tell it
        }

    def encode(self, args: Sequence[object], kwargs: Mapping[str, object]) -> str:
        """Return the record of a call: a JSON object of its arguments by name.

        Raises:
            TypeError: the function cannot be called like this.
            NotSerializable: an argument cannot be recorded.
        """
        record = {
            name: msgspec.Raw(self._forms[name].encode(value, self._where[name]).encode())
            for name, value in self._bind(args, kwargs).items()
            if name not in self._ignore
        }
        return self._codec.policy.check_size(json.encode(record), f"the arguments of {self._name}()")

    def decode(self, text: str, *, own: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a record, to call the function with; ignored ones are missing.

        Args:
            text: the record.
            own: whether to add copies of defaults that could be changed: what one call puts in, no other finds there.

        Raises:
            NotDeserializable: they do not fit the function as it is now.
        """
        try:
            record = _read_record(text)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise unreadable(f"the arguments of {self._name}()", error) from None
        if misfit := self._misfit(record.keys()):
            raise unreadable(f"the arguments of {self._name}()", Refusal(misfit))
        values = {name: self._forms[name].decode(bytes(raw).decode()) for name, raw in record.items()}
        spare = {name: deepcopy(it) for name, it in self._changeable.items() if name not in values} if own else {}
        return self._arrange(values | spare)

    def fresh(
        self, text: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call whose record this is: what could be changed is made anew of the record.

        So a function that changes its arguments changes nothing of its caller's, who would not see that in a replay.
        """
        if ATOMS.issuperset(map(type, args)) and (not kwargs or ATOMS.issuperset(map(type, kwargs.values()))):
            return args, dict(kwargs)
        record = _read_record(text)
        given = self._bind(args, kwargs)
        return self._arrange(
            {
                name: self._forms[name].decode(bytes(record[name]).decode())
                if name in record and type(value) not in ATOMS
                else value
                for name, value in given.items()
            }
        )

    def digest(self, call: str | tuple[Sequence[object], Mapping[str, object]]) -> str:
        """Return 32 hexadecimal digits that are the same for equal calls, in every process and Python version.

        Args:
            call: the record of a call, or its `(args, kwargs)`.
        """
        return digest(call if isinstance(call, str) else self.encode(*call))

    def recorded(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> tuple[str, str]:
        """Return the record of a call and its digest: both at once, for both are needed wherever one is.

        Raises:
            TypeError: the function cannot be called like this.
            NotSerializable: an argument cannot be recorded.
        """
        if not kwargs and self._simple.required <= len(args) <= self._simple.most and (found := self._plainly(args)):
            return found
        text = self.encode(args, kwargs)
        return text, digest(text)

    def encode_result(self, value: object) -> str:
        """Return the record of what the function returned (an async one: of what it gave when awaited).

        Raises:
            NotSerializable: it cannot be recorded.
        """
        return self._result.encode(value, self._of_result)

    def round_trip(self, value: object) -> tuple[str, Any]:
        """Return the record of a result, and what a replay will make of it: scalars come back as what they are.

        Raises:
            NotSerializable: it cannot be recorded.
        """
        text = self._result.encode(value, self._of_result)
        return text, value if type(value) in self._result.plain else self._result.decode(text)

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
        return {
            name: self._codec.form(_whole(parameter, self._hints.get(name, Unannotated)), self._home)
            for name, parameter in self._parameters.items()
        }

    @cached_property
    def _scalars(self) -> tuple[tuple[str, frozenset[type]], ...]:
        """The parameters by position, and the types whose values are recorded as JSON has them."""
        none = frozenset[type]()
        return tuple((it, none if it in self._ignore else self._forms[it].plain) for it in self._simple.names)

    @cached_property
    def _where(self) -> dict[str, str]:
        return {name: f"the argument {name!r} of {self._name}()" for name in self._parameters}

    def _plainly(self, args: tuple[object, ...]) -> tuple[str, str] | None:
        """Return the record and the digest of scalars by position: JSON as it is; None if these are no such."""
        record: dict[str, object] = {}
        for (name, plain), value in zip(self._scalars, args, strict=False):
            if type(value) not in plain:
                return None
            record[name] = value
        try:
            data = json.encode(record)
        except Exception:  # text that is no Unicode
            return None
        if len(data) > self._codec.policy.max_payload:
            return None
        canonical = data if self._simple.sorted else _write_sorted(record)
        return data.decode(), hashlib.blake2b(canonical, digest_size=_DIGEST_SIZE).hexdigest()

    def _bind(self, args: Sequence[object], kwargs: Mapping[str, object]) -> Mapping[str, object]:
        if not kwargs and self._simple.required <= len(args) <= len(self._simple.names):
            return dict(zip(self._simple.names, args, strict=False))
        try:
            return self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{self._name}() {error}") from None

    def _misfit(self, recorded: AbstractSet[str]) -> str | None:
        """Say how recorded arguments and today's parameters differ, where that matters."""
        if gone := recorded - self._parameters.keys():
            return f"it has {', '.join(sorted(gone))}, which the function does not take any more"
        required = {name for name, parameter in self._parameters.items() if _is_required(parameter)}
        if new := required - recorded - self._ignore:
            return f"it lacks {', '.join(sorted(new))}, which the function needs now; give it a default"
        return None

    def _arrange(self, values: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """By position what must be: positional-only parameters, and all in front of a `*args` that is not empty."""
        if self._simple.named:
            return (), dict(values)
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        by_position: set[object] = {Parameter.POSITIONAL_ONLY}
        if any(
            parameter.kind is Parameter.VAR_POSITIONAL and values.get(n) for n, parameter in self._parameters.items()
        ):
            by_position.add(Parameter.POSITIONAL_OR_KEYWORD)
        for name, parameter in self._parameters.items():
            if name not in values:
                continue
            if parameter.kind is Parameter.VAR_POSITIONAL:
                args.extend(values[name])
            elif parameter.kind is Parameter.VAR_KEYWORD:
                kwargs.update(values[name])
            elif parameter.kind in by_position:
                args.append(values[name])
            else:
                kwargs[name] = values[name]
        return tuple(args), kwargs


def digest(text: str) -> str:
    """Return 32 hexadecimal digits that are the same for the records of equal calls."""
    node = json.decode(text)
    canonical = _write_sorted(_canonical(node) if '"$"' in text else node)
    return hashlib.blake2b(canonical, digest_size=_DIGEST_SIZE).hexdigest()


class _Simple(msgspec.Struct, frozen=True):
    """The names a call by position alone can fill, and how many of them it must."""

    names: tuple[str, ...]
    required: int
    most: int
    sorted: bool
    """They are in the order in which a digest sees them."""
    named: bool
    """Each parameter can be given by its name."""


_POSITIONAL = frozenset({Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD})
_NAMED = frozenset({Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY})
_VARIADIC = frozenset({Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD})

_read_record = json.Decoder(dict[str, msgspec.Raw]).decode
_write_sorted = json.Encoder(order="sorted").encode


def _parameters(fn: Callable[..., object]) -> Mapping[str, Parameter]:
    """A function's parameters; a builtin that does not tell has any."""
    try:
        return signature_of(fn).parameters
    except ValueError:
        return {
            "args": Parameter("args", Parameter.VAR_POSITIONAL),
            "kwargs": Parameter("kwargs", Parameter.VAR_KEYWORD),
        }


def _simple(parameters: Mapping[str, Parameter]) -> _Simple:
    names = tuple(name for name, parameter in parameters.items() if parameter.kind in _POSITIONAL)
    required = [name for name, parameter in parameters.items() if _is_required(parameter)]
    fewest = len(required) if set(required) <= set(names) else len(parameters) + 1
    named = all(parameter.kind in _NAMED for parameter in parameters.values())
    return _Simple(names, fewest, len(names), sorted=[*names] == sorted(names), named=named)


def _is_required(parameter: Parameter) -> bool:
    return parameter.default is Parameter.empty and parameter.kind not in _VARIADIC


def _whole(parameter: Parameter, hint: Any) -> Any:
    """The annotation of what a parameter holds: of all of `*args`, all of `**kwargs`."""
    if parameter.kind is Parameter.VAR_POSITIONAL:
        return types.GenericAlias(tuple, (Any if hint is Unannotated else hint, ...))
    if parameter.kind is Parameter.VAR_KEYWORD:
        return types.GenericAlias(dict, (str, Any if hint is Unannotated else hint))
    return hint


def _canonical(node: Any) -> Any:
    """A record without the order that equal values may differ in: pairs of a dict are sorted, as its keys will be."""
    cls = class_of(node)
    if cls is list:
        return [_canonical(item) for item in node]
    if cls is not dict:
        return node
    fields: dict[str, Any] = {key: _canonical(item) for key, item in node.items()}
    if fields.get("$") in _UNORDERED_PAIRS and isinstance(fields.get("v"), list):
        fields["v"].sort(key=_write_sorted)
    return fields
