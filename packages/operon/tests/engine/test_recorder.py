"""The recorder: what is durable when, and who learns of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

import operon
from children import PATIENCE
from engine.conftest import MakeApp
from engine.stubborn import Stubborn
from operon.core.commands import Advance, Cancel, Command, Start
from operon.core.journal import Run
from operon.core.rows import Entry, Kind, NewWorkflow, Outcome, Park
from operon.core.states import Status
from operon.engine.recorder import Recorder
from operon.errors import Cancelled, StoreError, Suspended, WorkflowCancelled


@pytest.fixture
def database() -> Stubborn:
    return Stubborn()


@pytest.fixture
def run(database: Stubborn) -> Iterator[Run]:
    """A running workflow of executor 1."""
    database.ask(Start(NewWorkflow("w", "flow", "{}", "", 1, executor=1)))
    row = database.tables.workflows["w"].row
    yield Run(cast("Any", None), row)
    database.go.set()


def records_a_step(command: Command[Any]) -> bool:
    return isinstance(command, Advance) and any(entry.kind is Kind.STEP for entry in command.entries)


def test_a_record_on_its_way_is_not_durable_yet(make: MakeApp, database: Stubborn) -> None:
    """The next step begins after the commit of the last, also when that commit began behind the body's back."""
    app = make()
    second = threading.Event()

    @app.step
    def one() -> None:
        database.holds = records_a_step

    @app.step
    def two() -> None:
        second.set()

    @app.workflow
    def flow() -> None:
        one()
        assert database.arrived.wait(PATIENCE)
        two()

    with app:
        handle = operon.start(flow)
        assert database.arrived.wait(PATIENCE)
        assert not second.wait(0.2)
        database.go.set()
        handle.result(PATIENCE)


def test_the_first_of_two_ends_decides(run: Run, database: Stubborn) -> None:
    """Ends that are submitted during a commit are not merged: the first is written, and the others hear that."""
    database.holds = records_a_step
    recorder = Recorder(database, run)
    run.pending.append(Entry("1", 1, Kind.STEP, "one"))
    flight = recorder.submit()
    failed, parked = recorder.submit(Outcome(Status.FAILED, error="null")), recorder.submit(Park(None))
    database.go.set()
    assert flight.result(PATIENCE).written
    assert failed.result(PATIENCE).written
    assert isinstance(parked.exception(10), Suspended)
    assert database.tables.workflows["w"].row.status is Status.FAILED


def test_waiting_for_what_is_already_written_costs_no_commit(run: Run, database: Stubborn) -> None:
    """Who asks for a flush while his entry is under way waits for that commit, and not for an empty one more."""
    database.holds = records_a_step
    recorder = Recorder(database, run)
    run.pending.append(Entry("1", 1, Kind.STEP, "one"))
    first, second = recorder.submit(), recorder.submit()
    database.go.set()
    assert first.result(PATIENCE).written
    assert second.result(PATIENCE).written
    assert not run.pending
    assert sum(isinstance(command, Advance) for command in database.asked) == 1


def test_a_closed_store_reaches_everybody_who_waits(run: Run, database: Stubborn, monkeypatch: Any) -> None:
    """A submit that raises instead of answering fails its own waiters, and not those of the commit before."""
    database.holds = records_a_step
    recorder = Recorder(database, run)
    run.pending.append(Entry("1", 1, Kind.STEP, "one"))
    first = recorder.submit()

    def closed(_: Command[Any], then: object) -> None:
        del then
        raise StoreError("closed")

    run.pending.append(Entry("2", 2, Kind.STEP, "two"))
    second = recorder.submit()
    monkeypatch.setattr(database, "submit", closed)
    database.go.set()
    assert first.result(PATIENCE).written
    assert isinstance(second.exception(10), StoreError)
    run.pending.append(Entry("3", 3, Kind.STEP, "three"))
    assert isinstance(recorder.submit().exception(10), StoreError)


def test_a_refused_record_says_why(make: MakeApp, database: Stubborn) -> None:
    """Who writes before he is told that he was cancelled learns it from the refusal, and cleans up."""
    app = make()
    inside, cancelled = threading.Event(), threading.Event()
    cleaned: list[str] = []

    @app.step
    def clean() -> None:
        cleaned.append("clean")

    @app.workflow
    def flow() -> None:
        inside.set()
        assert cancelled.wait(PATIENCE)
        try:
            operon.now()
        except Cancelled:
            clean()
            raise

    with app:
        handle = operon.start(flow.using(key="w"))
        assert inside.wait(PATIENCE)
        database.ask(Cancel("w"))
        cancelled.set()
        with pytest.raises(WorkflowCancelled):
            handle.result(PATIENCE)
    assert cleaned == ["clean"]
