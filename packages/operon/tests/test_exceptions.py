"""Exceptions come back as themselves without running their code, or are `StepFailed` from the first run on."""

# ruff: noqa: D101 - the classes are specimens

from __future__ import annotations

import errno
import importlib
import json
import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operon.core.codec import Codec, Secret, failures
from operon.errors import (
    KeyConflict,
    NotDeserializable,
    NotSerializable,
    OperonError,
    PayloadTooLarge,
    StepFailed,
    WorkflowHeld,
)

HERE: Final = __name__
WHERE: Final = "the error of step 'charge'"
NOTHING: Final = "nothing"
RAN: Final[list[str]] = []
codec: Final = Codec()


class TwoArguments(Exception):
    def __init__(self, code: int, reason: str) -> None:
        RAN.append("init")
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


@dataclass
class Declined(Exception):
    card: str
    cents: int


class DiskFull(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(errno.ENOSPC, "full", path)
        self.path = path


class Many(ExceptionGroup[Exception]):
    pass


class Attached(Exception):
    def __init__(self, response: object) -> None:
        super().__init__("it went wrong", response)
        self.response = response
        self.status = 503


class Unshowable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Raw(Exception):
    def __new__(cls, *args: object) -> Self:
        RAN.append("new")
        return super().__new__(cls, *args)

    def __setattr__(self, name: str, value: object) -> None:
        RAN.append("setattr")
        super().__setattr__(name, value)


def noted() -> Exception:
    error = ValueError("x")
    error.add_note("while charging")
    return error


def unreadable() -> Exception:
    with pytest.raises(UnicodeDecodeError) as caught:
        b"\xff".decode()
    return caught.value


def missing_file() -> Exception:
    with pytest.raises(FileNotFoundError) as caught, open("/no/such/file"):  # noqa: PTH123 - for its error
        pass
    return caught.value


def missing_module() -> Exception:
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module("no_such_module")
    return caught.value


def missing_attribute() -> Exception:
    with pytest.raises(AttributeError) as caught:
        getattr(threading.Lock(), NOTHING)
    return caught.value


@pytest.fixture(autouse=True)
def forget_warnings() -> None:
    failures._warned.clear()


def again(error: Exception, raises: tuple[type[BaseException], ...] = ()) -> BaseException:
    text, back = codec.round_trip_error(error, home=HERE, raises=raises, where=WHERE)
    assert repr(back) == repr(codec.decode_error(text, home=HERE, raises=raises))
    return back


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x", 1, None, (1, {2})),
        KeyError("x"),
        KeyError(("a", 1)),
        OSError(errno.EPERM, "no", "a", None, "b"),
        FileNotFoundError(2, "gone", "f"),
        OSError("only text"),
        missing_file(),
        missing_module(),
        unreadable(),
        UnicodeEncodeError("ascii", "é", 0, 1, "bad"),
        StopIteration(3),
        ExceptionGroup("several", [ValueError(1), TwoArguments(1, "b"), ExceptionGroup("more", [KeyError("k")])]),
        Many("several", [ValueError(1)]),
        TwoArguments(402, "declined"),
        KeywordOnly(code=3),
        Slotted(7),
        Declined("visa", 100),
        DiskFull("/data"),
        Raw(1, 2),
        noted(),
        ZeroDivisionError("division by zero"),
        AssertionError(),
        TimeoutError(),
        SyntaxError("bad", ("f.py", 1, 2, "x =", 1, 3)),
        OperonError("x"),
        KeyConflict("taken"),
        StepFailed("shop.Gone", "gone"),
        WorkflowHeld("held", "id-1"),
    ],
    ids=repr,
)
def test_errors_come_back_as_themselves(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """The class, `args`, text, notes and every attribute; nothing is warned of."""
    back = again(error)
    assert codec.encode_error(back, home=HERE, where=WHERE) == codec.encode_error(error, home=HERE, where=WHERE)
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert repr(back) == repr(error)
    assert repr(back.args) == repr(error.args)
    assert repr(vars(back)) == repr(vars(error))
    for name in (
        "errno",
        "strerror",
        "filename",
        "filename2",
        "start",
        "end",
        "reason",
        "object",
        "name",
        "code",
        "text",
    ):
        assert getattr(back, name, None) == getattr(error, name, None)
    assert not caplog.records


def test_no_code_of_the_class_runs() -> None:
    """A replay rebuilds what was raised; `__init__` may have effects, or take other arguments."""
    texts = [codec.encode_error(error, home=HERE, where=WHERE) for error in (TwoArguments(1, "a"), Raw(1))]
    RAN.clear()
    for text in texts:
        codec.decode_error(text, home=HERE)
    assert not RAN


def test_groups_keep_what_they_hold() -> None:
    back: Any = again(ExceptionGroup("several", [TwoArguments(1, "b"), ExceptionGroup("more", [KeyError("k")])]))
    matched, rest = back.split(TwoArguments)
    assert vars(matched.exceptions[0]) == {"code": 1, "reason": "b"}
    assert repr(rest.exceptions) == "(ExceptionGroup('more', [KeyError('k')]),)"


def test_errors_come_along_wherever_they_lie() -> None:
    error = ValueError("all", [KeyError("in a list"), {"it": OSError(2, "in a dict")}])
    vars(error)["errors"] = (TwoArguments(1, "in an attribute"),)
    back: Any = again(error)
    assert repr(back.args) == repr(error.args)
    assert vars(back.errors[0]) == {"code": 1, "reason": "in an attribute"}


def test_an_error_that_contains_itself_is_told_as_text() -> None:
    error = ValueError("mine")
    vars(error)["errors"] = [error]
    assert again(error).args == ("mine",)
    error.__cause__ = error
    assert again(error).__cause__ is None


def test_causes_come_along() -> None:
    outer, middle, inner = ValueError("outer"), TwoArguments(1, "middle"), KeyError("inner")
    outer.__cause__, middle.__cause__ = middle, inner
    back = again(outer)
    assert isinstance(back.__cause__, TwoArguments)
    assert back.__cause__.code == 1
    assert isinstance(back.__cause__.__cause__, KeyError)
    assert back.__suppress_context__


def test_foreign_errors_are_step_failed_from_the_first_run_on(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        back = again(msgspec.ValidationError("no good"))
        assert type(back) is StepFailed
        assert (back.type, back.message) == ("msgspec.ValidationError", "no good")
    assert [record.name for record in caplog.records] == ["operon"]
    assert "raises=" in caplog.text


def test_raises_names_foreign_errors_and_their_subclasses(caplog: pytest.LogCaptureFixture) -> None:
    for error in (msgspec.ValidationError("x"), BrokenExecutor("y")):
        back = again(error, raises=(msgspec.MsgspecError, RuntimeError))
        assert type(back) is type(error)
        assert back.args == error.args
    assert not caplog.records


def test_local_errors_need_raises() -> None:
    class Local(Exception):
        pass

    assert type(again(Local("x"))) is StepFailed
    assert type(again(Local("x"), raises=(Local,))) is Local


def test_what_cannot_be_recorded_is_dropped_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The class stays, so that `except` still works; an argument becomes its text, an attribute is lost."""
    for _ in range(2):
        back = again(Attached(threading.Lock()))
        assert type(back) is Attached
        assert not hasattr(back, "response")
        assert back.status == 503
        assert back.args[0] == "it went wrong"
        assert str(back.args[1]).startswith("<unlocked _thread.lock")
    assert len(caplog.records) == 1


def test_attributes_of_builtins_that_lead_anywhere_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    back = again(missing_attribute())
    assert isinstance(back, AttributeError)
    assert (back.name, back.obj) == ("nothing", None)
    assert not caplog.records


def test_errors_that_cannot_show_themselves_are_recorded() -> None:
    assert type(again(Unshowable("x"))) is Unshowable
    back = again(type("Foreign", (Unshowable,), {"__module__": "elsewhere"})("x"))
    assert isinstance(back, StepFailed)
    assert back.message == "<Foreign that cannot be shown>"


def test_text_that_no_database_holds_is_escaped() -> None:
    assert again(ValueError("a\ud800")).args == ("a\\ud800",)
    assert again(ValueError("a\0")).args == ("a\0",)


def test_errors_that_contain_themselves_are_recorded() -> None:
    loop = ValueError()
    loop.args = (loop,)
    assert isinstance(again(loop), Exception)


def test_large_errors_keep_an_excerpt() -> None:
    """An error is recorded, whatever it drags along; only a limit too small for any message refuses it."""
    back = Codec(max_payload=5_000).round_trip_error(ValueError("a" * 10_000), home=HERE, where=WHERE)[1]
    assert isinstance(back, StepFailed)
    assert (back.type, back.message) == ("builtins.ValueError", "a" * 1_000)
    with pytest.raises(PayloadTooLarge):
        Codec(max_payload=50).encode_error(ValueError("a" * 1_000), home=HERE, where=WHERE)


def test_secrets_in_errors_stay_secret(caplog: pytest.LogCaptureFixture) -> None:
    error = Attached(Secret({"hunter2": threading.Lock()}))
    assert "hunter2" not in codec.encode_error(error, home=HERE, where=WHERE)
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    "error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), BaseExceptionGroup("x", [SystemExit()])]
)
def test_exits_are_no_results(error: BaseException) -> None:
    with pytest.raises(TypeError, match="only an Exception is recorded"):
        codec.round_trip_error(error, home=HERE, where=WHERE)


def test_a_reader_without_the_code_sees_step_failed() -> None:
    """A client or a console has no home; a function's own process must not go on with another class instead."""
    text = codec.encode_error(TwoArguments(1, "b"), home=HERE, where=WHERE)
    back = codec.decode_error(text, home="")
    assert isinstance(back, StepFailed)
    assert (back.type, back.message) == (f"{HERE}.TwoArguments", "1: b")
    with pytest.raises(NotDeserializable, match="raises="):
        codec.decode_error(text, home="shop.tasks")


@pytest.mark.parametrize(
    "name",
    [
        "builtins:SystemExit", "builtins:KeyboardInterrupt", "builtins:eval", "builtins:int", "builtins:BaseException",
        "os:_exit", "subprocess:CalledProcessError", f"{HERE}:Codec", f"{HERE}:msgspec.ValidationError",
        f"{HERE}:threading",
        f"{HERE}:NotSerializable", f"{HERE}:TwoArguments.__init__", "antigravity:Error", "", ":", "ValueError",
    ],
)  # fmt: skip
def test_hostile_names_are_refused(name: str) -> None:
    loaded = set(sys.modules)
    with pytest.raises(NotDeserializable):
        codec.decode_error(json.dumps({"type": name, "args": [], "state": {}, "message": ""}), home=HERE)
    assert set(sys.modules) == loaded


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "{}", '"x"', "[" * 1_000_000, '{"type":1}', '{"type":"builtins:ValueError"}',
        '{"type":"builtins:ValueError","args":1,"state":{},"message":""}',
        '{"type":"builtins:ValueError","args":[],"state":[],"message":""}',
        '{"type":"builtins:ValueError","args":[],"state":{"x":{"$":"os:system","v":"ls"}},"message":""}',
        '{"type":"builtins:ExceptionGroup","args":[],"state":{},"message":""}',
        '{"type":"builtins:ExceptionGroup","args":["a",[1]],"state":{},"message":""}',
        '{"type":"builtins:UnicodeDecodeError","args":[],"state":{"start":"x"},"message":""}',
        '{"type":"builtins:OSError","args":[2,"x"],"state":{},"message":""}',
        '{"type":"builtins:ValueError","args":[],"state":{},"cause":' * 100_000,
    ],
    ids=lambda text: str(text)[:60],
)  # fmt: skip
def test_damaged_rows_are_refused(text: str) -> None:
    with pytest.raises(NotDeserializable):
        codec.decode_error(text, home=HERE)


