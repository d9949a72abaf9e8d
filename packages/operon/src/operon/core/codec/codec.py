"""The front of the package: one value or one error to JSON text and back; it must not know who asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from operon.core.codec import failures
from operon.core.codec.foreign import Calling
from operon.core.codec.form import Form, Policy
from operon.core.codec.hints import Unannotated
from operon.core.codec.secret import Cipher
from operon.errors import DeclarationError


class Codec:
    """Turn values and exceptions into JSON text and back, so that every reader sees what the first one saw.

    Args:
        max_payload: the largest record, in bytes.
        key: 16, 24 or 32 bytes that encrypt `Secret` values; None records them plainly.
        packages: top-level packages whose classes any record may name, beside those of the function's own.
        moved: classes by the path that older records name, `"shop.models:Order"`.

    Raises:
        DeclarationError: the key has a wrong length, or there is a key and no `cryptography`.
    """

    def __init__(
        self,
        *,
        max_payload: int = 10_000_000,
        key: bytes | None = None,
        packages: frozenset[str] = frozenset(),
        moved: Mapping[str, type] | None = None,
    ) -> None:
        cipher = Cipher(key) if key is not None else None
        for path, cls in dict[str, object](moved or {}).items():
            if not isinstance(cls, type) or ":" not in path:
                raise DeclarationError(f"moved= gives a class by its old path, 'module:Class'; {path!r} is none.")
        self.policy: Final = Policy(max_payload, packages, cipher, dict(moved or {}))
        self._forms: dict[tuple[Any, str | None], Form] = {}

    def encode(self, value: object, hint: Any = Unannotated, *, where: str, home: str | None = None) -> str:
        """Return the record of a value.

        Once this returns, `decode` with the same annotation and home gives an equal value of the same types.

        Args:
            value: what is to be recorded; it is not changed, and not kept.
            hint: its annotation; a value that does not match it is still recorded as what it is.
            where: what it is, for messages: "the result of step 'charge'".
            home: the module of the function it belongs to; None where the reader's home is not known.

        Raises:
            NotSerializable: it cannot be recorded; the message names the part and the way out.
            PayloadTooLarge: its record is larger than `max_payload`.
        """
        return self.form(hint, home).encode(value, where)

    def decode(self, text: str, hint: Any = Unannotated, *, home: str = "") -> Any:
        """Return the value of a record.

        Raises:
            NotDeserializable: it does not fit the annotation, or names a class that it may not.
        """
        return self.form(hint, home).decode(text)

    def round_trip(self, value: object, hint: Any = Unannotated, *, where: str, home: str = "") -> tuple[str, Any]:
        """Return a value's record, and the value as every later reader will see it.

        Raises:
            NotSerializable: it cannot be recorded.
        """
        form = self.form(hint, home)
        text = form.encode(value, where)
        return text, form.decode(text)

    def encode_error(
        self, error: BaseException, *, home: str, raises: tuple[type[BaseException], ...] = (), where: str
    ) -> str:
        """Return the record of an exception; one that cannot be rebuilt as itself is recorded as `StepFailed`.

        Raises:
            TypeError: it is no `Exception`: exits and interrupts are not results.
            PayloadTooLarge: not even its message fits into `max_payload`.
        """
        with Calling():
            return failures.encode(error, failures.trust(home, self.policy, raises), self.policy, where)

    def decode_error(self, text: str, *, home: str, raises: tuple[type[BaseException], ...] = ()) -> BaseException:
        """Return the exception of a record, made without running its `__init__`.

        With `home=""` the reader has no code of its own, and an error that it does not know is `StepFailed`.

        Raises:
            NotDeserializable: the record names a class that it may not, or does not fit it.
        """
        with Calling():
            return failures.decode(text, failures.trust(home, self.policy, raises), self.policy)

    def round_trip_error(
        self, error: BaseException, *, home: str, raises: tuple[type[BaseException], ...] = (), where: str
    ) -> tuple[str, BaseException]:
        """Return an exception's record, and the exception as every later reader will see it.

        Raises:
            TypeError: it is no `Exception`.
        """
        text = self.encode_error(error, home=home, raises=raises, where=where)
        return text, self.decode_error(text, home=home, raises=raises).with_traceback(error.__traceback__)

    def form(self, hint: Any = Unannotated, home: str | None = "") -> Form:
        """Return what writes and reads the values of one annotation; it is made once."""
        try:
            form = self._forms.get((hint, home))
        except TypeError:  # an annotation with unhashable metadata
            return Form(hint, home, self.policy)
        if form is None:
            form = self._forms[hint, home] = Form(hint, home, self.policy)
        return form
