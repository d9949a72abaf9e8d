"""Which values need no proof: msgspec writes and reads them back the same; it must not know how they are written.

From an annotation it makes a test that is quick and errs on the side of "no": what it does not recognise is proved.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, timezone
from enum import Flag
from operator import attrgetter
from types import NoneType
from typing import Any
from uuid import UUID

from msgspec import inspect

Test = Callable[[Any], bool]
Rule = frozenset[type] | Test | None
"""Types whose every value is faithful (tested many at once, by type alone), a test of values, or "always prove it"."""

_PLAIN = frozenset({NoneType, bool, int, str})
_LIMITS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern", "tz")


def is_plain(value: object) -> bool:
    """Say whether this is a value that JSON itself has: None, bool, int, str, a finite float."""
    return type(value) in _PLAIN or _is_finite(value)


def faithful(info: inspect.Type) -> Test:
    """Return the test for one annotation, given what msgspec knows of it."""
    return _test(_Compiler().rule(info))


class _Compiler:
    """Compiles one annotation; a type that contains itself refers to its own test."""

    def __init__(self) -> None:
        self._rules: dict[int, Rule] = {}

    def rule(self, info: Any) -> Rule:
        key = id(info)
        if key not in self._rules:
            self._rules[key] = lambda value: _test(self._rules[key])(value)
            self._rules[key] = self._compile(info)
        return self._rules[key]

    def rules(self, infos: Iterable[object]) -> list[frozenset[type] | Test] | None:
        rules = [self.rule(info) for info in infos]
        known = [rule for rule in rules if rule is not None]
        return known if len(known) == len(rules) else None

    def _compile(self, info: Any) -> Rule:
        compile_ = _COMPILE.get(type(info))
        if compile_ is None or any(getattr(info, limit, None) is not None for limit in _LIMITS):
            return None
        return compile_(self, info)


def _exactly(*types: type) -> Callable[[_Compiler, Any], Rule]:
    return lambda *_: frozenset(types)


def _by(test: Test) -> Callable[[_Compiler, Any], Rule]:
    return lambda *_: test


def _enum(_: _Compiler, info: inspect.EnumType) -> Rule:
    return None if issubclass(info.cls, Flag) else frozenset({info.cls})


def _literal(_: _Compiler, info: inspect.LiteralType) -> Rule:
    return lambda value: any(type(value) is type(known) and value == known for known in info.values)


def _items(container: type) -> Callable[[_Compiler, Any], Rule]:
    def compile_(compiler: _Compiler, info: inspect.ListType | inspect.VarTupleType) -> Rule:
        item = compiler.rule(info.item_type)
        if item is None:
            return None
        fit = _test_all(item)
        return lambda value: type(value) is container and fit(value)

    return compile_


def _tuple(compiler: _Compiler, info: inspect.TupleType) -> Rule:
    rules = compiler.rules(info.item_types)
    if rules is None:
        return None
    tests = [_test(rule) for rule in rules]
    return lambda value: type(value) is tuple and len(value) == len(tests) and _each(tests, value)


def _dict(compiler: _Compiler, info: inspect.DictType) -> Rule:
    key, item = compiler.rule(info.key_type), compiler.rule(info.value_type)
    if key not in {frozenset({str}), frozenset({int})} or item is None:
        return None
    keys_fit, values_fit = _test_all(key), _test_all(item)
    return lambda value: type(value) is dict and keys_fit(value) and values_fit(value.values())


def _union(compiler: _Compiler, info: inspect.UnionType) -> Rule:
    rules = compiler.rules(info.types)
    if rules is None:
        return None
    types = frozenset[type]().union(*(rule for rule in rules if isinstance(rule, frozenset)))
    tests = [rule for rule in rules if not isinstance(rule, frozenset)]
    if not tests:
        return types
    return lambda value: type(value) in types or any(test(value) for test in tests)


def _record(compiler: _Compiler, info: Any) -> Rule:
    """Classes whose fields are all there is to them; with a `__post_init__`, nobody knows."""
    rules = compiler.rules(field.type for field in info.fields)
    if not rules or hasattr(info.cls, "__post_init__") or len(rules) != _size(info.cls):
        return None
    cls, size, tests = info.cls, len(rules), [_test(rule) for rule in rules]
    names = [field.name for field in info.fields]
    fields_of = attrgetter(*names) if size > 1 else lambda value: (getattr(value, names[0]),)
    has_dict = cls.__dictoffset__ != 0

    def test(value: Any) -> bool:
        return (
            type(value) is cls and not (has_dict and len(vars(value)) != size) and _each(tests, fields_of(value))
        )

    return test


def _size(cls: Any) -> int:
    """How many fields a class says that it has; -1 if it is of a family that converts what it is given."""
    if dataclasses.is_dataclass(cls):
        return len(dataclasses.fields(cls))
    return len(getattr(cls, "__struct_fields__", getattr(cls, "_fields", ()))) or -1


def _test(rule: Rule) -> Test:
    if rule is None:
        return lambda _: False
    if isinstance(rule, frozenset):
        return lambda value: type(value) in rule
    return rule


def _test_all(rule: frozenset[type] | Test) -> Callable[[Iterable[Any]], bool]:
    if isinstance(rule, frozenset):
        return lambda values: rule.issuperset(map(type, values))
    return lambda values: all(map(rule, values))


def _each(tests: list[Test], values: Iterable[Any]) -> bool:
    for test, value in zip(tests, values, strict=True):  # noqa: SIM110 - a generator would double the time
        if not test(value):
            return False
    return True


def _is_finite(value: object) -> bool:
    return type(value) is float and math.isfinite(value)


def _is_simple_instant(value: object) -> bool:
    return type(value) is datetime and not value.fold and (value.tzinfo is None or value.tzinfo is timezone.utc)


_COMPILE: Mapping[type, Callable[[_Compiler, Any], Rule]] = {
    inspect.AnyType: _by(is_plain),
    inspect.NoneType: _exactly(NoneType),
    inspect.BoolType: _exactly(bool),
    inspect.IntType: _exactly(int),
    inspect.StrType: _exactly(str),
    inspect.BytesType: _exactly(bytes),
    inspect.UUIDType: _exactly(UUID),
    inspect.DateType: _exactly(date),
    inspect.FloatType: _by(_is_finite),
    inspect.DateTimeType: _by(_is_simple_instant),
    inspect.EnumType: _enum,
    inspect.LiteralType: _literal,
    inspect.ListType: _items(list),
    inspect.VarTupleType: _items(tuple),
    inspect.TupleType: _tuple,
    inspect.DictType: _dict,
    inspect.UnionType: _union,
    inspect.DataclassType: _record,
    inspect.StructType: _record,
    inspect.NamedTupleType: _record,
}
