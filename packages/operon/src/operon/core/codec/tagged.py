"""The self-describing form of values: what JSON has stays bare, everything else is `{"$": kind, "v": simpler}`.

A kind is one of the table in `kinds`, or `module:Class` of a trusted class. A dict that has the key "$" itself, or keys
that are no text, is written as pairs. Equal forms mean equal values of equal types, all the way down: this is also how
a round trip is proved.
"""

from __future__ import annotations

import math
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

from msgspec import json

from operon.core.codec.kinds import BY_TAG, BY_TYPE, UNORDERED, class_of
from operon.core.codec.records import family_of
from operon.core.codec.refusal import Refusal
from operon.core.codec.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from operon.core.codec.kinds import Kind
    from operon.core.codec.records import Family
    from operon.core.codec.secret import Cipher
    from operon.core.codec.trust import Trust

MARK = b'{"$"'
DEPTH = 64
_INT_BITS = 64
_SHOWN = 200


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
        return json.encode(self.part("", value))

    def pack(self, value: Any) -> object:
        """Return the value as a tree of what JSON has."""
        cls = class_of(value)
        if _is_bare(value):
            return value
        if cls is str:
            return _text(value)
        if cls is list:
            return [item if _is_bare(item) else self.part(f"[{i}]", item) for i, item in enumerate(value)]
        if cls is dict:
            return self._dict(value)
        return self._tagged(cls, value)

    def part(self, step: str, value: Any) -> object:
        """Pack a part of a value, and note the way to it if it is refused."""
        if id(value) in self._open:
            raise Refusal("contains itself, and JSON cannot; record an id instead").at(step)
        if len(self._open) >= DEPTH:
            raise Refusal(f"is nested deeper than {DEPTH} levels; record it flat, or as text").at(step)
        self._open.add(id(value))
        try:
            return self.pack(value)
        except Refusal as refusal:
            raise refusal.at(step) from None
        finally:
            self._open.discard(id(value))

    def _dict(self, value: dict[Any, Any]) -> object:
        if "$" not in value and all(type(key) is str for key in value):
            return {
                _text(key): item if _is_bare(item) else self.part(_key_step(key), item) for key, item in value.items()
            }
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
        try:
            inside = self.part("", secret.reveal())
        except Refusal as refusal:
            refusal.path = [".reveal()"]  # no further: the keys in a secret are secret
            raise
        if self._cipher is None:
            return {"$": "secret", "v": inside}
        return {"$": "secret", "sealed": self._cipher.seal(json.encode(inside))}

    def _kind(self, kind: Kind, value: Any) -> object:
        packed: Any = self.pack(kind.dump(value))
        return {"$": kind.tag, "v": sorted(packed, key=json.encode) if kind.tag in UNORDERED else packed}

    def _record(self, cls: type, family: Family, value: Any) -> object:
        name = self._trust.name(cls)
        if name is None:
            raise Refusal(_unnameable(cls))
        self.has_records = True
        simpler = family.dump(value)
        if type(simpler) is str or type(simpler) is int:
            return {"$": name, "v": self.pack(simpler)}
        return {"$": name, "v": {field: self.part(f".{field}", item) for field, item in simpler.items()}}


class Unpacker:
    """Makes values again from their tagged form."""

    def __init__(self, trust: Trust, cipher: Cipher | None) -> None:
        self._trust = trust
        self._cipher = cipher

    def loads(self, data: bytes | str) -> object:
        """Return the value that a tagged form describes.

        Raises:
            Refusal: the form names what it may not.
            Exception: it does not fit what it names, in whatever way that type complains.
        """
        return self.unpack(json.decode(data))

    def unpack(self, node: Any) -> Any:
        """Return the value that a tree of JSON describes."""
        cls = class_of(node)
        if cls is list:
            return [self.unpack(item) for item in node]
        if cls is not dict:
            return node
        if "$" not in node:
            return {key: self.unpack(item) for key, item in node.items()}
        return self._tagged(node["$"], node)

    def _tagged(self, tag: object, node: Mapping[str, Any]) -> object:
        if not isinstance(tag, str):
            raise Refusal("a tag in it is no text")
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
            raise Refusal(
                f"it names {tag[:_SHOWN]!r}, which no record of this function may name, or which is not loaded"
            )
        return family.load(cls, inside)

    def secret(self, node: Mapping[str, Any]) -> Secret[object]:
        """Return the secret that a tree of JSON describes, opened."""
        if "sealed" not in node:
            return Secret(self.unpack(node["v"]))
        if self._cipher is None:
            raise Refusal("it holds an encrypted secret, and this app has no key")
        return Secret(self.loads(self._cipher.unseal(node["sealed"])))


def _is_bare(value: object) -> bool:
    """Say whether JSON has this value, at the first glance; part of what it has takes a second one."""
    if type(value) is str:
        return value.isascii()
    if type(value) is int:
        return value.bit_length() <= _INT_BITS
    return value is None or type(value) is bool or (type(value) is float and math.isfinite(value))


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refusal("holds half a surrogate pair, which is no text; record it as bytes, or replace it") from None
    return text


def _key_step(key: object) -> str:
    return f"[{key!r:.40}]" if isinstance(key, str | int) else f"[a {type(key).__name__}]"


def _type_name(cls: type) -> str:
    return f"type {cls.__module__}.{cls.__qualname__}"


def _unnameable(cls: type) -> str:
    if "<locals>" in cls.__qualname__:
        return f"is of {_type_name(cls)}, a class inside a function, which no record can name; move it to its module"
    package = cls.__module__.partition(".")[0]
    return (
        f"is of {_type_name(cls)}, which a record of this function may not name; "
        f"annotate the value with it, or add {package!r} to the codec's packages"
    )


def _why_not(cls: type[Any]) -> str:
    if issubclass(cls, tzinfo):
        return f"has the time zone {_type_name(cls)}; use zoneinfo.ZoneInfo, or astimezone(datetime.UTC)"
    builtin = next((base for base in cls.__mro__ if base in BY_TYPE or base in {str, list}), None)
    if builtin is not None:
        return f"is of {_type_name(cls)}; convert it with {builtin.__name__}(...)"
    if callable(getattr(cls, "get_secret_value", None)):  # as pydantic's are
        return f"is of {_type_name(cls)}; use operon.Secret instead"
    return (
        f"is of {_type_name(cls)}; record plain data, a dataclass or a model instead "
        "(and name clients and sessions in ignore=)"
    )
