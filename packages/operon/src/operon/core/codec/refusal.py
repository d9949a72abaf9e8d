"""What stops a value or a record inside the codec; it must not know what the public errors say about it."""

from __future__ import annotations


class Refusal(Exception):
    """A value cannot be recorded, or a record cannot be read, for a reason that quotes no values.

    `path` leads to the part of the value; it is filled on the way out. No public error: it never leaves the codec.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []

    def at(self, step: str) -> Refusal:
        """Return itself, one step further out."""
        self.path.insert(0, step)
        return self
