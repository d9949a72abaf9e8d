"""What a decorator takes, and what it refuses at import with a sentence that says what to write instead."""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import operon
from children import PATIENCE, ran
from engine.conftest import MakeApp
from engine.gates import Gate
from operon import Operon, Routes
from operon.app.declarations import Workflow
from operon.core.ids import checked
from operon.errors import (
    BadValue,
    DeclarationError,
    InvalidId,
    NotInWorkflow,
    NotLaunched,
    NotSerializable,
    PayloadTooLarge,
    WrongColour,
)


@pytest.fixture
def app() -> Operon:
    return Operon("declared", database="memory:")


def plain(x: int) -> int:
    return x + 1


KINDS = ["workflow", "step"]


@pytest.mark.parametrize("kind", KINDS)
def test_with_and_without_parentheses(app: Operon, kind: str) -> None:
    decorator: Any = getattr(app, kind)

    def one(x: int) -> int:
        return x + 1

    async def two(x: int) -> int:
        return x + 2

    for declared in (decorator(one), decorator(name="another")(one), decorator()(two)):
        assert declared.fn in {one, two}
        assert declared.__name__ == declared.fn.__name__
        assert declared.__wrapped__ is declared.fn if hasattr(declared, "__wrapped__") else True
        assert list(inspect.signature(declared).parameters) == ["x"]


def test_a_second_function_of_one_name_names_both(app: Operon) -> None:
    """Rows find their function by its name, so at import there is one, and the error says where both are."""

    @app.workflow(name="pay")
    def first() -> None: ...

    with pytest.raises(DeclarationError, match=r"(?s)'pay'.*first \(.*test_declarations.py:\d+\).*second \(.*name="):

        @app.step(name="pay")
        def second() -> None: ...


def test_names_are_one_space_over_all_parts(app: Operon) -> None:
    """A part's late declaration is held against the app's names, an alias against names, and the other way round."""
    part, inner = Routes("part"), Routes("inner")
    part.include(inner)
    app.include(part)
    app.include(part)

    @app.workflow(name="taken", aliases=["old"])
    def flow() -> None: ...

    for name in ("taken", "old"):
        for where in (app, part, inner):
            with pytest.raises(DeclarationError, match=name):
                where.step(name=name)(plain)
    with pytest.raises(DeclarationError, match="old"):
        inner.workflow(aliases=["new", "old"])(plain)
    inner.step(name="late")(plain)
    with pytest.raises(DeclarationError, match="late"):
        app.workflow(name="late")(lambda: None)
    assert {"taken", "old", "late"} == set(app.functions)


def test_a_prefix_is_part_of_the_name_unless_the_name_is_given(app: Operon) -> None:
    part = Routes("billing")

    def send() -> None: ...

    send.__qualname__ = "send"
    early = part.workflow(send)
    app.include(part)
    late = part.workflow(name="late")(lambda: None)
    assert (early.name, late.name) == ("billing.send", "late")
    assert set(app.functions) == {"billing.send", "late"}


def test_parts_have_one_place(app: Operon) -> None:
    part = Routes("part")
    app.include(part)
    for where, what in ((Operon("other", database="memory:"), part), (Routes("x"), part), (app, app), (part, app)):
        with pytest.raises(DeclarationError, match="place already"):
            where.include(what)


def test_include_takes_all_or_nothing(app: Operon) -> None:
    part = Routes("part")
    part.step(name="free")(plain)
    part.step(name="taken")(math.floor)
    app.step(name="taken")(math.ceil)
    with pytest.raises(DeclarationError, match="taken"):
        app.include(part)
    assert set(app.functions) == {"taken"}


# ── Wrong order, wrong kind ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("outer", [*KINDS, "transaction"])
@pytest.mark.parametrize("inner", KINDS)
def test_one_function_has_one_kind(app: Operon, outer: str, inner: str) -> None:
    """Whether the decorators are stacked or called one after the other."""
    with pytest.raises(DeclarationError, match=rf"is a {inner} already"):
        getattr(app, outer)(getattr(app, inner)(plain))
    if outer != inner:
        with pytest.raises(DeclarationError, match=rf"is a {inner} already"):
            getattr(app, outer)(plain)


