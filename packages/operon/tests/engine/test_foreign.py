"""What a validator, a serializer or a property asks of Operon while a value is recorded or read is refused at once."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, model_serializer, model_validator

import operon
from engine.conftest import MakeApp
from operon import Operon, aio, steps
from operon.errors import NotDeserializable, NotInWorkflow, WorkflowHeld

ASKED: list[Callable[[], object]] = []
"""What the values below ask when they are validated or made; nothing, while nobody is in there."""


def ask() -> None:
    for each in ASKED:
        each()


class Validated(BaseModel):
    """What asks when it is read."""

    n: int

    @model_validator(mode="after")
    def validated(self) -> "Validated":
        ask()
        return self


class Serialized(BaseModel):
    """What asks when it is recorded."""

    n: int

    @model_serializer
    def serialized(self) -> dict[str, int]:
        ask()
        return {"n": self.n}


@dataclasses.dataclass
class Made:
    """What asks when it is made."""

    n: int

    def __post_init__(self) -> None:
        ask()


class Asks(Exception):
    """What asks when its fields are looked at."""

    def __reduce__(self) -> Any:
        ask()
        return super().__reduce__()

    @property
    def n(self) -> int:
        ask()
        return 1


CLASSES: list[Any] = [Validated, Made]
VERBS = ["step", "now", "child", "sleep"]


@pytest.fixture
def asking() -> Any:
    ASKED.clear()
    yield ASKED
    ASKED.clear()


class Bodies:
    """An app with workflows whose values ask."""

    def __init__(self, app: Operon, verb: str, cls: Any) -> None:
        self.asked: list[str] = []

        @app.step
        def audit() -> None:
            self.asked.append("step")

        @app.workflow
        def child() -> None:
            self.asked.append("child")

        verbs: dict[str, Callable[[], object]] = {
            "step": audit, "now": operon.now, "child": child, "sleep": lambda: operon.sleep(0.01),
        }  # fmt: skip
        self.verb = verbs[verb]

        def get() -> Any:
            made = cls(n=1)
            ASKED.append(self.verb)
            return made

        def given(value: Any) -> int:
            return int(value.n)

        def gives() -> Any:
            return get()

        get.__annotations__["return"] = gives.__annotations__["return"] = given.__annotations__["value"] = cls
        step: Any = app.step(get)

        @app.workflow
        def blocking() -> int:
            return int(step().n)

        @app.workflow
        async def awaiting() -> int:
            value: Any = await aio.call(step)
            return int(value.n)

        self.given: Any = app.workflow(given)
        self.gives: Any = app.workflow(gives)
        self.blocking, self.awaiting = blocking, awaiting


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("colour", ["blocking", "awaiting"])
def test_a_step_whose_result_asks_for_something_fails(
    make: MakeApp, asking: list[Any], verb: str, cls: Any, colour: str
) -> None:
    """Before, a plain call was made while it was recorded, and an operation of the body's while it was read."""
    app = make(lease=60)
    bodies = Bodies(app, verb, cls)
    with app:
        handle = operon.start(getattr(bodies, colour))
        with pytest.raises(NotInWorkflow, match="to record or to read a value"):
            handle.result(20)
        assert [step.name.rpartition(".")[2] for step in steps(handle.id)] == ["get"]
    assert bodies.asked == []


@pytest.mark.parametrize("cls", CLASSES)
def test_a_result_or_an_argument_that_asks_for_something_is_no_operation(
    make: MakeApp, asking: list[Any], cls: Any
) -> None:
    """Whoever records it is told, or whoever reads it first."""
    app = make(lease=60)
    bodies = Bodies(app, "step", cls)
    refused = (NotInWorkflow, NotDeserializable, WorkflowHeld)
    with app:
        with pytest.raises(refused, match="to record or to read a value"):
            operon.start(bodies.gives).result(20)
        ASKED.clear()
        value = cls(n=1)
        ASKED.append(bodies.verb)
        with pytest.raises(refused, match="to record or to read a value"):
            operon.start(bodies.given, value).result(20)
    assert bodies.asked == []


def test_a_serializer_that_asks_for_something_is_passed_by(make: MakeApp, asking: list[Any]) -> None:
    """Pydantic hides why it failed: the fields are recorded without it."""
    app = make(lease=60)
    bodies = Bodies(app, "step", Serialized)
    with app:
        handle = operon.start(bodies.blocking)
        assert handle.result(20) == 1
        assert [step.name.rpartition(".")[2] for step in steps(handle.id)] == ["get"]
    assert bodies.asked == []


def test_what_an_error_asks_is_no_operation(make: MakeApp, asking: list[Any]) -> None:
    app = make(lease=60)
    bodies = Bodies(app, "step", Made)

    @app.step
    def fail() -> None:
        ASKED.append(bodies.verb)
        raise Asks("no")

    @app.workflow
    def flow() -> str:
        try:
            fail()
        except Exception as error:
            ASKED.clear()
            return type(error).__name__
        return "none"

    with app:
        handle = operon.start(flow)
        handle.result(20)
        assert [step.name.rpartition(".")[2] for step in steps(handle.id)] == ["fail"]
    assert bodies.asked == []


def test_a_validator_that_asks_for_nothing_may_call_what_it_likes(make: MakeApp, asking: list[Any]) -> None:
    app = make(lease=60)
    seen: list[int] = []
    bodies = Bodies(app, "step", Validated)
    with app:
        bodies.verb = lambda: seen.append(1)
        assert operon.start(bodies.blocking).result(20) == 1
    assert seen
