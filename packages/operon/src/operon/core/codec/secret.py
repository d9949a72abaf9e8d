"""`Secret[T]`: a value that no log shows; it must not know how the value inside is recorded."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Generic, TypeVar

from operon.errors import DeclarationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

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
        if not isinstance(other, Secret):
            return NotImplemented
        return bool(self._value == other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))


class Cipher:
    """Seal bytes with AES-GCM; equal bytes give equal text, so that arguments can be compared.

    The nonce is a keyed hash of the plain bytes (as in RFC 5297's SIV): it repeats only where the whole text repeats.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) not in _KEY_SIZES:
            message = (
                f"the key for secrets has {len(key)} bytes; it needs 16, 24 or 32: make one with secrets.token_bytes(32)"
            )
            raise DeclarationError(message)
        self._aead = _aead(key)
        self._nonce_key = hashlib.blake2b(b"operon.secret.nonce", key=key).digest()

    def seal(self, plain: bytes) -> str:
        """Return `plain` encrypted and authenticated, as base64 text."""
        nonce = hashlib.blake2b(plain, key=self._nonce_key, digest_size=_NONCE_SIZE).digest()
        return base64.b64encode(nonce + self._aead.encrypt(nonce, plain, None)).decode()

    def unseal(self, text: str) -> bytes:
        """Return what `seal` was given.

        Raises:
            ValueError: the text was sealed with another key, or was tampered with.
        """
        sealed = base64.b64decode(text, validate=True)
        try:
            return self._aead.decrypt(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], None)
        except Exception:  # noqa: BLE001 - the library's InvalidTag, which may not be imported here
            message = "a secret does not open with this app's key"
            raise ValueError(message) from None


def _aead(key: bytes) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - only apps with a key need it
    except ImportError:
        message = "the app has a key for secrets, but nothing to encrypt with: pip install cryptography"
        raise DeclarationError(message) from None
    return AESGCM(key)
