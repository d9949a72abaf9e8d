"""Values come back equal and of the same types, or are refused before anything is recorded; rows never run code."""

# ruff: noqa: D101, D106 - the classes are specimens

from __future__ import annotations

import json
import math
import os
import sys
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum, auto
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from children import ran
from operon.core.codec import Codec, Secret, Signature, Unannotated
from operon.core.codec.kinds import BY_TAG, class_of
from operon.errors import DeclarationError, NotDeserializable, NotSerializable, PayloadTooLarge

if TYPE_CHECKING:
    from fractions import Fraction

T = TypeVar("T")
HERE: Final = __name__
WHERE: Final = "the result of step 'charge'"
codec: Final = Codec()


class Colour(Enum):
    RED = "red"
    PAIR = (1, 2)


class Size(IntEnum):
    SMALL = 1


class Mood(StrEnum):
    GOOD = "good"


class Permission(Flag):
    READ = auto()
    WRITE = auto()


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Row(TypedDict):
    id: int
    at: datetime


@dataclass
class Item:
    sku: str
    count: int
    price: float = 1.0


@dataclass
class Order:
    id: int
    items: list[Item] = field(default_factory=list[Item])
    note: Any = None


@dataclass
class Express(Order):
    fee: Decimal = Decimal("9.90")


class Shelf:
    @dataclass
    class Slot:
        n: int


@dataclass(frozen=True, slots=True)
class Money:
    cents: int
    currency: str = "EUR"


@dataclass
class Box(Generic[T]):
    inside: T


@dataclass
class Tree:
    children: list[Tree]


@dataclass
class Derived:
    base: int
    double: int = field(init=False)

    def __post_init__(self) -> None:
        self.double = self.base * 2


@dataclass
class Restless:
    """Its `__post_init__` changes what it is given, so that making it again makes another value."""

    count: int

    def __post_init__(self) -> None:
        self.count += 1


@dataclass
class Cached:
    n: int

    @cached_property
    def square(self) -> int:
        return self.n**2


class Approve(msgspec.Struct, frozen=True):
    by: str
    at: datetime | None = None


class Refuse(msgspec.Struct, tag=True):
    why: str


@attrs.define
class Parcel:
    weight: Decimal
    stops: list[str] = attrs.Factory(list[str])


class Model(pydantic.BaseModel):
    id: int
    at: datetime = datetime(2024, 1, 1, tzinfo=UTC)
    tags: set[str] = set()
    nested: Item | None = None


class Loose(pydantic.BaseModel, extra="allow"):
    id: UUID = pydantic.Field(default_factory=uuid4)


class Login(pydantic.BaseModel):
    user: str
    password: Secret[str]


UserId = NewType("UserId", int)


def same(a: Any, b: Any) -> bool:
    """Say whether two values are equal, of the same types, and in the same order, all the way down."""
    cls = class_of(a)
    if cls is not class_of(b):
        return False
    if cls is dict:
        return same([*a.items()], [*b.items()])
    if cls in {set, frozenset}:
        return same(sorted(map(repr, a)), sorted(map(repr, b)))
    if cls in {list, deque} or issubclass(cls, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if apart := next((take(a) == take(b) for kinds, take in LEAVES if issubclass(cls, kinds)), None):
        return apart
    names = [field.name for field in fields(cls)] if is_dataclass(cls) else getattr(cls, "__struct_fields__", ())
    names = [field.name for field in attrs.fields(cls)] if attrs.has(cls) else names
    if names:
        return all(same(getattr(a, name), getattr(b, name)) for name in names)
    return bool(a == b)


LEAVES: Final[list[tuple[tuple[type, ...], Callable[[Any], object]]]] = [
    ((float,), float.hex),
    ((complex,), lambda z: (z.real.hex(), z.imag.hex())),
    ((Decimal,), str),
    ((datetime, time), lambda at: (repr(at), at.isoformat(), at.fold)),
]


def again(value: T, hint: Any = Unannotated) -> T:
    text, back = codec.round_trip(value, hint, where=WHERE, home=HERE)
    json.loads(text)
    assert same(value, back), f"{value!r} came back as {back!r} by {text}"
    assert codec.encode(back, hint, where=WHERE, home=HERE) == text
    return back  # type: ignore[no-any-return]


leaves: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**40), 10**40),
    st.floats(),
    st.text(),
    st.binary(max_size=20),
    st.decimals(allow_nan=None),
    st.complex_numbers(),
    st.uuids(),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.timezones()),
    st.datetimes(timezones=st.just(UTC)),
    st.times(),
    st.timedeltas(),
    st.sampled_from(
        [Colour.RED, Colour.PAIR, Size.SMALL, Mood.GOOD, Permission.READ | Permission.WRITE, Permission(0)]
    ),
    st.sampled_from([timezone(timedelta(seconds=-1)), timezone(timedelta(hours=1), "home"), ZoneInfo("Asia/Tokyo")]),
    st.builds(Point, st.integers(), st.floats(allow_nan=False)),
    st.builds(Money, st.integers()),
    st.sampled_from([range(3), Path("a/b"), bytearray(b"x"), OrderedDict(b=1, a=2), Counter("aab"), deque([1], 4)]),
)
hashable: Final = leaves.filter(lambda leaf: type(leaf).__hash__ is not None and "nan" not in repr(leaf).lower())
names: Final = st.one_of(st.text(max_size=5), st.sampled_from(["$", "v"]))


