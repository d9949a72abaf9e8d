"""The families of classes that can be recorded, as one closed table; it must not know which classes are trusted.

Each family says how to take an object apart into simpler values, and how to put one together again without running
code that its author wrote (`__init__`, `__post_init__`, `__setattr__`), so that a row can fill fields and do no more.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from enum import Enum, Flag
from functools import cached_property, lru_cache
from typing import Any

import msgspec

from operon.core.codec.kinds import class_of
from operon.core.codec.refusal import Refusal

Fields = Mapping[str, Any]


class Family(msgspec.Struct, frozen=True):
    """One way to make classes: how to recognise it, take its objects apart, and put them together."""

    owns: Callable[[type], bool]
    dump: Callable[[Any], Any]
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
        raise Refusal("it names no member of an enum")
    return cls(recorded)


def _is_namedtuple(cls: type) -> bool:
    return tuple in cls.__mro__ and "_fields" in vars(cls)


def _dump_namedtuple(value: Any) -> Fields:
    fields: Fields = value._asdict()
    return fields


def _load_namedtuple(cls: Any, fields: Fields) -> object:
    values = {**cls._field_defaults, **fields}
    return cls._make(values[name] for name in cls._fields)


def _dump_struct(value: Any) -> Fields:
    return {name: getattr(value, name) for name in value.__struct_fields__}


def _load_struct(cls: type, fields: Fields) -> object:
    return cls(**fields)


def _dump_fields(value: Any) -> Fields:
    cls: type = class_of(value)
    names = [field.name for field in _fields(cls)]
    for name in getattr(value, "__dict__", ()):
        if name not in names and not _is_incidental(cls, name):
            raise Refusal(f"has the attribute .{name}, which is no field of its class; declare it as one")
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _load_fields(cls: type, fields: Fields) -> object:
    made = _empty(cls)
    for field in _fields(cls):
        if field.name in fields:
            object.__setattr__(made, field.name, fields[field.name])
        elif field.default is not None:
            object.__setattr__(made, field.name, field.default())
        elif field.is_argument:
            raise Refusal(f"it lacks .{field.name}, which {cls.__qualname__} needs now; give it a default")
    return made


_empty: Callable[[type], object] = object.__new__
"""An object of a class, without its fields; refused by Python for classes whose layout is not `object`'s."""


def _is_incidental(cls: type, name: str) -> bool:
    """Say whether an attribute is the cache of a property, or a mark that Python left."""
    return name == "__orig_class__" or isinstance(getattr(cls, name, None), cached_property)


class _Field(msgspec.Struct, frozen=True):
    """A field: a way to its default if it has one, and whether the class is called with it."""

    name: str
    default: Callable[[], object] | None
    is_argument: bool


@lru_cache(maxsize=4096)
def _fields(cls: type[Any]) -> tuple[_Field, ...]:
    if dataclasses.is_dataclass(cls):
        missing: object = dataclasses.MISSING
        return tuple(
            _Field(field.name, _default(field.default, field.default_factory, missing), field.init)
            for field in dataclasses.fields(cls)
        )
    nothing = sys.modules["attr"].NOTHING
    return tuple(
        _Field(field.name, _default(field.default, getattr(field.default, "factory", nothing), nothing), field.init)
        for field in cls.__attrs_attrs__
    )


def _default(value: object, factory: Any, missing: object) -> Callable[[], object] | None:
    if factory is not missing:
        made: Callable[[], object] = factory
        return made
    return None if value is missing else lambda: value


def is_pydantic(cls: object) -> bool:
    """Say whether this is a pydantic model, without importing pydantic."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(cls, type) and issubclass(cls, pydantic.BaseModel)


def _dump_pydantic(model: Any) -> Fields:
    """Its fields by name, and what else is in it by names that no field can have."""
    values: Fields = model.__dict__
    fields = {name: values[name] for name in model.__class__.model_fields if name in values}
    rest = {
        "__set__": sorted(model.model_fields_set),
        "__extra__": model.__pydantic_extra__,
        "__private__": model.__pydantic_private__,
    }
    return fields | {name: value for name, value in rest.items() if value is not None}


def _load_pydantic(cls: Any, recorded: Fields) -> object:
    fields = {
        name: recorded[name] if name in recorded else info.get_default(call_default_factory=True)
        for name, info in cls.model_fields.items()
    }
    state = {
        "__dict__": fields,
        "__pydantic_fields_set__": set(recorded["__set__"]),
        "__pydantic_extra__": recorded.get("__extra__"),
        "__pydantic_private__": recorded.get("__private__"),
    }
    made: Any = cls.__new__(cls)
    made.__setstate__(state)
    return made


FAMILIES = (
    Family(lambda cls: issubclass(cls, Enum), _dump_enum, _load_enum),
    Family(_is_namedtuple, _dump_namedtuple, _load_namedtuple),
    Family(lambda cls: issubclass(cls, msgspec.Struct), _dump_struct, _load_struct),
    Family(dataclasses.is_dataclass, _dump_fields, _load_fields),
    Family(lambda cls: hasattr(cls, "__attrs_attrs__"), _dump_fields, _load_fields),
    Family(is_pydantic, _dump_pydantic, _load_pydantic),
)
