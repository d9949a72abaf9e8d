"""Which values need no proof: msgspec writes and reads them back the same; it must not know how they are written.

From an annotation it makes a test that is quick and errs on the side of "no": what it does not recognise is proved.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Flag
from operator import attrgetter
from types import NoneType
from typing import Any, TypeAlias
from uuid import UUID

from msgspec import inspect

from operon.core.codec.hints import ANYTHING
from operon.core.codec.kinds import class_of

Test: TypeAlias = Callable[[Any], bool]
Types: TypeAlias = frozenset[type[Any]]

_LIMITS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern", "tz")


def rule_of(hint: Any) -> Rule:
    """Return the rule for one annotation."""
    try:
        info = inspect.type_info(Any if hint in ANYTHING else hint)
    except Exception:  # msgspec has no form for it, or a name in it cannot be resolved, which may fail in any way
        return Rule()
    return _Compiler().rule(info) or Rule()


@dataclass(frozen=True, slots=True)
class Rule:
    """Values are faithful if they are exactly of one of the types, or pass one of the tests."""

    types: Types = frozenset()
    tests: tuple[Test, ...] = ()

    def test(self) -> Test:
        """Return the test of one value."""
        types, tests = self.types, self.tests
        if not tests:
            return lambda value: type(value) in types
        if not types and len(tests) == 1:
            return tests[0]
        return lambda value: type(value) in types or any(test(value) for test in tests)

    def test_all(self) -> Callable[[Iterable[Any]], bool]:
        """Return the test of many values, which for types alone is one call."""
        types, test = self.types, self.test()
        if not self.tests:
            return lambda values: types.issuperset(map(type, values))
        return lambda values: all(map(test, values))


class _Compiler:
    """Compiles one annotation; None is "always prove it", as for types that contain themselves and may be deep."""

    def __init__(self) -> None:
        self._rules: dict[int, Rule | None] = {}

    def rule(self, info: Any) -> Rule | None:
        key = id(info)
        if key not in self._rules:
            self._rules[key] = None
            self._rules[key] = self._compile(info)
        return self._rules[key]

    def rules(self, infos: Iterable[object]) -> list[Rule] | None:
        rules = [self.rule(info) for info in infos]
        known = [rule for rule in rules if rule is not None]
        return known if len(known) == len(rules) else None

    def _compile(self, info: Any) -> Rule | None:
        compile_ = _COMPILE.get(info.__class__)
        if compile_ is None or any(getattr(info, limit, None) is not None for limit in _LIMITS):
            return None
        return compile_(self, info)


_Compile: TypeAlias = Callable[[_Compiler, Any], Rule | None]


def _always(rule: Rule) -> _Compile:
    def compile_(_: _Compiler, __: inspect.Type) -> Rule:
        return rule

    return compile_


def _exactly(cls: type[Any]) -> _Compile:
    return _always(Rule(types=frozenset({cls})))


def _tested(test: Test) -> Rule:
    return Rule(tests=(test,))


def _enum(_: _Compiler, info: inspect.EnumType) -> Rule | None:
    return None if issubclass(info.cls, Flag) else Rule(types=frozenset({info.cls}))


def _literal(_: _Compiler, info: inspect.LiteralType) -> Rule:
    return _tested(lambda value: any(type(value) is type(known) and value == known for known in info.values))


def _items(container: type[Any]) -> _Compile:
    def compile_(compiler: _Compiler, info: Any) -> Rule | None:
        item = compiler.rule(info.item_type)
        if item is None:
            return None
        fit = item.test_all()
        return _tested(lambda value: type(value) is container and fit(value))

    return compile_


def _tuple(compiler: _Compiler, info: inspect.TupleType) -> Rule | None:
    rules = compiler.rules(info.item_types)
    if rules is None:
        return None
    tests = [rule.test() for rule in rules]

    def fits(value: Sequence[object]) -> bool:
        return len(value) == len(tests) and all(test(item) for test, item in zip(tests, value, strict=True))

    return _tested(lambda value: class_of(value) is tuple and fits(value))


def _dict(compiler: _Compiler, info: inspect.DictType) -> Rule | None:
    key, item = compiler.rule(info.key_type), compiler.rule(info.value_type)
    if key is None or item is None or key.tests or len(key.types) != 1 or not key.types <= {str, int}:
        return None
    keys_fit, values_fit = key.test_all(), item.test_all()
    return _tested(lambda value: class_of(value) is dict and keys_fit(value) and values_fit(value.values()))


def _union(compiler: _Compiler, info: inspect.UnionType) -> Rule | None:
    rules = compiler.rules(info.types)
    if rules is None:
        return None
    types: Types = frozenset()
    return Rule(types.union(*(rule.types for rule in rules)), tuple(test for rule in rules for test in rule.tests))


def _record(compiler: _Compiler, info: Any) -> Rule | None:
    """Classes whose fields are all there is to them; with a `__post_init__`, nobody knows."""
    rules = compiler.rules([field.type for field in info.fields])
    if not rules or hasattr(info.cls, "__post_init__") or len(rules) != _size(info.cls):
        return None
    cls, size, has_dict = info.cls, len(rules), info.cls.__dictoffset__ != 0
    fit = _fields_fit({field.name: rule for field, rule in zip(info.fields, rules, strict=True)})
    return _tested(lambda value: type(value) is cls and not (has_dict and len(value.__dict__) != size) and fit(value))


def _fields_fit(rules: Mapping[str, Rule]) -> Test:
    """Fields of one exact type are compared all at once, the others one by one."""
    simple = {name: rule.types for name, rule in rules.items() if not rule.tests and len(rule.types) == 1}
    types_of, types = _getter([*simple]), tuple(cls for types in simple.values() for cls in types)
    others = [(attrgetter(name), rule.test()) for name, rule in rules.items() if name not in simple]

    def test(value: object) -> bool:
        if tuple(map(type, types_of(value))) != types:
            return False
        for get, fits in others:  # noqa: SIM110 - a generator takes twice the time
            if not fits(get(value)):
                return False
        return True

    return test


def _getter(names: list[str]) -> Callable[[object], Iterable[object]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: [getattr(value, name) for name in names]


def _size(cls: Any) -> int:
    """How many fields a class says that it has; -1 if there may be more to its objects, or they convert them."""
    if dataclasses.is_dataclass(cls):
        return len(dataclasses.fields(cls)) if cls.__new__ is object.__new__ else -1
    return len(getattr(cls, "__struct_fields__", getattr(cls, "_fields", ()))) or -1


def _is_finite(value: object) -> bool:
    return type(value) is float and math.isfinite(value)


def _is_simple_instant(value: object) -> bool:
    return type(value) is datetime and not value.fold and (value.tzinfo is None or value.tzinfo is UTC)


_COMPILE: Mapping[type[inspect.Type], _Compile] = {
    inspect.AnyType: _always(Rule(frozenset({NoneType, bool, int, str}), (_is_finite,))),
    inspect.NoneType: _exactly(NoneType),
    inspect.BoolType: _exactly(bool),
    inspect.IntType: _exactly(int),
    inspect.StrType: _exactly(str),
    inspect.BytesType: _exactly(bytes),
    inspect.UUIDType: _exactly(UUID),
    inspect.DateType: _exactly(date),
    inspect.FloatType: _always(_tested(_is_finite)),
    inspect.DateTimeType: _always(_tested(_is_simple_instant)),
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