def containers(inside: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inside, max_size=4),
        st.lists(inside, max_size=4).map(tuple),
        st.dictionaries(names, inside, max_size=4),
        st.dictionaries(hashable, inside, max_size=3),
        st.sets(hashable, max_size=4),
        st.frozensets(hashable, max_size=4),
        st.builds(Order, st.integers(), st.just([]), inside),
        st.builds(Item, inside, inside, inside),
        st.builds(Box[Any], inside),
        st.builds(Approve, inside),
    )


values: Final = st.recursive(leaves, containers, max_leaves=12)

HINTS: Final[list[Any]] = [
    Unannotated, Any, object, int, float, str, bool, None, bytes, complex, Decimal, UUID, datetime, date, time,
    timedelta, list[int], list[Any], dict[str, Any], dict[int, str], dict[str, float], set[int], frozenset[str],
    tuple[int, ...], tuple[int, str], list[Item], Item, Order, Money, Box[int], Tree, Point, Row, Approve, Parcel,
    Model, Colour, Size, Permission, int | None, Item | Money, Approve | Refuse, str | datetime, Literal["a", 1],
    Secret[str], Path, UserId, Annotated[int, "positive"], Annotated[int, msgspec.Meta(gt=0)], Annotated[int, []],
    list["Gone"],  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
    "Unresolvable",
    Callable[[int], int], T,
]  # fmt: skip


@given(values)
def test_unannotated_values_keep_their_types(value: object) -> None:
    """Without any annotation a value comes back equal, of the same types, in the same order."""
    again(value)


@given(values, st.sampled_from(HINTS))
def test_annotations_never_change_values(value: object, hint: Any) -> None:
    """A value that does not match its annotation still comes back as what it is."""
    again(value, hint)


@given(
    st.data(),
    st.sampled_from(
        [Item, list[Item], Money, Point, Row, Approve, Parcel, Colour, Row | None, dict[str, Money], tuple[Item, UUID]]
    ),
)
def test_annotated_values_keep_their_types(data: st.DataObject, hint: Any) -> None:
    again(data.draw(st.from_type(hint)), hint)


@pytest.mark.parametrize(
    ("value", "hint", "text"),
    [
        (5, int, "5"),
        (5, float, "5"),
        (5.0, float, "5.0"),
        ((1, 2), tuple[int, int], "[1,2]"),
        ({3, 1, 2}, set[int], "[1,2,3]"),
        (Item("a", 1), Item, '{"sku":"a","count":1,"price":1.0}'),
        (Point(1), Point, "[1,0.0]"),
        (datetime(2024, 1, 1, tzinfo=UTC), datetime, '"2024-01-01T00:00:00Z"'),
        (Colour.RED, Any, f'{{"$":"{HERE}:Colour","v":"RED"}}'),
        ((1, 2), Any, '{"$":"tuple","v":[1,2]}'),
        ("5", int, '{"$":"plain","v":"5"}'),
        ({"$": 1}, Any, '{"$":"dict","v":[["$",1]]}'),
        (math.nan, float, '{"$":"float","v":"nan"}'),
    ],
)
def test_records_read_well_in_sql(value: object, hint: Any, text: str) -> None:
    """A record is what anyone would expect to see where the annotation says the rest; the format is fixed."""
    assert codec.encode(value, hint, where=WHERE, home=HERE) == text


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (Express(1), Order),
        ([Express(1)], list[Order]),
        (Order(1, [Item("a", 1)], {"x": (1, {2})}), Order),
        (Box(Box(1)), Box[int]),
        (Derived(2), Derived),
        (Restless(1), Restless),
        (Restless(1), Any),
        (datetime(2024, 10, 27, 1, 30, tzinfo=ZoneInfo("Europe/London"), fold=1), datetime),
        (datetime(2024, 1, 1, tzinfo=timezone(timedelta(seconds=1))), datetime),
        ({"b": {1}, "a": {2}}, dict[str, set[int]]),
        ({"id": 1, "at": datetime(2024, 1, 1, tzinfo=UTC), "more": 2}, Row),
        (True, int),
        (1, bool),
        (Size.SMALL, int),
        (Mood.GOOD, str),
        pytest.param(10**5000, int, id="huge"),
        pytest.param({"a": 10**5000}, dict[str, int], id="huge inside"),
        (-0.0, float),
        ([1.0, math.inf], list[float]),
        ([Item("a", 1)], int),
        (Shelf.Slot(1), Any),
    ],
)
def test_what_msgspec_would_lose_is_kept(value: object, hint: Any) -> None:
    again(value, hint)


