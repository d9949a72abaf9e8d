"""What a user gives is held against what every database, clock and reader can, before anything is recorded."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, cast

import pytest

import operon
from children import PATIENCE
from engine.conftest import MakeApp
from operon import Client, Operon, Routes
from operon.app.declarations import Workflow
from operon.core.given import LONGEST
from operon.core.retry import Retry
from operon.errors import BadValue, DeclarationError

ENDLESS: list[Any] = [1e12, 10**400, timedelta.max, float("inf"), float("nan"), -1, timedelta(-1), True, "1", None, [1]]
UNSTORABLE = ["a\0b", "a\ud800b"]
NO_LABELS: list[Any] = [
    *({"note": text} for text in UNSTORABLE),
    *({text: 1} for text in UNSTORABLE),
    *({"deep": {text: 1}} for text in UNSTORABLE),
    {1: "a"},
    {"deep": {1: "a"}},
    {"n": float("nan")},
    {"n": float("inf")},
    {"n": 2**63},
    {"n": 10**5000},
    {"n": {"a", "b"}},
    {"n": b"a"},
    {"n": "x" * 200_000},
    ["a"],
    "a",
]
UNNAMEABLE: list[Any] = [*UNSTORABLE, "", "a\nb", "x" * 256, 1, b"a"]


def doubled(items: list[int]) -> list[int]:
    return [2 * item for item in items]


@pytest.fixture
def app(make: MakeApp) -> Any:
    app = make()

    @app.workflow
    def flow() -> int:
        return 1

    with app:
        yield app


def flow(app: Operon) -> Workflow[[], int]:
    return Workflow(app.functions[next(iter(app.functions))])


def lasting(app: Operon, endless: Any) -> list[Callable[[], Any]]:
    """Everything that takes a duration while an app is launched."""
    given = cast("Any", "x" if endless is None else endless)
    return [
        lambda: flow(app).using(delay=given),
        lambda: flow(app).using(timeout=given),
        lambda: app.close(drain=given),
        lambda: Routes().get("/x", wait=given)(lambda: 1),
        lambda: operon.start(flow(app)).result(timeout=given),
    ]


def test_a_duration_that_no_calendar_has_is_refused_where_it_is_given(app: Operon) -> None:
    """Delays, deadlines, patience, drains: BadValue names it, and find() and describe() answer as before."""
    for endless in ENDLESS:
        for give in lasting(app, endless):
            with pytest.raises(BadValue, match=r"number of seconds or a timedelta"):
                give()
    assert all(operon.describe(record.id).ready_at is None for record in operon.find(status="succeeded"))


@pytest.mark.parametrize("endless", ENDLESS, ids=range(len(ENDLESS)))
def test_a_declaration_refuses_a_duration_that_no_calendar_has(endless: Any) -> None:
    """Leases, graces, retention, retries, rates."""
    app = Operon("given", database="memory:")
    given = cast("Any", "x" if endless is None else endless)
    wrong = cast("Any", endless)
    refused: list[Callable[[], Any]] = [
        lambda: Operon("x", lease=wrong),
        lambda: Operon("x", grace=wrong),
        lambda: app.queue("q", rate=(1, wrong)),
        lambda: Retry(backoff=wrong),
        lambda: Retry(cap=wrong),
        lambda: Retry(factor=1e9 if endless is None else endless),
        lambda: app.workflow(batch=2, batch_wait=given)(doubled),
        lambda: app.step(timeout=given)(lambda: 1),
    ]
    if endless not in (None, timedelta.max):  # which is a way to say for ever
        refused += [
            lambda: Operon("x", keep=endless),
            lambda: Operon("x", keep={"failed": endless}),
            lambda: Operon("x", keep_keys=endless),
        ]
    for give in refused:
        with pytest.raises((BadValue, DeclarationError)):
            give()


def test_the_longest_duration_is_kept_and_shown(make: MakeApp) -> None:
    """What is not refused works: it is recorded, found, described and counted."""
    app = make()

    @app.workflow
    def flow() -> int:
        return 1

    @app.workflow
    def sleeper() -> None:
        operon.sleep(LONGEST)

    with app:
        late = operon.start(flow.using(delay=LONGEST, timeout=LONGEST))
        asleep = operon.start(sleeper)
        ready = operon.describe(late.id).ready_at
        assert ready is not None
        assert 5000 < ready.year < 6000
        assert {record.id for record in operon.find()} == {late.id, asleep.id}
        operon.cancel(late.id)
        operon.cancel(asleep.id)


@pytest.mark.parametrize(
    "instant",
    [
        datetime(2026, 1, 1),  # noqa: DTZ001 - the case
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
        date(2026, 1, 1),
        1e9,
    ],
)
def test_an_instant_that_is_none_is_refused_where_it_is_given(app: Operon, instant: Any) -> None:
    for ask in (operon.find, operon.count):
        with pytest.raises(BadValue):
            ask(since=instant)
        with pytest.raises(BadValue):
            ask(until=instant)


def test_the_ends_of_the_calendar_may_be_asked_for(app: Operon) -> None:
    operon.start(flow(app)).result(PATIENCE)
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    assert operon.count(since=first, until=last) == 1
    assert len(operon.find(since=first, until=last, limit=2**31 - 1)) == 1


def test_labels_that_no_database_can_hold_are_refused(app: Operon) -> None:
    """BadValue names them, nothing is recorded, and a search by other labels answers as before."""
    started = operon.start(flow(app).using(attributes={"tenant": "acme"}))
    for labels in NO_LABELS:
        with pytest.raises(BadValue, match="attributes="):
            operon.start(flow(app).using(attributes=labels))
        for ask in (operon.find, operon.count):
            with pytest.raises(BadValue, match="attributes="):
                ask(attributes=labels)
        assert [record.id for record in operon.find(attributes={"tenant": "acme"})] == [started.id]


def test_labels_that_are_nested_too_deep_are_refused(app: Operon) -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    with pytest.raises(BadValue, match="nested"):
        flow(app).using(attributes={"deep": deep})


def naming(app: Operon, name: Any) -> list[Callable[[], Any]]:
    """Everything that is named."""
    part = Routes()
    return [
        lambda: flow(app).using(key=name),
        lambda: flow(app).using(user=name),
        lambda: flow(app).using(roles=[name]),
        lambda: flow(app).using(roles=name),
        lambda: flow(app).using(dedupe=name),
        lambda: flow(app).using(version=name),
        lambda: flow(app).using(partition=name or "\0"),
        lambda: Operon(name),
        lambda: Operon("x", version=name),
        lambda: Operon("x").register(object(), name=name),
        lambda: Operon("x").queue(name),
        lambda: part.workflow(name=name)(lambda: 1),
        lambda: part.workflow(aliases=[name])(lambda: 1),
        lambda: part.workflow(roles=[name])(lambda: 1),
        lambda: part.workflow(roles=name)(lambda: 1),
        lambda: operon.remote(name)(lambda: 1),
        lambda: operon.schedules.create(name, "@daily", flow(app)),
    ]


def test_a_name_that_no_database_can_hold_is_refused(app: Operon) -> None:
    """Keys, users, roles, partitions, dedupes, versions, apps, queues, schedules, functions, objects."""
    for name in UNNAMEABLE:
        for give in naming(app, name):
            with pytest.raises((BadValue, DeclarationError)):
                give()
    assert operon.count() == 0


@pytest.mark.parametrize("text", [*UNSTORABLE, 1])
def test_a_search_for_what_no_record_has_is_refused(app: Operon, text: Any) -> None:
    for each in ("name", "parent", "user", "queue"):
        for ask in (operon.find, operon.count):
            with pytest.raises(BadValue, match=f"{each}="):
                ask(**{each: text})


@pytest.mark.parametrize("number", [2**31, 10**30, True, 1.5, "1"])
def test_a_number_that_no_column_can_hold_is_refused(app: Operon, number: Any) -> None:
    refused: list[Callable[[], Any]] = [
        lambda: flow(app).using(priority=number),
        lambda: operon.find(limit=number),
        lambda: Operon("x", threads=number),
        lambda: Operon("x", tasks=number),
        lambda: Operon("x", max_payload=number),
        lambda: Operon("x", max_takeovers=number),
        lambda: Retry(retries=number),
        lambda: Operon("x").queue("q", concurrency=number),
    ]
    for give in refused:
        with pytest.raises((BadValue, DeclarationError)):
            give()


def test_a_client_refuses_a_name_that_no_database_can_hold(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    with Operon("x", database=url), Client(url) as client:
        for name in UNSTORABLE:
            with pytest.raises(BadValue):
                client.start(name)
