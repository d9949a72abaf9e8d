"""What steps() tells of a workflow is true: what goes on has no end and is not done, what is over took its time."""

from __future__ import annotations

import sqlite3
import threading
from datetime import timedelta
from typing import Any

import psycopg
import pytest

import operon
from children import PATIENCE, eventually
from engine.conftest import MakeApp
from operon import Status, StepRecord
from operon.errors import NotInWorkflow, WorkflowCancelled


def length(record: StepRecord) -> timedelta:
    assert record.started_at is not None
    assert record.ended_at is not None
    return record.ended_at - record.started_at


def test_a_sleep_is_waiting_until_it_is_over_and_took_its_time(make: MakeApp) -> None:
    app = make()

    @app.workflow
    def nap(seconds: float) -> None:
        operon.sleep(seconds)

    with app:
        handle = operon.start(nap, 1000)
        eventually(lambda: operon.describe(handle.id).status == "waiting", "it never slept")
        (record,) = operon.steps(handle.id)
        assert record.status is Status.WAITING
        assert record.ended_at is None
        assert record.started_at is not None
        assert record.ready_at is not None
        assert record.ready_at - record.started_at == pytest.approx(timedelta(seconds=1000), abs=timedelta(seconds=9))
        handle = operon.start(nap, 1.0)
        handle.result(PATIENCE)
        (record,) = operon.steps(handle.id)
        assert record.status is Status.SUCCEEDED
        assert length(record) >= timedelta(seconds=0.9)


def test_a_sleep_that_was_cancelled_did_not_succeed(make: MakeApp) -> None:
    app = make()

    @app.workflow
    def nap() -> None:
        operon.sleep(1000)

    with app:
        handle = operon.start(nap)
        eventually(lambda: operon.describe(handle.id).status == "waiting", "it never slept")
        operon.cancel(handle.id)
        with pytest.raises(WorkflowCancelled):
            handle.result(30)
        (record,) = operon.steps(handle.id)
        assert record.status is Status.CANCELLED
        assert record.ended_at == operon.describe(handle.id).ended_at


def test_a_wait_for_another_workflow_is_waiting_and_took_its_time(make: MakeApp) -> None:
    app = make()
    free = threading.Event()

    @app.step
    def hold() -> None:
        assert free.wait(PATIENCE)

    @app.workflow
    def child() -> int:
        hold()
        operon.sleep(1.0)
        return 7

    @app.workflow
    def parent() -> int:
        return operon.start(child).result()

    with app:
        handle = operon.start(parent)
        eventually(lambda: operon.describe(handle.id).status == "waiting", "it never waited")
        begun, waits = operon.steps(handle.id)
        assert begun.kind == "start"
        assert (waits.kind, waits.position, waits.status, waits.child) == ("result", "2", "waiting", begun.child)
        assert waits.ended_at is None
        free.set()
        assert handle.result(PATIENCE) == 7
        waited = operon.steps(handle.id)[1]
        assert (waited.kind, waited.status) == ("result", "succeeded")
        assert length(waited) >= timedelta(seconds=0.9)


def test_a_step_between_two_attempts_is_waiting_and_says_why_and_until_when(make: MakeApp) -> None:
    app = make()

    @app.step(retries=3, backoff=1000, jitter=False)
    def flaky() -> None:
        raise ConnectionError("away")

    @app.workflow
    def flow() -> None:
        flaky()

    with app:
        handle = operon.start(flow)
        eventually(lambda: operon.describe(handle.id).status == "waiting", "it never waited")
        (record,) = operon.steps(handle.id)
        assert (record.position, record.kind, record.status, record.attempt) == ("1", "step", "waiting", 2)
        assert isinstance(record.error, ConnectionError)
        assert record.ended_at is None
        assert record.ready_at is not None
        operon.cancel(handle.id)
        eventually(lambda: operon.steps(handle.id)[0].status == "cancelled", "it goes on")


def test_a_child_that_runs_inline_is_shown_while_it_runs(make: MakeApp) -> None:
    app = make()
    free = threading.Event()

    @app.step
    def hold() -> None:
        free.wait(30)

    @app.workflow
    def child() -> None:
        hold()

    @app.workflow
    def parent() -> None:
        child()

    with app:
        handle = operon.start(parent.using(key="p"))
        eventually(lambda: operon.count(parent="p", status="running") == 1, "the child never ran")
        eventually(lambda: bool(operon.steps("p")), "its start was never shown")
        (shown,) = operon.steps("p")
        assert (shown.kind, shown.position, shown.status, shown.child) == ("start", "1", "succeeded", "p.1")
        assert operon.describe("p.1").status == "running"
        free.set()
        handle.result(30)
        assert {record.status for record in operon.steps("p")} == {"succeeded"}


def test_a_transaction_is_refused_inside_a_transaction(make: MakeApp, database: Any) -> None:
    """It would commit by itself, and on SQLite wait for the one around it for ever."""
    postgres = isinstance(database, str) and database.startswith("postgres")
    app, kind = make(), psycopg.Connection if postgres else sqlite3.Connection

    def inner(tx: Any) -> None: ...

    def outer(tx: Any) -> None:
        declared()

    for function in (inner, outer):
        function.__annotations__ = {"tx": kind}
    declared: Any = app.transaction(inner)
    around: Any = app.transaction(outer)

    @app.workflow
    def flow() -> None:
        around()

    with app:
        for call in (around, flow):
            with pytest.raises(NotInWorkflow, match="inside a transaction"):
                call()
        declared()
