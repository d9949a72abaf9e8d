"""What happened in a world, line by line: so short that one can read it, so exact that two runs can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from msgspec import Struct
from msgspec.structs import fields

from operon.core.rows import WorkflowRow


def told(value: Any) -> str:
    """Spell a command or an answer; what is as it usually is stays unsaid."""
    if isinstance(value, WorkflowRow):
        return f"{value.id}/{value.claim} {value.status}"
    if isinstance(value, Struct):
        said = [(field, getattr(value, field.name)) for field in fields(value)]
        told_of = [f"{field.name}={told(it)}" for field, it in said if it != field.default]
        return f"{type(value).__name__}({', '.join(told_of)})"
    if isinstance(value, Enum):
        return str(value.value)
    if issubclass(type(value), tuple):
        return f"({', '.join(told(it) for it in value)})"
    if issubclass(type(value), Mapping):
        return "{" + ", ".join(f"{key}: {told(it)}" for key, it in value.items()) + "}"
    return repr(value)
