"""What a simulation ends with when the engine is wrong."""

from __future__ import annotations


class LawBroken(AssertionError):
    """The engine did what it must never do."""