def test_named_values_in_models_keep_their_types() -> None:
    again(Model(id=1))
    again(Model(id=1), Model)
    again([Model(id=1, tags={"b", "a"}, nested=Item("a", 1))], list[Model])
    again({"a": Loose.model_validate({"x": (1, 2)})}, dict[str, Loose])
    patch = again(Model(id=1), Model)
    assert patch.model_dump(exclude_unset=True) == {"id": 1}
    full = Model(id=1, at=datetime(2024, 1, 1, tzinfo=UTC), tags=set(), nested=None)
    assert codec.encode(full, Model, where=WHERE).startswith('{"at":"2024-01-01T00:00:00Z","id":1,')


def test_callers_get_a_copy() -> None:
    """What the user's code changes afterwards changes no record, and is not seen the first time either."""
    order = Order(1, [Item("a", 1)])
    text, back = codec.round_trip(order, Order, where=WHERE, home=HERE)
    order.items.append(Item("b", 2))
    assert back == codec.decode(text, Order, home=HERE) == Order(1, [Item("a", 1)])


def test_time_zones_of_pydantic_are_plain_offsets() -> None:
    """What FastAPI hands over from JSON has a time zone class of pydantic's own; it is read back as `timezone`."""
    model = Model.model_validate_json('{"id":1,"at":"2024-01-01T00:00:00+02:00"}')
    for hint in (Model, Unannotated):
        assert codec.round_trip(model, hint, where=WHERE, home=HERE)[1] == model
    for clock in (datetime, Unannotated):
        back = codec.round_trip(model.at, clock, where=WHERE)[1]
        assert (back, back.tzinfo) == (model.at, timezone(timedelta(hours=2)))


def test_caches_of_properties_are_no_state() -> None:
    cold, warm = Cached(3), Cached(3)
    assert warm.square == 9
    assert again(warm, Cached) == cold
    assert codec.encode(warm, Cached, where=WHERE) == codec.encode(cold, Cached, where=WHERE)


@dataclass
class Hidden(dict[str, int]):
    """A dataclass with more in it than fields."""

    n: int


class Text(str):
    __slots__ = ()


class Plain:
    pass


def undeclared() -> Order:
    order = Order(1)
    order.lock = 1  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    return order


def endless() -> list[object]:
    loop: list[object] = []
    loop.append({"again": loop})
    return loop


def nested(depth: int) -> list[object]:
    return [nested(depth - 1)] if depth else []


