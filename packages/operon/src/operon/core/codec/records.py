"""The families of classes that can be recorded, as one closed table; it must not know which classes are trusted.

Each family says how to take an object apart into simpler values, and how to put one together again without running
code that its author wrote (`__init__`, `__post_init__`, `__setattr__`), so that a row can fill fields and do no more.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, Flag
from functools import cached_property, lru_cache
from typing import Any

import msgspec

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Family:
    """One way to make classes: how to recognise it, take its objects apart, and put them together."""

    owns: Callable[[type], bool]
    dump: Callable[[Any], object]
    load: Callable[[type, Any], object]


@lru_cache(maxsize=4096)
def family_of(cls: type) -> Family | None:
    """Return the family of a class, or None if its objects cannot be recorded."""
    return next((family for family in FAMILIES if family.owns(cls)), None)


def _dump_enum(member: Enum) -> object:
    return member.name if member.name in type(member).__members__ else member.value


def _load_enum(cls: type[Enum], recorded: Any) -> object:
    if isinstance(recorded, str):
        return cls.__members__[recorded]
    if not issubclass(cls, Flag):
        message = "names no member"
        raise ValueError(message)
    return cls(recorded)


def _is_namedtuple(cls: type) -> bool:
    return issubclass(cls, tuple) and isinstance(vars(cls).get("_fields"), tuple)


def _dump_namedtuple(value: Any) -> Fields:
    return dict(zip(type(value)._fields, value, strict=True))


def _load_namedtuple(cls: Any, fields: Fields) -> object:
    return tuple.__new__(cls, [fields[name] if name in fields else cls._field_defaults[name] for name in cls._fields])


def _dump_struct(value: Any) -> Fields:
    return {name: getattr(value, name) for name in type(value).__struct_fields__}


def _load_struct(cls: type, fields: Fields) -> object:
    return cls(**fields)


def _dump_fields(value: Any) -> Fields:
    names = [name for name, _ in _fields(type(value))]
    if extra := extra_attributes(value, names):
        message = f"has the attribute .{extra[0]}, which is no field of it; declare it as one"
        raise ValueError(message)
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _load_fields(cls: type, fields: Fields) -> object:
    made = object.__new__(cls)
    for name, default in _fields(cls):
        if name in fields:
            object.__setattr__(made, name, fields[name])
        elif default is not None:
            object.__setattr__(made, name, default())
    return made


def extra_attributes(value: object, names: list[str]) -> list[str]:
    """Return the attributes of an object that are neither fields nor cached properties."""
    own = getattr(value, "__dict__", {})
    return [
        name
        for name in own
        if name not in names and not isinstance(getattr(type(value), name, None), cached_property)
    ]


def _fields(cls: Any) -> Iterator[tuple[str, Callable[[], object] | None]]:
    """Each field's name and a way to its default, if it has one."""
    if dataclasses.is_dataclass(cls):
        for field in dataclasses.fields(cls):
            yield field.name, _default(field.default, field.default_factory, dataclasses.MISSING)
        return
    nothing = sys.modules["attr"].NOTHING
    for attribute in cls.__attrs_attrs__:
        factory = getattr(attribute.default, "factory", nothing)
        yield attribute.name, _default(nothing if factory is not nothing else attribute.default, factory, nothing)


def _default(value: object, factory: Any, missing: object) -> Callable[[], object] | None:
    if factory is not missing:
        return factory  # type: ignore[no-any-return]
    return None if value is missing else lambda: value


def is_pydantic(cls: object) -> bool:
    """Say whether this is a pydantic model, without importing pydantic."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(cls, type) and issubclass(cls, pydantic.BaseModel)


def _dump_pydantic(model: Any) -> Fields:
    fields = {name: value for name, value in vars(model).items() if name in type(model).model_fields}
    return {
        "fields": fields,
        "set": sorted(model.model_fields_set),
        "extra": model.__pydantic_extra__,
        "private": model.__pydantic_private__,
    }


def _load_pydantic(cls: Any, recorded: Fields) -> object:
    fields = {
        name: recorded["fields"][name] if name in recorded["fields"] else info.get_default(call_default_factory=True)
        for name, info in cls.model_fields.items()
    }
    made = cls.__new__(cls)
    made.__setstate__({
        "__dict__": fields,
        "__pydantic_fields_set__": set(recorded["set"]),
        "__pydantic_extra__": recorded["extra"],
        "__pydantic_private__": recorded["private"],
    })
    return made


FAMILIES = (
    Family(lambda cls: issubclass(cls, Enum), _dump_enum, _load_enum),
    Family(_is_namedtuple, _dump_namedtuple, _load_namedtuple),
    Family(lambda cls: issubclass(cls, msgspec.Struct), _dump_struct, _load_struct),
    Family(dataclasses.is_dataclass, _dump_fields, _load_fields),
    Family(lambda cls: hasattr(cls, "__attrs_attrs__"), _dump_fields, _load_fields),
    Family(is_pydantic, _dump_pydantic, _load_pydantic),
)