def test_http_is_outermost(app: Operon) -> None:
    with pytest.raises(DeclarationError, match=r"above @app\.workflow"):

        @app.workflow
        @app.post("/x")
        def flow() -> None: ...


def test_generators_are_refused(app: Operon) -> None:
    with pytest.raises(DeclarationError, match="generator"):

        @app.workflow
        def flow() -> Iterator[int]:
            yield 1

    with pytest.raises(DeclarationError, match="does not yield"):

        @app.step()
        async def step() -> AsyncIterator[int]:
            yield 1


def test_static_and_class_methods(app: Operon) -> None:
    """A staticmethod is outside; a classmethod is refused wherever it stands, for no row can name its object."""
    with pytest.raises(DeclarationError, match="@staticmethod goes outside"):
        app.workflow(staticmethod(plain))

    with pytest.raises(DeclarationError, match="staticmethod, with @staticmethod outside"):
        app.workflow(cast("Any", classmethod)(plain))

    class Outside:
        @staticmethod
        @app.workflow(name="static")
        def flow(x: int) -> int:
            return x + 1

        @classmethod
        @app.workflow(name="class")
        def other(cls, x: int) -> int:
            return x

    lines = app.queue("lines")
    with app:
        assert Outside.flow(1) == 2
        assert getattr(Outside(), "flow")(x=2) == 3  # noqa: B009 - the checkers do not see through a staticmethod here
        assert Outside.flow.using(key="k")(3) == 4
        for use in (
            lambda: getattr(Outside, "other")(1),  # noqa: B009 - the checkers see it, too
            lambda: operon.start(getattr(Outside, "other"), 1),  # noqa: B009
            lambda: operon.enqueue(lines, getattr(Outside, "other"), 1),  # noqa: B009
        ):
            with pytest.raises(DeclarationError, match="classmethod"):
                use()


def test_what_is_not_declared_is_not_started(app: Operon) -> None:
    lines = app.queue("lines")
    with app:
        for what in (plain, app.step(name="a step")(plain)):
            with pytest.raises(DeclarationError, match="is none"):
                operon.start(cast("Any", what), 1)
            with pytest.raises(DeclarationError, match="is none"):
                operon.enqueue(lines, cast("Any", what), 1)


@pytest.mark.parametrize("what", [7, "name", property(lambda _: 1), int, Path])
def test_what_is_no_function_is_refused(app: Operon, what: Any) -> None:
    with pytest.raises(DeclarationError, match="decorates a function"):
        app.workflow(what)


def test_what_has_no_name_needs_one(app: Operon) -> None:
    """Never is an address in memory recorded as a name."""
    nameless = functools.partial(plain, 1)
    with pytest.raises(DeclarationError, match="name="):
        app.step(nameless)
    assert app.step(name="plain one")(nameless)() == 2


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "\ud800", "x" * 256, 7])
def test_names_that_no_database_holds_are_refused(app: Operon, name: Any) -> None:
    with pytest.raises(DeclarationError, match="name of a workflow"):
        app.workflow(name=name)(plain)
    with pytest.raises(DeclarationError, match="name of a workflow"):
        app.workflow(aliases=[name])(plain)


@pytest.mark.parametrize(
    "options",
    [
        {"retries": -1},
        {"retries": "3"},
        {"factor": 0.5},
        {"cap": math.nan},
        {"backoff": -1},
        {"timeout": -1},
        {"kye": 1},
    ],
)
def test_options_that_cannot_be_meant_are_refused(app: Operon, options: Any) -> None:
    with pytest.raises((DeclarationError, BadValue), match=next(iter(options))):
        app.step(**options)(plain)


def test_a_transaction_needs_its_first_parameter(app: Operon) -> None:
    with pytest.raises(DeclarationError, match="first parameter"):
        app.transaction(lambda: None)  # type: ignore[arg-type, misc] # the mistake


# ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_steps_are_plain_calls_in_steps_and_outside(make: MakeApp) -> None:
    """In a step, and outside a workflow, a step just runs, also without a launched app; only a body's are recorded."""
    app = make()
    seen: list[Any] = []

    @app.step(retries=5)
    def inner(x: int) -> int:
        seen.append(operon.context())
        return x + 1

    @app.step
    def outer(x: int) -> int:
        return inner(x) + inner(x)

    @app.step
    async def awaited(x: int) -> int:
        return inner(x)

    @app.workflow
    async def aflow(x: int) -> int:
        return await awaited(x)

    @app.workflow
    def flow(x: int) -> int:
        return outer(x)

    assert inner(1) == 2
    with pytest.raises(NotInWorkflow):
        operon.context()
    with app:
        assert flow.using(key="w")(1) == 4
        assert [step.name for step in operon.steps("w")] == [outer.name]
        assert operon.start(aflow.using(key="a"), 1).result(PATIENCE) == 2
        assert [step.name for step in operon.steps("a")] == [awaited.name]
    assert [it.workflow_id for it in seen] == [None, "w", "w", "a"]


def test_a_step_outside_knows_no_workflow_and_has_a_fresh_key(app: Operon) -> None:
    @app.step
    def inner() -> operon.Context:
        return operon.context()

    first, second = inner(), inner()
    assert first.workflow_id is None
    assert first.idempotency_key != second.idempotency_key


def test_foreign_functions_become_steps_at_any_time(make: MakeApp) -> None:
    """Also in the body, where each run wraps them anew; a function defined in the body, too."""
    app = make()
    floor = app.step(math.floor)

    @app.workflow(name="flow")
    def flow(x: float) -> list[int]:
        def local(y: int) -> int:
            return int(x) + y

        ceil = app.step(math.ceil)
        first = [floor(x), ceil(x), app.step(name="local")(local)(1)]
        gate.pass_through()
        return [*first, app.step(name="local again")(local)(2)]

    gate = Gate(app)
    with app:
        gate.shut()
        handle = operon.start(flow.using(key="w"), 1.5)
        gate.open_behind("w")
        assert handle.result(PATIENCE) == [1, 2, 2, 3]
        assert operon.describe("w").attempts == 2, "it was replayed"
        assert operon.start(flow, 2.5).result(20) == [2, 3, 3, 4]
        names = [step.name for step in operon.steps("w") if step.kind == "step" and step.name != "retrieve"]
    assert names == ["floor", "ceil", "local", "local again"]
    assert len(app.functions) == 5 + 2, "what is wrapped again is not kept again"


# ── Calls ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"key": ""}, InvalidId),
        ({"key": "x" * 256}, InvalidId),
        ({"key": "a\tb"}, InvalidId),
        ({"key": "a\0b"}, InvalidId),
        ({"key": "a\x85b"}, InvalidId),
        ({"key": "\ud800"}, InvalidId),
        ({"key": 7}, InvalidId),
        ({"timeout": -1}, BadValue),
        ({"timeout": math.nan}, BadValue),
        ({"timeout": "soon"}, BadValue),
        ({"delay": -0.1}, BadValue),
        ({"delay": math.inf}, BadValue),
        ({"on_duplicate": "ignore"}, BadValue),
        ({"attributes": {"x": object()}}, BadValue),
        ({"attributes": {"x": math.nan}}, BadValue),
        ({"attributes": {1: "x"}}, BadValue),
        ({"user": "a\0b"}, BadValue),
        ({"user": ""}, BadValue),
        ({"roles": "clerk"}, BadValue),
        ({"roles": ["a\nb"]}, BadValue),
        ({"version": "\ud800"}, BadValue),
    ],
)
def test_options_of_a_call_are_refused_before_anything_is_recorded(app: Operon, options: Any, error: Any) -> None:
    flow = app.workflow(plain)
    with app:
        with pytest.raises(error, match=next(iter(options)).removesuffix("s")):
            flow.using(**options)
        assert operon.count() == 0


def test_an_empty_key_is_said_to_be_empty() -> None:
    with pytest.raises(InvalidId, match=r"^A key has 1 to 255 characters, and this one has none\.$"):
        checked("")


def test_options_of_a_step_are_checked(app: Operon) -> None:
    step = app.step(plain)
    table: list[dict[str, Any]] = [{"retries": -1}, {"timeout": -1}, {"name": "a\0b"}]
    for options in table:
        with pytest.raises(BadValue, match=next(iter(options))):
            step.using(**options)


