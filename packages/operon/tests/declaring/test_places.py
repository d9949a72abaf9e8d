"""Who may run a row: whoever has its function, its object and its version; nobody else touches it."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import pytest

import operon
from children import PATIENCE, eventually
from engine.conftest import MakeApp
from operon import Handle, Operon, Routes, aio
from operon.errors import DeclarationError, StillRunning, WorkflowTimedOut


def left(app: Operon, workflow: Any, *args: Any) -> str:
    """Start a workflow in a process that runs nothing, and end that process."""
    app.launch(run=False)
    workflow_id: str = operon.start(workflow, *args).id
    app.close()
    return workflow_id


def outcome(workflow_id: str) -> Any:
    handle: Handle[Any] = operon.retrieve(workflow_id)
    return handle.result(20)


def test_an_alias_keeps_old_rows_alive(make: MakeApp) -> None:
    """A row that was recorded under the old name is run by the new function, and joined by its callers."""
    old, new = make("old"), make("new")
    before = old.workflow(name="greet")(lambda: "old")
    left(old, before.using(key="w"))

    @new.workflow(name="welcome", aliases=["greet", "hello"])
    def welcome() -> str:
        return "new"

    with new:
        assert outcome("w") == "new"
        assert operon.describe("w").name == "greet"
        assert welcome() == "new"


def test_a_part_included_late_and_declared_late_runs(make: MakeApp) -> None:
    """Also after the launch: async ones and steps, too."""
    app, part = make(), Routes("part")
    with app:
        app.include(part)

        @part.step(name="step")
        async def step(x: int) -> int:
            return x + 1

        @part.workflow(name="late")
        async def late(x: int) -> int:
            return await step(x)

        assert operon.start(late, 1).result(20) == 2
        assert [it.name for it in operon.steps(operon.find()[0].id)] == ["step"]


# ── Objects ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def billing(app: Operon) -> Any:
    class Billing:
        def __init__(self, gateway: str) -> None:
            self.gateway = gateway

        @app.step(name="charge")
        def charge(self, cents: int) -> str:
            return f"{self.gateway}: {cents}"

        @app.workflow(name="bill")
        def bill(self, cents: int) -> str:
            return self.charge(cents)

        @app.workflow(name="abill")
        async def abill(self, cents: int) -> str:
            return await aio.call(self.charge, cents)

    Billing.__qualname__ = "Billing"
    return Billing


def test_rows_record_the_class_and_the_name_of_an_object(make: MakeApp) -> None:
    app = make()
    cls = billing(app)
    eu, us = app.register(cls("visa"), name="eu"), app.register(cls("amex"), name="us")
    with app:
        assert (eu.bill(1), us.bill(2)) == ("visa: 1", "amex: 2")
        assert operon.start(us.bill.using(key="w"), cents=3).result(PATIENCE) == "amex: 3"
        assert operon.start(eu.abill, 4).result(PATIENCE) == "visa: 4"
        assert operon.describe("w").input == {"cents": 3}
        assert [it.name for it in operon.steps("w")] == ["charge"]
        with pytest.raises(DeclarationError, match=r"not registered.*app\.register"):
            cls("visa").bill(1)
        with pytest.raises(DeclarationError, match="before launch"):
            app.register(cls("visa"), name="asia")
        assert operon.count() == 4, "what was refused left nothing"
        assert cls("cash").charge(5) == "cash: 5", "a step is a plain call, on any object"
    with pytest.raises(DeclarationError, match="Billing/eu"):
        app.register(cls("visa"), name="eu")


def test_a_process_without_the_object_leaves_its_rows_alone(make: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    front, back = make("front"), make("back")
    eu = front.register(billing(front)("visa"), name="eu")
    left(front, eu.bill.using(key="w"), 7)
    other = billing(back)
    back.register(other("amex"), name="us")
    with back:
        eventually(lambda: "Billing/eu" in caplog.text)
        assert operon.describe("w").status == "queued"
        assert operon.describe("w").attempts == 0
    back.register(other("master"), name="eu")
    with back:
        assert outcome("w") == "master: 7"


def test_a_method_is_called_on_an_object(make: MakeApp) -> None:
    app = make()
    cls = billing(app)
    eu = app.register(cls("visa"), name="eu")
    with app:
        with pytest.raises((DeclarationError, TypeError), match="bill"):
            cls.bill(1, 2)
        assert eu.bill(1) == "visa: 1"


# ── Unrunnable ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_function_that_nobody_here_has(make: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """Its row stays queued and is reported once, by name; others go on; a process that has it takes it."""
    old, new, more = make("old"), make("new"), make("more")

    def same(x: int) -> int:
        return x

    def next_one(x: int) -> int:
        return x + 1

    gone = old.workflow(name="gone")(same)
    for key in ("a", "b"):
        left(old, gone.using(key=key), 1)
    ping = new.workflow(name="ping")(lambda: "pong")
    more.workflow(name="gone")(next_one)
    with new, caplog.at_level(logging.WARNING, "operon"):
        eventually(lambda: "'gone'" in caplog.text)
        assert operon.start(ping).result(PATIENCE) == "pong"
        record = operon.describe("a")
        assert (record.status, record.name, record.executor, record.input) == ("queued", "gone", None, {"x": 1})
        with pytest.raises(StillRunning):
            operon.retrieve("a").result(0.5)
    said = [it.getMessage() for it in caplog.records if "no function is recorded as 'gone'" in it.getMessage()]
    assert len(said) == 1
    assert "stays queued" in said[0]
    with more:
        assert (outcome("a"), outcome("b")) == (2, 2)


def test_what_is_only_late_is_no_stranger(make: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """A process with all its functions says nothing, however much waits."""
    app = make(threads=1)
    app.workflow(name="flow")(lambda: None)

    @app.workflow(name="nap")
    def nap(x: int) -> int:
        operon.sleep(0.4)
        return x

    with app, caplog.at_level(logging.WARNING, "operon"):
        assert operon.gather(*(operon.start(nap, x) for x in range(6))) == tuple(range(6))
    assert "cannot run in this process" not in caplog.text


# ── Versions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pinned_rows_run_only_on_their_version(make: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """Whether the function, the app or the call says it; any other version continues what is not pinned."""
    one = make("one", version="1")
    keys = {
        "function": one.workflow(name="pinned", pin=True)(lambda: 1),
        "call": one.workflow(name="free")(lambda: 1).using(version="2"),
        "free": one.workflow(name="free too")(lambda: 1),
    }
    for key, workflow in keys.items():
        left(one, workflow.using(key=key))
    two, again = make("two", version="2"), make("again", version="1")
    for app in (two, again):
        for name in ("pinned", "free", "free too"):
            app.workflow(name=name)((lambda: 10) if app is two else (lambda: 20))
    with two, caplog.at_level(logging.WARNING, "operon"):
        assert (outcome("call"), outcome("free")) == (10, 10)
        eventually(lambda: "pinned to version '1+py" in caplog.text)
        assert operon.describe("function").status == "queued"
    with again:
        assert outcome("function") == 20


def test_an_app_may_pin_all(make: MakeApp) -> None:
    one, two = make("one", version="1", pin=True), make("two", version="2")
    workflow_id = left(one, one.workflow(name="flow")(lambda: 1))
    two.workflow(name="flow")(lambda: 2)
    with two, pytest.raises(StillRunning):
        operon.retrieve(workflow_id).result(0.5)
    again = make("again", version="1")
    again.workflow(name="flow")(lambda: 3)
    with again:
        assert outcome(workflow_id) == 3


SOURCE = """
from operon import Operon
app = Operon("x", database="memory:")

