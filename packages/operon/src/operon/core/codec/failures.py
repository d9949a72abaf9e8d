"""Exceptions as JSON text and back; it must not know what a step is.

A class that may be named is rebuilt without its `__init__`: its builtin base makes it from `args`, then its attributes
are set. Any other exception becomes `StepFailed`, which every reader knows. What it was raised from comes along, its
traceback does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

from msgspec import json

from operon.core.codec.form import Policy, unreadable
from operon.core.codec.kinds import class_of
from operon.core.codec.refusal import Refusal
from operon.core.codec.secret import Cipher
from operon.core.codec.tagged import Packer, Unpacker
from operon.core.codec.trust import Trust, class_name
from operon.errors import PayloadTooLarge, StepFailed

_warned: set[str] = set()

_KNOWN = frozenset({"builtins", "operon"})
_DERIVED = frozenset({"message", "exceptions", "obj"})
"""Attributes of builtin exceptions that are in `args` already, or lead to any object at all."""
_EXCERPT = 1_000
_LEVELS = 10
"""How deep errors may lie in errors: groups in groups, or errors in arguments."""


def trust(home: str, policy: Policy, raises: tuple[type[BaseException], ...]) -> Trust:
    """Return which exceptions a function's records may name: builtins, Operon's, its own package's, and `raises`."""
    return Trust(home, policy.packages | _KNOWN, {**{class_name(cls): cls for cls in raises}, **policy.moved}, raises)


def encode(error: BaseException, trust: Trust, policy: Policy, where: str) -> str:
    """Return the record of an exception.

    Raises:
        TypeError: it is no `Exception`.
        PayloadTooLarge: not even its message fits.
    """
    if not isinstance(error, Exception):
        message = f"{where} is {type(error).__name__}, which ends the process or the run; only an Exception is recorded"
        raise TypeError(message)
    for alone in (False, True):
        with suppress(PayloadTooLarge):
            return policy.check_size(json.encode(_Dumper(trust, policy, alone=alone).dump(error)), where)
    _warn(type(error), "is too large to be recorded, and is StepFailed")
    short = replaced(error, _EXCERPT)
    return policy.check_size(json.encode(_Dumper(trust, policy).dump(short)), where)


def replaced(error: BaseException, longest: int | None = None) -> StepFailed:
    """Make what stands in the place of an exception that cannot be recorded as itself."""
    return StepFailed(_type_name(type(error)), _message(error)[:longest])


def decode(text: str, trust: Trust, policy: Policy) -> Exception:
    """Return the exception of a record.

    Raises:
        NotDeserializable: the record names a class that it may not, or does not fit it.
    """
    try:
        policy.check_length(text)
        return _Loader(trust, policy).load(json.decode(text))
    except Exception as error:  # whatever a hostile or damaged record may lead to
        raise unreadable("an error", error) from None


class _Dumper:
    """Takes exceptions apart."""

    def __init__(self, trust: Trust, policy: Policy, *, alone: bool = False) -> None:
        self.trust = trust
        self.policy = policy
        self._alone = alone
        self._loader = _Loader(trust, policy)
        self._open: set[int] = set()

    def dump(self, error: Exception, level: int = 0) -> dict[str, object]:
        """Return the tree of an exception, or of the `StepFailed` in its place."""
        if id(error) in self._open:
            raise Refusal("contains itself")
        self._open.add(id(error))
        try:
            node = self._node(error, level)
            self._loader.load(node)
        except Exception:  # whatever its builtin base says to arguments it does not expect
            _warn(type(error), "cannot be rebuilt as itself, and is StepFailed; name it in raises=(...)")
            return self._node(replaced(error), level=1)
        finally:
            self._open.discard(id(error))
        return node

    def _node(self, error: Exception, level: int) -> dict[str, object]:
        name = self.trust.name(type(error))
        if name is None or level > _LEVELS:
            raise Refusal("is of a class that may not be named, or too deep inside others")
        node: dict[str, object] = {
            "$": "error",
            "type": name,
            "message": _message(error),
            "args": [self._argument(error, argument, level) for argument in error.args],
            "state": self._state(error, level),
        }
        return node | ({} if self._alone else self._origin(error, level))

    def _origin(self, error: Exception, level: int) -> dict[str, object]:
        """Tell what an exception was raised from, as a traceback would show it."""
        cause, handled = error.__cause__, error.__context__
        if isinstance(cause, Exception) and id(cause) not in self._open:
            return {"cause": self.dump(cause, level + 1)}
        if error.__suppress_context__:
            return {"suppress": True}
        if isinstance(handled, Exception) and id(handled) not in self._open:
            return {"context": self.dump(handled, level + 1)}
        return {}

    def _argument(self, error: Any, argument: Any, level: int) -> object:
        try:
            return self._pack(argument, level)
        except Refusal:
            _warn(class_of(error), f"has an argument of type {type(argument).__name__}, which is recorded as text")
            return _message(argument)

    def _state(self, error: Exception, level: int) -> dict[str, object]:
        state: dict[str, object] = {}
        for name, value in _attributes(error).items():
            try:
                state[name] = self._pack(value, level)
            except Refusal:
                _warn(type(error), f"loses its attribute .{name} of type {type(value).__name__}")
        return state

    def _pack(self, value: object, level: int) -> object:
        try:
            return _Packer(self, level).pack(value)
        except RecursionError:
            raise Refusal("is nested too deeply") from None


