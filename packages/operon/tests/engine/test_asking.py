"""Asking about workflows: what cannot be is not found, and what is is told as it is."""

from __future__ import annotations

import os
from contextlib import nullcontext

import pytest

import operon
from children import PATIENCE
from engine.conftest import MakeApp
from operon import Client
from operon.errors import BadValue, NotFound


@pytest.mark.parametrize("impossible", ["", "x" * 256, "a\nb", "a\0b", "a\udc80b", "nobody"])
def test_an_id_that_nobody_has_is_not_found(make: MakeApp, impossible: str) -> None:
    """Whatever text is asked for, the answer is NotFound, and never the database's own words."""
    app = make()
    with app:
        for ask in (operon.describe, operon.steps, operon.retrieve, operon.cancel, operon.delete):
            with pytest.raises(NotFound):
                ask(impossible)


def test_find_refuses_what_it_cannot_mean(make: MakeApp) -> None:
    app = make()
    with app:
        with pytest.raises(BadValue, match="succeded"):
            operon.find(status="succeded")
        with pytest.raises(BadValue, match="limit"):
            operon.find(limit=0)


def test_find_pages_through_everything_once(make: MakeApp) -> None:
    """Page after page, newest first, each workflow once; filters by label and state."""
    app = make()

    @app.workflow
    def flow(n: int) -> int:
        if n % 3 == 0:
            raise ValueError(n)
        return n

    with app:
        for n in range(10):
            handle = operon.start(flow.using(attributes={"even": n % 2 == 0}), n)
            with pytest.raises(ValueError, match=str(n)) if n % 3 == 0 else nullcontext():
                handle.result(PATIENCE)
        seen: list[int] = []
        page = operon.find(limit=3)
        while page:
            seen += [record.input["n"] for record in page]
            page = operon.find(limit=3, after=page[-1])
        assert seen == list(reversed(range(10)))
        assert operon.count() == 10
        assert operon.count(status="failed") == 4
        assert [record.input["n"] for record in operon.find(attributes={"even": True}, status="failed")] == [6, 0]


def test_who_starts_without_the_code_pins_nothing(sqlite_path: object) -> None:
    """A pinned function that a client starts may be run by any version: the client has none."""
    app = operon.Operon("app", database=f"sqlite:///{sqlite_path}", pin=True)

    @app.workflow
    def flow() -> int:
        return 7

    with app, Client(f"sqlite:///{sqlite_path}") as client:
        assert client.start("test_who_starts_without_the_code_pins_nothing.<locals>.flow").result(20) == 7
        own = operon.start(flow)
        assert own.result(PATIENCE) == 7


def test_describe_tells_who_ran_a_workflow_and_who_may(make: MakeApp) -> None:
    """While it runs, and once it has ended."""
    app = make()
    seen: list[operon.WorkflowRecord] = []

    @app.step
    def look() -> None:
        seen.append(operon.describe("w"))

    @app.workflow
    def flow() -> None:
        look()

    with app:
        operon.start(flow.using(key="w", version=app.version)).result(30)
        (running,), ended = seen, operon.describe("w")
        for record in (running, ended):
            assert (record.pin, record.pid, record.attempts) == (app.version, os.getpid(), 1)
            assert record.host
            assert record.executor
        assert (running.status, ended.status) == ("running", "succeeded")
