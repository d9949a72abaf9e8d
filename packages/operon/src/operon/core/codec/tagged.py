"""The self-describing form of values: what JSON has stays bare, everything else is `{"$": kind, "v": simpler}`.

A kind is one of the table in `kinds`, or `module:Class` of a trusted class. A dict that has the key "$" itself, or keys
that are no text, is written as pairs. Equal forms mean equal values of equal types, all the way down: this is also how
a round trip is proved.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from msgspec import json

from operon.core.codec.kinds import BY_TAG, BY_TYPE, UNORDERED
from operon.core.codec.records import family_of
from operon.core.codec.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from operon.core.codec.kinds import Kind
    from operon.core.codec.records import Family
    from operon.core.codec.secret import Cipher
    from operon.core.codec.trust import Trust

MARK = b'{"$"'
DEPTH = 100
_INT_BITS = 64


class Refusal(Exception):  # noqa: N818 - never leaves the codec
    """A value cannot be recorded; `path` leads to the part that cannot."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []


class Packer:
    """Turns one value into what JSON can hold."""

    def __init__(self, trust: Trust, cipher: Cipher | None) -> None:
        self.has_records = False
        self._trust = trust
        self._cipher = cipher
        self._open: set[int] = set()

    def dumps(self, value: object) -> bytes:
        """Return the tagged form as JSON.

        Raises:
            Refusal: some part of the value cannot be recorded.
        """
        return json.encode(self.pack(value))

    def pack(self, value: Any) -> object:
        """Return the value as a tree of what JSON has."""
        cls = type(value)
        if value is None or cls is bool:
            return value
        if cls is str:
            return _text(value)
        if (cls is int and value.bit_length() <= _INT_BITS) or (cls is float and math.isfinite(value)):
            return value
        if cls is list:
            return [self.part(f"[{index}]", item) for index, item in enumerate(value)]
        if cls is dict:
            return self._dict(value)
        return self._tagged(cls, value)

    def part(self, step: str, value: Any) -> object:
        """Pack a part of a value, and note the way to it if it is refused."""
        if id(value) in self._open:
            raise _at(step, Refusal("contains itself, and JSON cannot; record an id instead"))
        if len(self._open) >= DEPTH:
            raise _at(step, Refusal(f"is nested deeper than {DEPTH} levels; record it flat, or as text"))
        self._open.add(id(value))
        try:
            return self.pack(value)
        except Refusal as refusal:
            raise _at(step, refusal) from None
        finally:
            self._open.discard(id(value))

    def _dict(self, value: dict[Any, Any]) -> object:
        if "$" not in value and all(type(key) is str for key in value):
            return {_text(key): self.part(f"[{key!r}]", item) for key, item in value.items()}
        pairs = [[self.part(".keys()", key), self.part(_key_step(key), item)] for key, item in value.items()]
        return {"$": "dict", "v": pairs}

    def _tagged(self, cls: type, value: Any) -> object:
        if cls is Secret:
            return self._secret(value)
        if kind := BY_TYPE.get(cls):
            return self._kind(kind, value)
        if family := family_of(cls):
            return self._record(cls, family, value)
        raise Refusal(_why_not(cls))

    def _secret(self, secret: Secret[object]) -> object:
        inside = self.part(".reveal()", secret.reveal())
        if self._cipher is None:
            return {"$": "secret", "v": inside}
        return {"$": "secret", "sealed": self._cipher.seal(json.encode(inside))}

    def _kind(self, kind: Kind, value: Any) -> object:
        try:
            simpler = kind.dump(value)
        except ValueError as error:
            raise Refusal(str(error)) from None
        packed: Any = self.pack(simpler)
        return {"$": kind.tag, "v": sorted(packed, key=json.encode) if kind.tag in UNORDERED else packed}

    def _record(self, cls: type, family: Family, value: Any) -> object:
        name = self._trust.name(cls)
        if name is None:
            package = cls.__module__.partition(".")[0]
            raise Refusal(
                f"is of {_type_name(cls)}, which a record of this function may not name; annotate the value with it, "
                f"or add {package!r} to the codec's packages (a class inside a function cannot be named at all)"
            )
        self.has_records = True
        try:
            simpler = family.dump(value)
        except ValueError as error:
            raise Refusal(str(error)) from None
        if isinstance(simpler, dict):
            return {"$": name, "v": {field: self.part(f".{field}", item) for field, item in simpler.items()}}
        return {"$": name, "v": self.pack(simpler)}


class Unpacker:
    """Makes values again from their tagged form."""

    def __init__(self, trust: Trust, cipher: Cipher | None) -> None:
        self._trust = trust
        self._cipher = cipher

    def loads(self, data: bytes | str) -> object:
        """Return the value that a tagged form describes.

        Raises:
            ValueError: the form names what it may not, or does not fit what it names.
        """
        return self.unpack(json.decode(data))

    def unpack(self, node: Any) -> Any:
        """Return the value that a tree of JSON describes."""
        if type(node) is list:
            return [self.unpack(item) for item in node]
        if type(node) is not dict:
            return node
        if "$" not in node:
            return {key: self.unpack(item) for key, item in node.items()}
        return self._tagged(node["$"], node)

    def _tagged(self, tag: object, node: Mapping[str, Any]) -> object:
        if not isinstance(tag, str):
            message = "a tag is no text"
            raise TypeError(message)
        if tag == "secret":
            return self.secret(node)
        inside = self.unpack(node["v"])
        if tag == "plain":
            return inside
        if kind := BY_TAG.get(tag):
            return kind.load(inside)
        cls = self._trust.find(tag)
        family = None if cls is None else family_of(cls)
        if cls is None or family is None:
            message = f"it names {tag[:200]!r}, which is no class that this function's records may name"
            raise ValueError(message)
        return family.load(cls, inside)

    def secret(self, node: Mapping[str, Any]) -> Secret[object]:
        """Return the secret that a tree of JSON describes, opened."""
        if "sealed" not in node:
            return Secret(self.unpack(node["v"]))
        if self._cipher is None:
            message = "it holds an encrypted secret, and this app has no key"
            raise ValueError(message)
        return Secret(self.loads(self._cipher.unseal(node["sealed"])))


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        message = "holds half a surrogate pair, which is no text; decode it with errors='replace', or record bytes"
        raise Refusal(message) from None
    return text


def _at(step: str, refusal: Refusal) -> Refusal:
    refusal.path.insert(0, step)
    return refusal


def _key_step(key: object) -> str:
    return f"[{key!r}]" if isinstance(key, str | int) else f"[a {type(key).__name__}]"


def _type_name(cls: type) -> str:
    return f"type {cls.__module__}.{cls.__qualname__}"


def _why_not(cls: type) -> str:
    builtin = next((base for base in cls.__mro__ if base in BY_TYPE or base in {str, list}), None)
    if builtin is not None:
        return f"is of {_type_name(cls)}; convert it with {builtin.__name__}(...)"
    return (
        f"is of {_type_name(cls)}; record plain data, a dataclass or a model instead "
        "(and name clients and sessions in ignore=)"
    )