def local() -> object:
    @dataclass
    class Local:
        n: int

    return Local(1)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"items": [Order(1, note=threading.Lock())]}, r"result\['items'\]\[0\]\.note is of type _thread\.lock"),
        ({1: Plain()}, r"result\[1\] is of type .*Plain"),
        ((1, [Plain]), r"result\[1\]\[0\] is of type builtins\.type"),
        (lambda: None, r"result is of type builtins\.function.*ignore="),
        (Text("a"), r"Text; convert it with str"),
        (defaultdict[str, int](int), r"defaultdict; convert it with dict"),
        ("\ud800", r"result holds half a surrogate pair"),
        ({"a\udfff": 1}, r"half a surrogate pair"),
        (pydantic.SecretStr("x"), r"SecretStr; use operon\.Secret"),
        (endless(), r"contains itself"),
        (nested(70), r"result\[0\]\[0\].*….*nested deeper than 64"),
        (nested(100_000 // 200), r"nested deeper"),
        (undeclared(), r"has the attribute \.lock, which is no field"),
        (local(), r"inside a function"),
        (Hidden(1), r"does not come back as it was"),
        (ValueError("x"), r"ValueError"),
        (object(), r"builtins\.object"),
        ((n for n in "ab"), r"generator"),
    ],
)
@pytest.mark.parametrize("hint", [Unannotated, Order, dict[str, Any], int])
def test_refusals_name_the_place_and_the_way_out(value: object, complaint: str, hint: Any) -> None:
    with pytest.raises(NotSerializable, match=rf"^the result of step 'charge' cannot be recorded: .*{complaint}"):
        codec.encode(value, hint, where=WHERE, home=HERE)


def test_local_classes_are_fine_where_annotated() -> None:
    value = local()
    assert codec.round_trip(value, type(value), where=WHERE, home=HERE)[1] == value


def test_cycles_of_annotated_classes_are_refused() -> None:
    tree = Tree([])
    tree.children.append(tree)
    with pytest.raises(NotSerializable, match="contains itself"):
        codec.encode(tree, Tree, where=WHERE)


def test_nearly_exhausted_stacks_are_refused_too() -> None:
    """Whatever is left of the stack, the error is ours."""

    def deep(left: int) -> None:
        if left:
            deep(left - 1)
        else:
            codec.encode([[[[[[[[{1: (1,)}]]]]]]]], list[Any], where=WHERE)

    outcomes: set[str] = set()
    for depth in range(sys.getrecursionlimit() - 200, sys.getrecursionlimit(), 5):
        try:
            deep(depth)
        except NotSerializable:
            outcomes.add("refused")
        except RecursionError:
            outcomes.add("no room for the call itself")
            break
    assert "refused" in outcomes


def test_large_values_are_refused_with_both_figures() -> None:
    small = Codec(max_payload=100)
    with pytest.raises(PayloadTooLarge, match=r"the result of step 'charge' takes 202 bytes .* limit is 100"):
        small.encode("a" * 200, str, where=WHERE)
    with pytest.raises(NotDeserializable, match="max_payload"):
        small.decode('"' + "a" * 200 + '"', str)


# --- rows that somebody else wrote ---


def test_records_name_only_trusted_classes() -> None:
    """The function's own package, the codec's packages, and what the annotation mentions; nothing else."""
    record = codec.encode(Money(1), where=WHERE)
    assert codec.decode(record, home=HERE) == Money(1)
    assert codec.decode(record, Money) == Money(1)
    assert codec.decode(record, list[Money | Order]) == Money(1)
    assert Codec(packages=frozenset({HERE.partition(".")[0]})).decode(record) == Money(1)
    for home in ("", "shop.tasks"):
        with pytest.raises(NotDeserializable, match="Money"):
            codec.decode(record, home=home)
    with pytest.raises(NotSerializable, match="annotate the value with it"):
        codec.encode(Money(1), where=WHERE, home="shop.tasks")


def test_scripts_and_modules_read_each_other(tmp_path: Path) -> None:
    """`python hello.py` and a worker that imports `hello` are one home: a class is recorded under one name."""
    program = """
import sys
from dataclasses import dataclass
from operon.core.codec import Codec, Signature
@dataclass
class Order:
    id: int
def step(x): ...
signature = Signature(step, Codec())
if __name__ == "__main__":
    print(signature.encode_result(Order(1)), signature.decode_result(sys.argv[1]) == Order(2), sep="|")
"""
    (tmp_path / "hello.py").write_text(program)
    worker = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from hello import *; "
    two = run("-c", worker + "print(signature.encode_result(Order(2)))")
    one, read = run(str(tmp_path / "hello.py"), two).split("|")
    assert read == "True"
    assert run("-c", worker + f"print(signature.decode_result({one!r}) == Order(1))") == "True"


def run(*arguments: str, **environment: str) -> str:
    return ran(sys.executable, *arguments, check=True, env={**os.environ, **environment}).stdout.strip()