class _Packer(Packer):
    """Packs what lies in an exception; that may be others, at any depth."""

    def __init__(self, dumper: _Dumper, level: int) -> None:
        super().__init__(dumper.trust, dumper.policy.cipher)
        self._dumper = dumper
        self._level = level

    def _tagged(self, cls: type, value: Any) -> object:
        if isinstance(value, Exception):
            return self._dumper.dump(value, self._level + 1)
        return super()._tagged(cls, value)


class _Loader:
    """Puts exceptions together."""

    def __init__(self, trust: Trust, policy: Policy) -> None:
        self._trust = trust
        self._unpacker = _Unpacker(self, trust, policy.cipher)

    def load(self, node: Mapping[str, Any]) -> Exception:
        """Return the exception of a tree.

        Raises:
            Refusal: its class may not be named here.
        """
        cls = self._trust.find(node["type"])
        if cls is None or not issubclass(cls, Exception):
            return self._unknown(node)
        made = _make(cls, tuple(self._unpacker.unpack(argument) for argument in node["args"]))
        members = _members(cls)
        for name, recorded in node["state"].items():
            value = self._unpacker.unpack(recorded)
            if name in members:
                members[name].__set__(made, value)
            else:
                vars(made)[name] = value
        if "cause" in node:
            BaseException.__setattr__(made, "__cause__", self.load(node["cause"]))
        if "context" in node:
            BaseException.__setattr__(made, "__context__", self.load(node["context"]))
        if node.get("suppress"):
            BaseException.__setattr__(made, "__suppress_context__", True)
        return made

    def _unknown(self, node: Mapping[str, Any]) -> Exception:
        name = str(node["type"])[:_EXCERPT]
        if not self._trust.home:
            return StepFailed(name.replace(":", "."), str(node["message"]))
        raise Refusal(f"it names {name!r}, which is not loaded, or not in raises=")


class _Unpacker(Unpacker):
    """Unpacks what lies in an exception."""

    def __init__(self, loader: _Loader, trust: Trust, cipher: Cipher | None) -> None:
        super().__init__(trust, cipher)
        self._loader = loader

    def _tagged(self, tag: object, node: Mapping[str, Any]) -> object:
        return self._loader.load(node) if tag == "error" else super()._tagged(tag, node)


def _make(cls: type[Exception], args: tuple[object, ...]) -> Exception:
    """An exception as its nearest builtin base makes it; no code of the user's runs."""
    base: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    made: Exception = base.__new__(cls, *args)
    if type(made) is not cls:
        raise Refusal("its arguments make another class")
    BaseException.__setattr__(made, "args", args)
    return made


def _members(cls: type) -> Mapping[str, Any]:
    """The attributes that lie in no `__dict__`: those of builtin exceptions, and slots."""
    return {
        name: member
        for base in cls.__mro__
        if base not in {BaseException, object}
        for name, member in vars(base).items()
        if isinstance(member, MemberDescriptorType | GetSetDescriptorType) and not name.startswith("__")
        if name not in _DERIVED
    }


def _attributes(error: Exception) -> dict[str, Any]:
    found: dict[str, Any] = dict(vars(error))
    for name in _members(type(error)):
        if (value := getattr(error, name, None)) is not None:
            found[name] = value
    return found


def _type_name(cls: type) -> str:
    return class_name(cls).replace(":", ".")


def _message(error: object) -> str:
    """What an object says of itself, as text that can be stored, whatever its `__str__` does."""
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except Exception:  # the user's __str__ may do anything
        return f"<{type(error).__name__} that cannot be shown>"


def _warn(cls: type, what: str) -> None:
    name = _type_name(cls)
    if name not in _warned:
        import logging

        _warned.add(name)
        logging.getLogger("operon").warning("an error of type %s %s", name, what)
