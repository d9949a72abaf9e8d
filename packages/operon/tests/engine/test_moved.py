"""A class that moved to another module, or has another name, is found by those rows that know it by the old one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

import operon
from children import eventually
from engine.conftest import HOUR, MakeApp, Woken
from operon import Operon
from operon.app.declarations import Workflow
from operon.errors import DeclarationError, NotDeserializable, WorkflowHeld

OLD = f"{__name__.partition('.')[0]}.before_it_moved"


@dataclass
class Order:
    """What the old one is now."""

    number: int


class Refused(Exception):
    """Likewise."""


@pytest.fixture
def before() -> Iterator[ModuleType]:
    """The module where the classes were."""

    @dataclass
    class Order:
        number: int

    class Refused(Exception):
        pass

    module = ModuleType(OLD)
    for cls in (Order, Refused):
        cls.__module__, cls.__qualname__ = OLD, cls.__name__
        setattr(module, cls.__name__, cls)
    sys.modules[OLD] = module
    yield module
    sys.modules.pop(OLD, None)


def declared(app: Operon, order: Any, refused: Any) -> Operon:
    @app.step(name="make")
    def make_order():  # type: ignore[no-untyped-def] # only an annotation could tell the class
        return order(7)

    @app.step(name="refuse")
    def refuse() -> None:
        raise refused("no")

    @app.workflow(name="flow")
    def flow(nap: float) -> str:
        made: Any = make_order()
        try:
            refuse()
        except refused as error:
            operon.sleep(nap)
            return f"{type(made).__module__} {made.number} {error}"
        return ""

    return app


def test_a_workflow_goes_on_after_its_classes_moved(make: MakeApp, before: ModuleType, woken: Woken) -> None:
    with declared(make(), before.Order, before.Refused) as app:
        operon.start(_flow(app).using(key="a"), HOUR)
        eventually(lambda: operon.describe("a").status == "waiting", "it never slept")
    del sys.modules[OLD]
    moved = {f"{OLD}:Order": Order, f"{OLD}:Refused": Refused}
    with declared(make(moved=moved), Order, Refused) as app:
        woken(app, "a")
        assert operon.retrieve("a").result(30) == f"{__name__} 7 no"


def test_a_workflow_whose_class_is_gone_is_held_and_says_which(make: MakeApp, before: ModuleType, woken: Woken) -> None:
    """And goes on once that is told."""
    with declared(make(), before.Order, before.Refused) as app:
        operon.start(_flow(app).using(key="a"), HOUR)
        eventually(lambda: operon.describe("a").status == "waiting", "it never slept")
    del sys.modules[OLD]
    with declared(make(), Order, Refused) as app:
        woken(app, "a")
        with pytest.raises(WorkflowHeld, match=f"{OLD}:Order"):
            operon.retrieve("a").result(30)
        assert isinstance(operon.describe("a").error, NotDeserializable)
        assert operon.steps("a")[0].output == {"$": f"{OLD}:Order", "v": {"number": 7}}


def test_what_is_no_old_path_is_refused() -> None:
    wrong: list[Any] = [{"Order": Order}, {f"{OLD}:Order": "Order"}]
    for moved in wrong:
        with pytest.raises(DeclarationError, match="moved="):
            Operon("x", moved=moved)


def _flow(app: Operon) -> Workflow[[float], str]:
    return Workflow(app.functions["flow"])