@pytest.mark.parametrize(
    "tag",
    [
        "os:system",
        "subprocess:Popen",
        "builtins:eval",
        "builtins:object",
        "operon.core.codec.tagged:Packer",
        *(f"{HERE}:{name}" for name in ("os", "os.system", "UUID", "Plain", "local", "codec", "threading")),
        *(f"{HERE}:{name}" for name in ("", ".", "Money.", "Money.__init__", "Money.__class__", "__builtins__.eval")),
        f"{HERE}:Text",
        f"{HERE}:ValueError",
        ":Money",
        "Money",
        "antigravity:x",
        "this:s",
        "no.such.module:Thing",
        "",
        "error",
    ],
)
@pytest.mark.parametrize("inside", ["null", "{}", "[]", '"x"', '["touch /tmp/pwned"]', '{"args":["x"]}'])
@pytest.mark.parametrize("hint", [Unannotated, int, Item, dict[str, Any]])
def test_hostile_tags_are_refused(tag: str, inside: str, hint: Any) -> None:
    loaded = set(sys.modules)
    with pytest.raises(NotDeserializable):
        codec.decode(f'{{"$":{json.dumps(tag)},"v":{inside}}}', hint, home=HERE)
    assert set(sys.modules) == loaded


RAN: Final[list[str]] = []


@dataclass
class Trap:
    """Whatever runs when one is made from a row, it leaves a trace."""

    n: int = 0

    def __init__(self, n: int = 0) -> None:
        RAN.append("init")
        self.n = n

    def __post_init__(self) -> None:
        RAN.append("post_init")

    def __setattr__(self, name: str, value: object) -> None:
        RAN.append("setattr")
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> object:
        RAN.append("getattr")
        raise AttributeError(name)

    def __setstate__(self, state: object) -> None:
        RAN.append("setstate")

    def __reduce__(self) -> str:
        RAN.append("reduce")
        return ""


def test_rows_run_no_code_of_a_class() -> None:
    RAN.clear()
    made = codec.decode(f'{{"$":"{HERE}:Trap","v":{{"n":1,"__class__":2,"save":"x"}}}}', home=HERE)
    assert vars(made) == {"n": 1}
    assert not RAN


jsonish: Final = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
    ),
    lambda inside: st.one_of(
        st.lists(inside, max_size=4),
        st.dictionaries(st.one_of(st.text(max_size=3), st.sampled_from(["$", "v", "sealed"])), inside, max_size=3),
        st.fixed_dictionaries(
            {
                "$": st.one_of(
                    st.sampled_from([*BY_TAG, "plain", "secret", "error"]),
                    st.sampled_from(
                        [f"{HERE}:{cls.__qualname__}" for cls in (Money, Item, Point, Approve, Parcel, Model, Size)]
                    ),
                    inside,
                ),
                "v": inside,
            }
        ),
    ),
    max_leaves=15,
)


@given(jsonish, st.sampled_from(HINTS))
def test_damaged_rows_are_read_or_refused(node: object, hint: Any) -> None:
    """Any JSON at all is a value or `NotDeserializable`: no other error, no other effect."""
    read_or_refuse(json.dumps(node), hint)


@given(st.text(), st.sampled_from(HINTS))
def test_rows_that_are_no_json_are_refused(text: str, hint: Any) -> None:
    read_or_refuse(text, hint)


@pytest.mark.parametrize("hint", [Unannotated, int, list[Any], Tree])
@pytest.mark.parametrize(
    "text",
    [
        "[" * 1_000_000,
        "[" * 900 + "]" * 900,
        '{"$":"tuple","v":' * 100_000,
        '{"$":"tuple","v":' * 400 + "[]" + "}" * 400,
        '{"children":[' * 100_000,
        "1" * 1_000_000,
        '{"$":"int","v":"' + "f" * 1_000_000 + '"}',
        '{"$":"int","v":"' + "9" * 5_000 + 'z"}',
        '{"$":"decimal","v":"1e999999999999"}',
        '{"$":"range","v":[0,1e308,1]}',
        '{"$":"zone","v":"../../../../etc/passwd"}',
        '{"$":"set","v":[[]]}',
        '{"$":"dict","v":[[{},1]]}',
        '{"$":"secret"}',
        '{"$":"secret","sealed":"AAAA"}',
        '{"$":["tuple"],"v":[]}',
        '{"$":"tuple"}',
        '"\\ud800"',
        "1e999",
        "NaN",
        "",
    ],
    ids=lambda text: str(text)[:30],
)
def test_hostile_rows_end_quickly(text: str, hint: Any) -> None:
    read_or_refuse(text, hint)


