"""What happened in a world, line by line: so short that one can read it, so exact that two runs can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from msgspec import Struct
from msgspec.structs import fields

from operon.core.rows import WorkflowRow


def nth(claim: int) -> int:
    """Say the how manieth claim of its workflow it is."""
    return claim & 0xFFFFF


def told(value: Any) -> str:
    """Spell a command or an answer; what is as it usually is stays unsaid."""
    if isinstance(value, WorkflowRow):
        return f"{value.id}/{nth(value.claim)} {value.status}"
    if isinstance(value, Struct):
        said = [(field, getattr(value, field.name)) for field in fields(value)]
        named = [(field.name, nth(it) if field.name == "claim" else it) for field, it in said if it != field.default]
        return f"{type(value).__name__}({', '.join(f'{name}={told(it)}' for name, it in named)})"
    if isinstance(value, Enum):
        return str(value.value)
    if issubclass(type(value), tuple):
        return f"({', '.join(told(it) for it in value)})"
    if issubclass(type(value), Mapping):
        return "{" + ", ".join(f"{key}: {told(it)}" for key, it in value.items()) + "}"
    return repr(value)