@app.step
def step() -> int:
    return {number}

@app.workflow
def flow() -> int:
    return step()
"""


def test_the_version_changes_when_the_source_does(tmp_path: Path) -> None:
    """It is a digest of the declared functions' sources, with Python's version, unless it is given."""
    versions: list[str] = []
    for name, number in (("a", 1), ("b", 2), ("c", 1)):
        path = tmp_path / f"{name}.py"
        path.write_text(SOURCE.format(number=number))
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        versions.append(module.app.version)
    assert versions[0] == versions[2] != versions[1]
    assert all("+py3." in version for version in versions)
    assert Operon("x", version="1.4").version.startswith("1.4+py3.")


# ── Deadlines ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("own", "parents", "least"), [(None, 30, 30), (5, 30, 5), (60, 30, 30)])
def test_a_child_inherits_the_earlier_deadline(make: MakeApp, own: float | None, parents: float, least: float) -> None:
    """In hours, beside which it does not count how long the start of either took."""
    app, hours = make(), 3600

    @app.workflow
    def child() -> None: ...

    @app.workflow
    def parent() -> str:
        return operon.start(child.using(timeout=own and own * hours)).id

    with app:
        child_id = parent.using(timeout=parents * hours, key="p")()
        deadline, created = operon.describe(child_id).deadline, operon.describe("p").created_at
        assert deadline is not None
        assert (deadline - created).total_seconds() / hours == pytest.approx(least, abs=0.1)


def test_a_workflow_that_waited_past_its_deadline_never_begins(make: MakeApp) -> None:
    """The deadline counts from the start, delay included."""
    app = make()
    ran: list[int] = []
    flow = app.workflow(timeout=0.2)(lambda: ran.append(1))
    with app:
        handle = operon.start(flow.using(delay=0.4))
        with pytest.raises(WorkflowTimedOut):
            handle.result(20)
    assert ran == []