def read_or_refuse(text: str, hint: Any) -> None:
    with suppress(NotDeserializable):
        codec.decode(text, hint, home=HERE)


def test_old_records_fill_new_fields_with_defaults() -> None:
    """A class may gain a field that has a default; one without is refused where it is known to be missing."""
    assert codec.decode('{"sku":"a","count":1}', Item) == Item("a", 1)
    assert codec.decode(f'{{"$":"{HERE}:Item","v":{{"sku":"a","count":1,"gone":2}}}}', home=HERE) == Item("a", 1)
    for family in ("Item", "Point", "Approve", "Parcel", "Model"):
        with pytest.raises(NotDeserializable):
            codec.decode(f'{{"$":"{HERE}:{family}","v":{{}}}}', home=HERE)


# --- secrets ---

KEY: Final = bytes(range(32))


def test_secrets_are_never_shown() -> None:
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {[secret]}"
    assert secret == Secret("hunter2")
    assert secret != Secret("other")
    assert hash(secret) == hash(Secret("hunter2"))
    assert again(secret, Secret[str]).reveal() == "hunter2"
    assert again({"a": [secret]}, dict[str, list[Secret[str]]])["a"][0].reveal() == "hunter2"
    assert again(secret).reveal() == "hunter2"
    with pytest.raises(NotSerializable, match=r"result\['k'\]\.reveal\(\) is of type") as caught:
        codec.encode({"k": Secret({"hunter2": {"hunter2": Plain()}})}, where=WHERE)
    assert "hunter2" not in str(caught.value)


def test_models_read_secrets_and_show_none() -> None:
    login = Login.model_validate_json('{"user":"ann","password":"hunter2"}')
    assert again(login, Login).password == Secret("hunter2")
    assert again([login])[0].password.reveal() == "hunter2"
    assert "hunter2" not in repr(login) + login.model_dump_json()
    assert Login.model_json_schema()["properties"]["password"]["type"] == "string"


def test_secrets_are_sealed_where_there_is_a_key() -> None:
    """Sealed text shows nothing, is the same for the same secret, and opens with its key only."""
    pytest.importorskip("cryptography", reason="the extra `secrets` is not installed")
    sealing = Codec(key=KEY)
    text, back = sealing.round_trip({"token": Secret(("hunter2", 1))}, where=WHERE)
    assert "hunter2" not in text
    assert back["token"].reveal() == ("hunter2", 1)
    assert text == Codec(key=KEY).encode({"token": Secret(("hunter2", 1))}, where=WHERE)
    for other in (Codec(key=bytes(32)), codec):
        with pytest.raises(NotDeserializable, match="key"):
            other.decode(text)
    tampered = text.replace('"sealed":"', '"sealed":"AAAA')
    with pytest.raises(NotDeserializable):
        sealing.decode(tampered)
    assert sealing.decode(codec.encode(Secret(1), where=WHERE)) == Secret(1)
    assert sealing.round_trip(Secret("a"), Secret[str], where=WHERE)[1] == Secret("a")


def test_keys_of_a_wrong_length_are_refused() -> None:
    with pytest.raises(DeclarationError, match="not 5"):
        Codec(key=b"short")


def test_a_key_without_cryptography_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(DeclarationError, match="pip install cryptography"):
        Codec(key=KEY)


# --- calls ---


def call(a: int, b: str = "x", /, c: object = None, *rest: Item, d: float = 1.0, **more: datetime) -> Order | None:
    raise NotImplementedError(a, b, c, rest, d, more)


def charge(client: object, account: int, cents: int = 0, tags: frozenset[str] = frozenset()) -> Point:
    raise NotImplementedError(client, account, cents, tags)


def identity(x: object) -> object:
    return x


