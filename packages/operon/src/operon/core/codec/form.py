"""How the values of one annotation are recorded, and proved to come back the same; it must not know functions.

A value that fits its annotation is recorded as msgspec writes it, and so looks in SQL as anyone would expect. Any other
is recorded in its tagged form; that begins with `{"$"`, which a typed record never does.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import json

from operon.core.codec.foreign import Calling
from operon.core.codec.hints import ANYTHING, types_in
from operon.core.codec.kinds import class_of
from operon.core.codec.records import family_of, is_pydantic
from operon.core.codec.refusal import Refusal
from operon.core.codec.secret import Secret
from operon.core.codec.tagged import MARK, Packer, Unpacker
from operon.core.codec.trust import Trust, class_name
from operon.errors import NotDeserializable, NotInWorkflow, NotSerializable, PayloadTooLarge
from operon.types import Context, ScheduleRecord, Status, StepRecord, Unreadable, User, WorkflowRecord

if TYPE_CHECKING:
    from operon.core.codec.exact import Rule
    from operon.core.codec.secret import Cipher

SCALARS: frozenset[type] = frozenset({type(None), bool, int, str})
"""Types that JSON has in one form only, and whose values nobody can change."""
_SHOWN_STEPS = 8
_PUBLIC = (Status, User, Unreadable, WorkflowRecord, ScheduleRecord, StepRecord, Context)
_OURS: dict[str, type] = {class_name(cls): cls for cls in _PUBLIC}
"""What the verbs give, so that a step or a workflow may return it."""


class Policy(msgspec.Struct, frozen=True):
    """What one codec allows: bytes a record, packages whose classes rows may name, the cipher for secrets if any."""

    max_payload: int
    packages: frozenset[str]
    cipher: Cipher | None
    moved: Mapping[str, type] = {}
    """Classes by the path that older rows know them by."""

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

    def check_length(self, text: str) -> None:
        """Let a record pass that may have been written under this policy.

        Raises:
            Refusal: it is longer than any of those.
        """
        if len(text) > self.max_payload:
            raise Refusal(f"it has {len(text):,} characters, and max_payload is {self.max_payload:,}")


class Form:
    """Writes and reads the values of one annotation, for functions of one home module (None: any; to write only)."""

    def __init__(self, hint: Any, home: str | None, policy: Policy) -> None:
        types = types_in(hint)
        self._hint = hint
        self._policy = policy
        self._trust = Trust(
            home,
            policy.packages,
            _OURS | {class_name(cls): cls for cls in types if family_of(cls)} | dict(policy.moved),
        )
        self._unpacker = Unpacker(self._trust, policy.cipher)
        self._is_any = hint in ANYTHING
        self._decoder = None if self._is_any else self._decoder_for(hint)
        rule = _rule(hint) if self._is_any or self._decoder else None
        self._is_faithful: Callable[[Any], bool] = rule.test() if rule else _never
        self.plain: frozenset[type] = rule.types & SCALARS if rule else frozenset()
        """Types whose values are recorded as JSON has them, whatever they are; but text has to be Unicode."""
        self._is_plain = rule is not None and rule.types <= SCALARS
        has_sets = any(issubclass(cls, AbstractSet) for cls in types)
        self._encode = json.Encoder(enc_hook=self._simplify, order="deterministic" if has_sets else None).encode

    def encode(self, value: object, where: str) -> str:
        """Return the value's record: JSON that `decode` turns into an equal value of the same types.

        Raises:
            NotSerializable: it cannot be recorded; the message says which part, and why.
            PayloadTooLarge: it is larger than the limit.
        """
        if type(value) in self.plain and (data := self._written(value)):
            return self._policy.check_size(data, where)
        with Calling():
            data = self._written(value) if self._is_faithful(value) else None
            return self._policy.check_size(data or self._proved(value, where), where)

    def decode(self, text: str) -> Any:
        """Return the value of a record.

        Raises:
            NotDeserializable: the record does not fit the annotation, or names what it may not.
        """
        try:
            self._policy.check_length(text)
            if self._is_plain:
                return self._read(text)
            with Calling():
                return self._read(text)
        except Exception as error:  # whatever the validation of the user's types raises
            raise unreadable(_name(self._hint), error) from None

    def _read(self, text: str) -> Any:
        if self._decoder is not None and not text.startswith('{"$"'):
            return self._decoder.decode(text)
        return self._unpacker.loads(text) if '"$"' in text else json.decode(text)

    def _written(self, value: object) -> bytes | None:
        """What msgspec makes of a value: None if it refuses it, or it looks like the tagged form."""
        try:
            data = self._encode(value)
        except NotInWorkflow:
            raise
        except Exception:  # a model's own serializers may raise anything
            return None
        return None if data.startswith(MARK) else data

    def _proved(self, value: object, where: str) -> bytes:
        """The typed record if it gives the same value back; else the tagged one, proved too where classes are in it."""
        packer = self._packer()
        try:
            tagged = packer.dumps(value)
            typed = self._written(value) if self._decoder else None
            if typed and self._decoder and self._is_same(tagged, self._decoder.decode, typed):
                return typed
            if packer.has_records and not self._is_same(tagged, self._unpacker.loads, tagged):
                raise unrecordable(Refusal("does not come back as it was; keep all of it in fields"), where)
        except Refusal as refusal:
            raise unrecordable(refusal, where) from None
        except RecursionError:
            raise unrecordable(Refusal("is nested too deeply; record it flat, or as text"), where) from None
        return tagged if self._is_any or tagged.startswith(MARK) else b'{"$":"plain","v":%b}' % tagged

    def _is_same(self, tagged: bytes, read: Callable[[bytes], object], record: bytes) -> bool:
        try:
            return self._packer().dumps(read(record)) == tagged
        except NotInWorkflow:
            raise
        except Exception:  # what cannot be read back, for whatever reason, is not the same
            return False

    def _packer(self) -> Packer:
        return Packer(self._trust, self._policy.cipher)

    def _decoder_for(self, hint: Any) -> json.Decoder[Any] | None:
        try:
            return json.Decoder(int | float if hint is float else hint, dec_hook=self._restore)
        except Exception:  # not only TypeError: names in its fields that cannot be resolved may fail in any way
            return None

    def _simplify(self, value: Any) -> object:
        """Write what msgspec does not know: secrets and pydantic's models."""
        if type(value) is Secret:
            return self._packer().pack(value)
        if is_pydantic(class_of(value)):
            return value.model_dump(mode="json", by_alias=True, round_trip=True, warnings=False)
        raise NotImplementedError

    def _restore(self, cls: Any, node: Any) -> object:
        """Read what msgspec does not know; which class it is, the annotation says."""
        origin: object = typing.get_origin(cls)
        if Secret in {cls, origin}:
            return self._unpacker.secret(node)
        if is_pydantic(cls):
            return _validated(cls, node)
        raise NotImplementedError


