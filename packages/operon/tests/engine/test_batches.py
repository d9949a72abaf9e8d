"""A function of many items: each caller has a workflow of his own, and the function runs once for many of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import operon
from children import eventually
from engine.conftest import MakeApp, crash
from operon import Operon, aio, cancel, count, describe, enqueue, enqueue_many, find, start, steps
from operon.app.declarations import Workflow
from operon.errors import BadValue, DeclarationError, WorkflowCancelled, WorkflowTimedOut


class Index:
    """A queue, and a function of many items that says what it was given."""

    def __init__(self, app: Operon, size: int = 5, wait: float = 0.1, **limits: Any) -> None:
        self.app = app
        self.queue = app.queue("q", **limits)
        self.runs: list[list[int]] = []
        self.open = threading.Event()
        self.open.set()
        self.began = threading.Event()

        @app.step
        def write(docs: list[int]) -> int:
            self.runs.append(docs)
            return len(docs)

        @app.workflow(batch=size, batch_wait=wait, name="index")
        def index(docs: list[int]) -> list[str | Exception]:
            many = write(docs)
            operon.now()  # what was recorded before is durable
            self.began.set()
            assert self.open.wait(20)
            if 13 in docs:
                raise ValueError("unlucky")
            return [KeyError(doc) if doc < 0 else f"{doc} of {many}" for doc in docs]

        self.index = index

    def results(self, handles: list[Any]) -> list[Any]:
        return list(operon.gather(*handles, errors="return"))


def test_items_share_a_run_and_each_has_its_own_result(make: MakeApp) -> None:
    app = make()
    index = Index(app, size=5, wait=3600.0)
    with app:
        handles = [enqueue(index.queue, index.index.using(key=f"doc-{n}"), n) for n in range(5)]
        seen = index.results(handles)
        assert seen == [f"{n} of 5" for n in range(5)]
        assert [sorted(run) for run in index.runs] == [[*range(5)]]
        assert enqueue(index.queue, index.index.using(key="doc-3"), 3).result(20) == seen[3]
        (batch,) = {step.child for step in steps("doc-0")}
        assert describe(batch or "").name == "index[]"
        assert 0 in describe(batch or "").input["docs"]


def test_a_full_batch_begins_at_once_and_another_after_its_wait(make: MakeApp) -> None:
    app = make()
    index = Index(app, size=3, wait=3600.0)
    with app:
        full = enqueue_many(index.queue, [index.index.bind(n) for n in range(3)])
        assert index.results(full) == ["0 of 3", "1 of 3", "2 of 3"]
        alone = enqueue(index.queue, index.index, 9)
        assert describe(alone.id).status == "queued"
        index.index.using(key="k")(4)
        assert describe(alone.id).status == "queued"
    assert index.runs == [[0, 1, 2], [4]]


def test_a_batch_that_need_not_wait_is_full(make: MakeApp) -> None:
    """Who comes while the first of a full batch has begun, and has not taken the others, is no company for another."""
    app = make()
    index = Index(app, size=5, wait=3600.0)
    with app:
        index.results([enqueue(index.queue, index.index, n) for n in range(40)])
    assert [len(run) for run in index.runs] == [5] * 8


def test_partitions_do_not_mix(make: MakeApp) -> None:
    app = make()
    index = Index(app)
    with app:
        calls = [index.index.using(partition="ab"[n % 2]).bind(n) for n in range(4)]
        index.results(list(enqueue_many(index.queue, calls)))
        assert all(len({n % 2 for n in run}) == 1 for run in index.runs)


def test_a_batch_counts_as_one_running_workflow(make: MakeApp) -> None:
    app = make()
    index = Index(app, size=2, wait=0.0, concurrency=1)
    index.open.clear()
    with app:
        handles = enqueue_many(index.queue, [index.index.bind(n) for n in range(6)])
        assert index.began.wait(20)
        assert count(queue="q", status="running") == 1
        index.open.set()
        index.results(list(handles))
        assert max(map(len, index.runs)) <= 2


def test_an_error_as_an_element_fails_that_item_only(make: MakeApp) -> None:
    app = make()
    index = Index(app)
    with app:
        good, bad = index.results(list(enqueue_many(index.queue, [index.index.bind(n) for n in (1, -2)])))
        assert good.startswith("1 of")
        assert isinstance(bad, KeyError)


def test_an_exception_fails_all_of_the_batch(make: MakeApp) -> None:
    app = make()
    index = Index(app, size=2, wait=3600.0)
    with app:
        seen = index.results(list(enqueue_many(index.queue, [index.index.bind(n) for n in (1, 13)])))
        assert [str(it) for it in seen] == ["unlucky", "unlucky"]


@pytest.mark.parametrize("given", [[1], [1, 2, 3], "ab", 7])
def test_a_wrong_number_of_results_is_an_error_of_all(make: MakeApp, given: Any) -> None:
    app = make()
    queue = app.queue("q")

    @app.workflow(batch=2, batch_wait=3600)
    def index(docs: list[int]) -> list[int]:
        del docs
        return given  # type: ignore[no-any-return]

    with app:
        for handle in enqueue_many(queue, [index.bind(1), index.bind(2)]):
            with pytest.raises(BadValue, match=r"results for 2 items|give a list"):
                handle.result(20)
        if given != [1]:
            with pytest.raises(BadValue, match=r"results for 1 items|give a list"):
                index(5)


def test_a_function_that_returns_nothing_gives_each_item_nothing(make: MakeApp) -> None:
    app = make()
    queue, seen = app.queue("q"), list[int]()

    @app.workflow(batch=3, batch_wait=0)
    def note(docs: list[int]) -> None:
        seen.extend(docs)

    with app:
        assert operon.gather(*enqueue_many(queue, [note.bind(n) for n in range(3)])) == (None, None, None)
        note(3)
        assert start(note, 4).result(20) is None
        assert sorted(seen) == [0, 1, 2, 3, 4]


def test_outside_a_queue_an_item_is_a_batch_of_one(make: MakeApp) -> None:
    app = make()
    index = Index(app)

    @app.workflow(name="parent")
    def parent() -> str:
        return str(index.index(7))

    with app:
        assert index.index(1) == "1 of 1"
        assert start(index.index, 2).result(20) == "2 of 1"
        assert parent() == "7 of 1"
        with pytest.raises(KeyError):
            index.index(-1)
        with pytest.raises(ValueError, match="unlucky"):
            index.index(13)


def test_an_item_that_is_cancelled_in_time_is_in_no_batch(make: MakeApp) -> None:
    app = make()
    index = Index(app, size=3, wait=3600.0)
    with app:
        handles = list(enqueue_many(index.queue, [index.index.bind(n) for n in range(2)]))
        cancel(handles[0].id)
        handles += enqueue_many(index.queue, [index.index.bind(n) for n in range(2, 4)])
        seen = index.results(handles)
        assert isinstance(seen[0], WorkflowCancelled)
        assert index.runs == [[1, 2, 3]]


def test_an_item_that_is_cancelled_later_has_no_result_and_disturbs_nobody(make: MakeApp) -> None:
    app = make()
    index = Index(app, size=2, wait=3600.0)
    index.open.clear()
    with app:
        handles = list(enqueue_many(index.queue, [index.index.bind(n) for n in range(2)]))
        assert index.began.wait(20)
        cancel(handles[0].id)
        index.open.set()
        seen = index.results(handles)
        assert isinstance(seen[0], WorkflowCancelled)
        assert seen[1] == "1 of 2"


def test_who_cancels_a_batch_cancels_its_items(make: MakeApp) -> None:
    app = make()
    index = Index(app, size=2, wait=3600.0)
    index.open.clear()
    with app:
        handles = list(enqueue_many(index.queue, [index.index.bind(n) for n in range(2)]))
        assert index.began.wait(20)
        (batch,) = find(name="index[]")
        cancel(batch.id)
        assert [type(it) for it in index.results(handles)] == [WorkflowCancelled] * 2
        index.open.set()


def test_an_item_past_its_deadline_ends_without_its_batch(
    make: MakeApp, overdue: Callable[[Operon, str], None]
) -> None:
    app = make()
    index = Index(app, size=2, wait=3600.0)
    index.open.clear()
    with app:
        late = enqueue(index.queue, index.index.using(timeout=3600), 1)
        other = enqueue(index.queue, index.index, 2)
        assert index.began.wait(20)
        overdue(app, late.id)
        with pytest.raises(WorkflowTimedOut):
            late.result(20)
        index.open.set()
        assert other.result(20) == "2 of 2"


def test_a_crash_in_the_middle_resumes_with_the_same_items_and_journal(make: MakeApp, database: Any) -> None:
    app = make()
    index = Index(app, size=3, wait=3600.0)
    index.open.clear()
    app.launch()
    handles = [it.id for it in enqueue_many(index.queue, [index.index.bind(n) for n in range(3)])]
    assert index.began.wait(20)
    crash(app)
    index.open.set()
    again = make()
    other = Index(again, size=3, wait=3600.0)
    with again:
        seen = [operon.retrieve(key, other.index).result(30) for key in handles]
        assert seen == ["0 of 3", "1 of 3", "2 of 3"]
        assert other.runs == []  # the step was recorded
        assert index.runs == [[0, 1, 2]]


def test_dedupe_and_attributes_are_the_items_own(make: MakeApp) -> None:
    app = make()
    index = Index(app, size=3, wait=3600.0)
    with app:
        one = enqueue(index.queue, index.index.using(dedupe="d", attributes={"n": 1}), 1)
        assert enqueue(index.queue, index.index.using(dedupe="d"), 1).id == one.id
        assert [it.id for it in find(attributes={"n": 1})] == [one.id]


def test_children_are_items_too(make: MakeApp) -> None:
    app = make(grace=0.0)
    index = Index(app, size=4, wait=0.2)

    @app.workflow(name="parent")
    def parent(n: int) -> list[str]:
        handles = [enqueue(index.queue, index.index, n + i) for i in range(2)]
        return [str(handle.result()) for handle in handles]

    with app:
        handles = [start(parent, 0), start(parent, 10)]
        assert [[it.split()[0] for it in handle.result(30)] for handle in handles] == [["0", "1"], ["10", "11"]]


@pytest.mark.anyio
async def test_async_batches(sqlite_path: Any) -> None:
    app = Operon("app", database=f"sqlite:///{sqlite_path}")
    queue, runs = app.queue("q"), list[list[int]]()

    @app.workflow(batch=3, batch_wait=3600)
    async def index(docs: list[int]) -> list[int]:
        runs.append(docs)
        await aio.sleep(0)
        return [doc + 1 for doc in docs]

    async with app:
        handles = await aio.enqueue_many(queue, [index.bind(n) for n in range(3)])
        assert [await handle for handle in handles] == [1, 2, 3]
        assert await index(5) == 6
        assert runs == [[0, 1, 2], [5]]


def test_methods_are_batches_of_their_object(make: MakeApp) -> None:
    app = make()
    queue = app.queue("q")

    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        @app.workflow(batch=2, batch_wait=3600, name="ship")
        def ship(self, orders: list[int]) -> list[str]:
            return [f"{self.name} {order}" for order in orders]

    eu, us = app.register(Shop("eu"), name="eu"), app.register(Shop("us"), name="us")
    with app:
        handles = [enqueue(queue, shop.ship, n) for n in range(2) for shop in (eu, us)]
        assert [handle.result(20) for handle in handles] == ["eu 0", "us 0", "eu 1", "us 1"]
        assert eu.ship(9) == "eu 9"


@pytest.mark.parametrize(
    "options", [{"batch": 0}, {"batch": True}, {"batch": "ten"}, {"batch_wait": 1}, {"batch": 2, "batch_wait": -1}]
)
def test_what_is_no_batch_is_refused_where_it_is_declared(options: dict[str, Any]) -> None:
    def nothing() -> None: ...

    def three(one: list[int], two: list[int], more: list[int]) -> None: ...

    def many(*docs: int) -> None: ...

    def whole(docs: list[int]) -> list[int]:
        return docs

    app = Operon("app")
    with pytest.raises((DeclarationError, BadValue), match="batch"):
        app.workflow(**options)(whole)
    wrong: list[Any] = [nothing, three, many]
    for it in wrong:
        with pytest.raises(DeclarationError, match="one list"):
            app.workflow(batch=2, name="wrong")(it)


def test_a_batch_is_not_started_by_hand(make: MakeApp) -> None:
    app = make()
    index = Index(app)
    with app:
        batches: Workflow[[list[int]], Any] = Workflow(app.functions["index[]"])
        handle = start(batches, [1])
        eventually(lambda: describe(handle.id).status == "held")
        assert "enqueue single items" in str(describe(handle.id).error)
        assert index.runs == []