def test_attributes_of_a_row_run_no_setter() -> None:
    """A row fills `__dict__` and slots; names that mean something to Python stay what they are."""
    text = json.dumps({
        "type": f"{HERE}:Raw",
        "args": [],
        "state": {"__class__": 1, "__init__": 2, "args": [3], "__cause__": 4, "x": 5},
        "message": "",
    })  # fmt: skip
    RAN.clear()
    back = codec.decode_error(text, home=HERE)
    assert type(back) is Raw
    assert back.__cause__ is None
    assert not RAN


def nested(inside: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    builtins = [f"builtins:{cls.__name__}" for cls in (ValueError, OSError, ExceptionGroup, UnicodeDecodeError)]
    own = [f"{HERE}:{cls.__name__}" for cls in (TwoArguments, Slotted, DiskFull, Many)]
    error: dict[str, st.SearchStrategy[Any]] = {
        "$": st.just("error"),
        "type": st.sampled_from(builtins + own),
        "args": st.lists(inside, max_size=3),
        "state": st.dictionaries(st.sampled_from(["code", "errno", "start", "object", "__notes__"]), inside),
        "message": inside,
    }
    return st.one_of(
        st.lists(inside, max_size=3),
        st.dictionaries(st.sampled_from(["$", "v", "a"]), inside, max_size=3),
        st.fixed_dictionaries(error),
        st.fixed_dictionaries({**error, "cause": inside}),
    )


nodes: Final = st.recursive(st.one_of(st.none(), st.integers(), st.text(max_size=5)), nested)


@given(nodes)
def test_any_row_is_an_error_or_refused(node: object) -> None:
    with suppress(NotDeserializable):
        error = codec.decode_error(json.dumps(node), home=HERE)
        assert isinstance(error, Exception)
        with suppress(Exception):
            str(error)


arguments: Final = st.lists(
    st.one_of(
        st.none(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(),
        st.binary(),
        st.tuples(st.integers(), st.text()),
    ),
    max_size=4,
)
makers: Final[list[Callable[..., Exception]]] = [
    ValueError,
    KeyError,
    OSError,
    RuntimeError,
    StopIteration,
    KeyConflict,
]


@given(st.sampled_from(makers), arguments, st.dictionaries(st.text(min_size=1), st.integers()), st.lists(st.text()))
def test_arguments_attributes_and_notes_are_kept(
    make: Callable[..., Exception], args: list[Any], attributes: dict[str, int], notes: list[str]
) -> None:
    error = make(*args)
    vars(error).update(attributes)
    for note in notes:
        error.add_note(note)
    back = again(error)
    assert type(back) is type(error)
    assert back.args == error.args
    assert vars(back) == vars(error)
    assert str(back) == str(error)


def test_errors_are_no_values() -> None:
    with pytest.raises(NotSerializable, match="ValueError"):
        codec.encode(ValueError("x"), where=WHERE)


def test_warnings_name_the_type_and_the_way_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "operon")
    again(msgspec.ValidationError("secret text"))
    assert "msgspec.ValidationError" in caplog.text
    assert "secret text" not in caplog.text