def unrecordable(refusal: Refusal, where: str) -> NotSerializable:
    """Return the error that says which part of a value cannot be recorded, and what to do."""
    steps = refusal.path
    if len(steps) > _SHOWN_STEPS:
        steps = [*steps[: _SHOWN_STEPS - 1], "…", steps[-1]]
    noun = where.removeprefix("the ").partition(" ")[0]
    return NotSerializable(f"{where} cannot be recorded: {noun}{''.join(steps)} {refusal.reason}")


def unreadable(what: str, error: Exception) -> NotDeserializable:
    """Return the error that says why a record cannot be read, without values: they may be secret."""
    known = isinstance(error, Refusal | msgspec.MsgspecError | NotInWorkflow)
    return NotDeserializable(f"a record cannot be read as {what}: {error if known else type(error).__name__}")


def _validated(cls: Any, node: object) -> object:
    """A pydantic model; where it is refused, its places are told, not its values."""
    try:
        return cls.model_validate_json(json.encode(node))
    except sys.modules["pydantic"].ValidationError as error:
        places = sorted({".".join(map(str, each["loc"])) for each in error.errors(include_input=False)})
        raise Refusal(f"{cls.__qualname__} refuses {', '.join(places) or 'it'}") from None


def _name(hint: Any) -> str:
    return "any value" if hint in ANYTHING else getattr(hint, "__qualname__", None) or str(hint)


def _rule(hint: Any) -> Rule:
    from operon.core.codec.exact import rule_of  # not before the first value: msgspec's inspection is slow to import

    return rule_of(hint)


def _never(_: object) -> bool:
    return False
