"""How the values of one annotation are recorded, and proved to come back the same; it must not know functions.

A value that fits its annotation is recorded as msgspec writes it, and so looks in SQL as anyone would expect. Any other
is recorded in its tagged form; that begins with `{"$"`, which a typed record never does.
"""

from __future__ import annotations

import typing
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import json

from operon.core.codec.exact import faithful
from operon.core.codec.hints import ANYTHING, info_of, types_in
from operon.core.codec.records import family_of, is_pydantic
from operon.core.codec.secret import Secret
from operon.core.codec.tagged import MARK, Packer, Refusal, Unpacker
from operon.core.codec.trust import Trust, class_name
from operon.errors import NotDeserializable, NotSerializable, PayloadTooLarge

if TYPE_CHECKING:
    from operon.core.codec.secret import Cipher

_SHOWN_STEPS = 8


@dataclass(frozen=True, slots=True)
class Rules:
    """What one codec allows: bytes a record, packages whose classes rows may name, the cipher for secrets if any."""

    max_payload: int
    packages: frozenset[str]
    cipher: Cipher | None

    def check_size(self, data: bytes, where: str) -> str:
        """Return a record as text.

        Raises:
            PayloadTooLarge: it has more bytes than the limit.
        """
        if len(data) > self.max_payload:
            message = (
                f"{where} takes {len(data):,} bytes as JSON, and the limit is {self.max_payload:,}; "
                "record a reference (a path, a key) instead, or raise max_payload"
            )
            raise PayloadTooLarge(message)
        return data.decode()


class Form:
    """Writes and reads the values of one annotation, for functions of one home module (None: any; to write only)."""

    def __init__(self, hint: Any, home: str | None, rules: Rules) -> None:
        types = types_in(hint)
        self._hint = hint
        self._rules = rules
        self._trust = Trust(home, rules.packages, {class_name(cls): cls for cls in types if family_of(cls)})
        self._unpacker = Unpacker(self._trust, rules.cipher)
        self._is_any = hint in ANYTHING
        info = info_of(hint)
        self._decoder = None if info is None or self._is_any else self._decoder_for(hint)
        self._is_faithful = _never if info is None or not (self._is_any or self._decoder) else faithful(info)
        has_sets = any(issubclass(cls, AbstractSet) for cls in types)
        self._encode = json.Encoder(enc_hook=self._simplify, order="deterministic" if has_sets else None).encode

    def encode(self, value: object, where: str) -> str:
        """Return the value's record: JSON that `decode` turns into an equal value of the same types.

        Raises:
            NotSerializable: it cannot be recorded; the message says which part, and why.
            PayloadTooLarge: it is larger than the limit.
        """
        data = self._written(value) if self._is_faithful(value) else None
        return self._rules.check_size(data or self._proved(value, where), where)

    def decode(self, text: str) -> Any:
        """Return the value of a record.

        Raises:
            NotDeserializable: the record does not fit the annotation, or names what it may not.
        """
        if len(text) > self._rules.max_payload:
            raise unreadable(self._hint, f"its {len(text):,} characters are more than max_payload")
        try:
            return self._read(text)
        except Exception as error:  # noqa: BLE001 - whatever the validation of the user's types raises
            raise unreadable(self._hint, reason(error)) from None

    def _read(self, text: str) -> Any:
        if self._decoder is not None and not text.startswith('{"$"'):
            return self._decoder.decode(text)
        return self._unpacker.loads(text) if '"$"' in text else json.decode(text)

    def _written(self, value: object) -> bytes | None:
        """What msgspec makes of a value: None if it refuses it, or it looks like the tagged form."""
        try:
            data = self._encode(value)
        except Exception:  # noqa: BLE001 - a model's own serializers may raise anything
            return None
        return None if data.startswith(MARK) else data

    def _proved(self, value: object, where: str) -> bytes:
        """The typed record if it gives the same value back; else the tagged one, proved too where classes are in it."""
        try:
            packer = Packer(self._trust, self._rules.cipher)
            tagged = packer.dumps(value)
            if self._decoder is not None and (typed := self._written(value)) and self._gives(tagged, typed):
                return typed
            if packer.has_records and not self._gives(tagged, tagged):
                raise Refusal("does not come back as it was; its class keeps state that is in no field of it")
        except Refusal as refusal:
            raise unrecordable(refusal, where) from None
        except RecursionError:
            raise unrecordable(Refusal("is nested too deeply; record it flat, or as text"), where) from None
        return tagged if self._is_any or tagged.startswith(MARK) else b'{"$":"plain","v":%b}' % tagged

    def _gives(self, tagged: bytes, record: bytes) -> bool:
        try:
            return Packer(self._trust, self._rules.cipher).dumps(self._read(record.decode())) == tagged
        except Exception:  # noqa: BLE001 - what cannot be read back, for whatever reason, is not the same
            return False

    def _decoder_for(self, hint: Any) -> json.Decoder[Any] | None:
        try:
            return json.Decoder(int | float if hint is float else hint, dec_hook=self._restore)
        except TypeError:
            return None

    def _simplify(self, value: Any) -> object:
        """Write what msgspec does not know: secrets and pydantic's models."""
        if type(value) is Secret:
            return Packer(self._trust, self._rules.cipher).pack(value)
        if is_pydantic(type(value)):
            return value.model_dump(mode="json", by_alias=True, round_trip=True)
        raise NotImplementedError

    def _restore(self, cls: Any, node: Any) -> object:
        """Read what msgspec does not know; which class it is, the annotation says."""
        if (typing.get_origin(cls) or cls) is Secret:
            return self._unpacker.secret(node)
        if is_pydantic(cls):
            return cls.model_validate_json(json.encode(node))
        raise NotImplementedError


def _never(_: object) -> bool:
    return False


def unrecordable(refusal: Refusal, where: str) -> NotSerializable:
    """Return the error that says which part of a value cannot be recorded, and what to do."""
    steps = refusal.path
    if len(steps) > _SHOWN_STEPS:
        steps = [*steps[: _SHOWN_STEPS - 1], "…", steps[-1]]
    noun = where.removeprefix("the ").partition(" ")[0]
    return NotSerializable(f"{where} cannot be recorded: {noun}{''.join(steps)} {refusal.reason}")


def unreadable(hint: Any, why: str) -> NotDeserializable:
    """Return the error that says why a record cannot be read."""
    name = "any value" if hint in ANYTHING else getattr(hint, "__qualname__", None) or str(hint)
    return NotDeserializable(f"a record cannot be read as {name}: {why}")


def reason(error: Exception) -> str:
    """Say why, without showing values: they may be secret, and other libraries' messages quote them."""
    if type(error) in {ValueError, TypeError, msgspec.ValidationError, msgspec.DecodeError}:
        return str(error)
    return f"{type(error).__name__} while it was read"
