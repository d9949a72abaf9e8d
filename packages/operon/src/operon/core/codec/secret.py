"""`Secret[T]`: a value that no log shows; it must not know how the value inside is recorded."""

from __future__ import annotations

import base64
import hashlib
import typing
from typing import TYPE_CHECKING, Any, Generic, TypeGuard, TypeVar

from operon.core.codec.refusal import Refusal
from operon.errors import DeclarationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

T_co = TypeVar("T_co", covariant=True)

_KEY_SIZES = (16, 24, 32)
_NONCE_SIZE = 12


class Secret(Generic[T_co]):
    """Hold a value that `repr`, `str` and every message of Operon's leave out.

    It is encrypted at rest where the app has a key; without one it is recorded plainly, but never logged.
    Two secrets are equal if their values are.

        >>> token = Secret("sk_live_1")
        >>> token
        Secret(****)
        >>> token.reveal()
        'sk_live_1'
    """

    __slots__ = ("_value",)

    def __init__(self, value: T_co) -> None:
        self._value = value

    def reveal(self) -> T_co:
        """Return the value itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(****)"

    def __eq__(self, other: object) -> bool:
        return self._value == other.reveal() if _is_secret(other) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Tell pydantic to read the value inside, and to write none of it."""
        from pydantic_core import core_schema

        inside = [handler.generate_schema(hint) for hint in typing.get_args(source)] or [core_schema.any_schema()]
        return core_schema.union_schema(
            [core_schema.is_instance_schema(cls), core_schema.no_info_after_validator_function(cls, inside[0])],
            serialization=core_schema.to_string_ser_schema(when_used="json"),
        )


def _is_secret(value: object) -> TypeGuard[Secret[object]]:
    return isinstance(value, Secret)


class Cipher:
    """Seal bytes with AES-GCM; equal bytes give equal text, so that arguments can be compared.

    The nonce is a keyed hash of the plain bytes (as in RFC 5297's SIV): it repeats only where the whole text repeats.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) not in _KEY_SIZES:
            raise DeclarationError(f"a key for secrets has 16, 24 or 32 bytes, not {len(key)}: secrets.token_bytes(32)")
        self._aead = _aead(key)
        self._nonce_key = hashlib.blake2b(b"operon.secret.nonce", key=key).digest()

    def seal(self, plain: bytes) -> str:
        """Return `plain` encrypted and authenticated, as base64 text."""
        nonce = hashlib.blake2b(plain, key=self._nonce_key, digest_size=_NONCE_SIZE).digest()
        return base64.b64encode(nonce + self._aead.encrypt(nonce, plain, None)).decode()

    def unseal(self, text: str) -> bytes:
        """Return what `seal` was given.

        Raises:
            Refusal: the text was sealed with another key, or was tampered with.
        """
        try:
            sealed = base64.b64decode(text, validate=True)
            return self._aead.decrypt(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], None)
        except Exception:  # the library has an InvalidTag of its own, which cannot be imported here
            raise Refusal("a secret in it does not open with this app's key") from None


def _aead(key: bytes) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise DeclarationError(
            "the app has a key for secrets, and nothing to encrypt with: pip install cryptography"
        ) from None
    return AESGCM(key)
