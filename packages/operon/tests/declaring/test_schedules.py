"""`schedule` is outermost and returns what it is given; what cannot be meant is refused at import."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from operon import Operon, Routes
from operon.errors import BadValue, DeclarationError, NotFound


@pytest.fixture
def app() -> Operon:
    return Operon("declared", database="memory:")


def body(at: datetime) -> None: ...


def test_it_returns_what_it_is_given_and_goes_with_endpoints(app: Operon) -> None:
    declared = app.workflow(body)
    assert app.schedule("0 9 * * *")(declared) is declared
    assert app.get("/body")(app.schedule("0 10 * * *", name="second")(declared)) is declared
    assert [(it.name, it.cron, it.tz, it.catch_up, it.overlap) for it in app.timetable] == [
        ("body", "0 9 * * *", "UTC", "one", "skip"),
        ("second", "0 10 * * *", "UTC", "one", "skip"),
    ]


@pytest.mark.parametrize("target", [body, Operon("other").step(body), 7, Operon("other").workflow])
def test_another_order_or_kind_is_refused(app: Operon, target: Any) -> None:
    with pytest.raises(DeclarationError, match=r"write @app\.schedule\(\.\.\.\) above @app\.workflow"):
        app.schedule("0 9 * * *")(target)
    assert app.timetable == ()


def test_what_needs_more_than_the_planned_time_is_refused(app: Operon) -> None:
    def needs(user: str, at: datetime) -> None: ...
    def by_place(at: datetime, /) -> None: ...
    def free(at: datetime, user: str = "ada", *rest: int, **more: int) -> None: ...
    def without() -> None: ...

    for fn, name in ((needs, "user"), (by_place, "at")):
        with pytest.raises(DeclarationError, match=f"needs '{name}'"):
            app.schedule("0 9 * * *")(app.workflow(fn))

    def method(self: object, at: datetime) -> None: ...

    with pytest.raises(DeclarationError, match="needs 'self'"):
        app.schedule("0 9 * * *")(app.workflow(method))
    app.schedule("0 9 * * *")(app.workflow(free))
    app.schedule("0 9 * * *")(app.workflow(without))
    assert len(app.timetable) == 2


def test_a_second_of_one_name_is_refused(app: Operon) -> None:
    declared = app.workflow(body)
    app.schedule("0 9 * * *")(declared)
    with pytest.raises(DeclarationError, match="Two schedules are named 'body': give one of them name="):
        app.schedule("0 10 * * *")(declared)
    part = Routes("part")
    part.schedule("0 10 * * *", name="body")(part.workflow(name="other")(body))
    app.include(part)
    with pytest.raises(DeclarationError, match="Two schedules of declared are named 'body'"):
        app.launch()


@pytest.mark.parametrize(
    ("cron", "options", "said"),
    [
        ("0 25 * * *", {}, "'25' is no hour"),
        ("daily", {}, "it has 1 fields, and needs five"),
        (body, {}, "no text"),
        ("0 9 * * *", {"tz": "Europe/Atlantis"}, "no time zone 'Europe/Atlantis'"),
        ("0 9 * * *", {"overlap": "wait"}, "overlap='wait': there are 'skip', 'queue', 'replace'"),
        ("0 9 * * *", {"catch_up": "two"}, "catch_up='two': there are 'skip', 'one', 'all'"),
        ("0 9 * * *", {"name": "x" * 201}, "at most 200"),
        ("0 9 * * *", {"name": ""}, "1 to 255"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_import(app: Operon, cron: Any, options: Any, said: str) -> None:
    with pytest.raises(BadValue, match=said):
        app.schedule(cron, **options)(app.workflow(body))
    assert app.timetable == ()


def test_after_launch_it_is_refused(app: Operon) -> None:
    declared = app.workflow(body)
    with app, pytest.raises(DeclarationError, match=r"before launch; later, schedules\.create"):
        app.schedule("0 9 * * *")(declared)


def test_an_unknown_queue_is_refused_at_launch(app: Operon) -> None:
    app.schedule("0 9 * * *", queue="nope")(app.workflow(body))
    with pytest.raises(NotFound, match="There is no queue 'nope'"):
        app.launch()