async def wait(n: Fraction, m: int) -> tuple[int, ...]:
    raise NotImplementedError(n, m)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1,), {}),
        ((1, "y", 3), {}),
        ((1, "y"), {"c": (1,), "d": 2.5}),
        ((1, "y", None, Item("a", 1), Item("b", 2)), {"d": 2.0, "when": datetime(2024, 1, 1, tzinfo=UTC)}),
        (("not an int",), {"c": {1: 2}}),
    ],
)
def test_calls_come_back_as_they_were(args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    signature = Signature(call, codec)
    back_args, back_kwargs = signature.decode(signature.encode(args, kwargs))
    assert signature.encode(back_args, back_kwargs) == signature.encode(args, kwargs)
    bound = Signature(call, codec)._bind
    assert same(dict(bound(back_args, back_kwargs)), dict(bound(args, kwargs)))


def test_arguments_are_bound_by_name_without_defaults() -> None:
    signature = Signature(charge, codec, ignore=("client",))
    assert signature.encode((object(), 7), {}) == '{"account":7}'
    assert signature.decode('{"account":7}') == ((), {"account": 7})
    assert Signature(charge, codec, skip=1).encode((7,), {"cents": 1}) == '{"account":7,"cents":1}'


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2, 3, 4, 5), {}), ((1, 2), {"nope": 1}), ((1, 2), {"account": 1})]
)
def test_wrong_calls_raise_as_python_does(args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=r"charge\(\)"):
        Signature(charge, codec).encode(args, kwargs)


def test_digests_compare_calls() -> None:
    """The same for equal calls however they are written; another for other arguments."""
    digest = Signature(charge, codec, ignore=("client",)).digest
    one = digest(((0, 7, 1), {}))
    assert one == digest((("other client",), {"cents": 1, "account": 7})) == digest('{"cents":1,"account":7}')
    assert len({one, digest(((0, 7, 2), {})), digest(((0, 7), {})), digest(((0, "7", 1), {}))}) == 4
    plain = Signature(identity, codec).digest
    assert plain((({1: "a", 2: "b"},), {})) == plain((({2: "b", 1: "a"},), {}))
    assert plain((({"a": 1, "b": 2},), {})) == plain((({"b": 2, "a": 1},), {}))


def test_digests_are_the_same_in_every_process() -> None:
    program = """
from operon.core.codec import Codec, Signature
def f(a: set[str], b: object) -> None: ...
s = Signature(f, Codec())
print(s.digest((({"x", "y", "z", "w"}, {"p", "q", ("r", 1), None, 2.5}), {})))
print(s.encode(({"x", "y"}, {1: {"k", "l"}}), {}))
"""
    printed = {run("-c", program, PYTHONHASHSEED=seed) for seed in ("0", "1", "2")}
    assert len(printed) == 1
    assert '{"a":["x","y"],"b":{"$":"dict","v":[[1,{"$":"set","v":["k","l"]}]]}}' in printed.pop()


def test_results_follow_the_return_annotation() -> None:
    assert Signature(charge, codec).encode_result(Point(1, 2.0)) == "[1,2.0]"
    assert same(Signature(charge, codec).decode_result("[1,2.0]"), Point(1, 2.0))
    assert Signature(wait, codec).encode_result((1, 2)) == "[1,2]"
    assert Signature(wait, codec).decode_result("[1,2]") == (1, 2)


def test_names_for_type_checkers_only_cost_no_others_their_types() -> None:
    """`n` cannot be resolved and counts as un-annotated; `m` and the result keep their annotations."""
    signature = Signature(wait, codec)
    assert signature.encode(((1, 2), 3), {}) == '{"n":{"$":"tuple","v":[1,2]},"m":3}'
    with pytest.raises(NotDeserializable):
        signature.decode('{"n":1,"m":"three"}')


def test_functions_may_change_between_record_and_replay() -> None:
    signature = Signature(charge, codec, skip=1)
    with pytest.raises(NotDeserializable, match="lacks account"):
        signature.decode("{}")
    with pytest.raises(NotDeserializable, match="amount, which the function does not take any more"):
        signature.decode('{"account":1,"amount":2}')
    for text in ("", "[]", "3", "[" * 100_000, '{"account":}'):
        with pytest.raises(NotDeserializable, match=r"charge\(\)"):
            signature.decode(text)


def test_foreign_callables_have_signatures_too() -> None:
    assert Signature(partial(charge, None), codec).encode((7,), {}) == '{"account":7}'
    assert Signature(max, codec).decode(Signature(max, codec).encode((3, 4), {"key": None})) == ((3, 4), {"key": None})


def test_refused_arguments_are_named() -> None:
    with pytest.raises(
        NotSerializable, match=r"the argument 'client' of charge\(\) cannot be recorded: argument is of"
    ):
        Signature(charge, codec).encode((threading.Lock(), 1), {})


def test_import_is_lean() -> None:
    """The package loads nothing that only some of its users have."""
    program = "import sys, operon.core.codec; print({'pydantic', 'cryptography', 'attr', 'attrs'} & set(sys.modules))"
    assert run("-c", program) == "set()"