def test_using_keeps_the_kind_and_adds_up(app: Operon) -> None:
    flow = app.workflow(plain)
    twice = flow.using(key="k").using(timeout=3)
    assert isinstance(twice, Workflow)
    assert (twice.options.key, twice.options.timeout, flow.options.key) == ("k", 3.0, None)


TEXTS = ["nul \0 in it", "\0", "lone \ud800 surrogate", "\udfff", "\x7f\x80 ", "ä€😀"]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_an_argument_and_a_result(make: MakeApp, text: str) -> None:
    """NUL and lone surrogates, which databases refuse, come back as they were, or are refused by name."""
    app = make()

    @app.step
    def echo(it: str) -> list[str]:
        return [it]

    @app.workflow
    def flow(it: str) -> dict[str, list[str]]:
        return {it: echo(it)}

    with app:
        try:
            assert flow.using(key="w")(text) == {text: [text]}
        except NotSerializable as refused:
            assert "flow" in str(refused)  # noqa: PT017 - either is right
            assert operon.count() == 0
        else:
            assert operon.describe("w").input == {"it": text}
            assert operon.start(flow.using(key="w"), text).result(PATIENCE) == {text: [text]}


def test_a_payload_over_the_limit_is_refused(make: MakeApp) -> None:
    """Too large an argument: nothing is recorded. Too large a result: the outcome, and no effect is repeated."""
    app = make(max_payload=1000)
    ran: list[int] = []

    @app.step(retries=3)
    def large(size: int) -> str:
        ran.append(size)
        return "x" * size

    @app.workflow
    def flow(text: str, size: int = 0) -> str:
        return large(size) + text

    with app:
        with pytest.raises(PayloadTooLarge, match=r"flow\(\) takes 1,002 bytes"):
            flow("x" * 1000)
        with pytest.raises(PayloadTooLarge):
            operon.start(flow, "x" * 1000)
        assert operon.count() == 0
        with pytest.raises(PayloadTooLarge, match="large"):
            flow("", 2000)
        assert ran == [2000]
        with pytest.raises(PayloadTooLarge, match="flow"):
            flow("x" * 600, 600)
        assert [it.status for it in operon.find()] == ["failed", "failed"]


def test_a_workflow_called_before_launch_says_what_to_write(app: Operon) -> None:
    flow = app.workflow(plain)
    for call in (lambda: flow(1), lambda: operon.start(flow, 1), operon.now, lambda: operon.describe("w")):
        with pytest.raises(NotLaunched, match="with app:"):
            call()
    loose = Routes("loose").workflow(name="loose")(plain)
    with pytest.raises(NotLaunched):
        loose(1)


def test_a_script_may_be_imported_under_its_own_name(tmp_path: Path) -> None:
    """`python shop.py`, where a module of the program imports `shop`: its functions are declared twice, and are one."""
    (tmp_path / "parts.py").write_text("from operon import Operon\napp = Operon('x', database='memory:')\n")
    (tmp_path / "other.py").write_text("import shop\n")
    (tmp_path / "shop.py").write_text(
        "from parts import app\n\n@app.workflow\ndef flow() -> int:\n    return 7\n\n"
        "if __name__ == '__main__':\n    import other\n    with app:\n        print(flow(), other.shop.flow())\n"
    )
    said = ran(sys.executable, "shop.py", cwd=tmp_path)
    assert (said.stdout, said.stderr) == ("7 7\n", "")


def test_an_async_call_in_a_blocking_workflow_raises_at_once(make: MakeApp) -> None:
    """It would give a coroutine that nobody awaits; what may be done instead is in the message."""
    app = make()

    @app.step
    async def astep() -> int:
        return 1

    @app.workflow
    async def aflow() -> int:
        return await astep()

    @app.workflow
    def flow(which: str) -> object:
        return astep() if which == "step" else aflow()

    with app:
        for which in ("step", "flow"):
            with pytest.raises(WrongColour, match="async and was called in a blocking workflow"):
                flow(which)
        assert operon.start(aflow).result(PATIENCE) == 1
    assert inspect.iscoroutinefunction(aflow.__call__), "FastAPI looks there"


@pytest.mark.parametrize("what", [plain, math.floor, "plain", None])
def test_start_takes_what_is_declared(app: Operon, what: Any) -> None:
    with app, pytest.raises(DeclarationError, match=r"start\(\) takes"):
        operon.start(what, 1)
