"""What a request gets: the function's result, computed off the loop, recorded with what the request said of itself."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, Header, Query
from pydantic import BaseModel
from sqlalchemy import Connection, text

from children import PATIENCE
from operon import Operon, Routes, aio
from serving.conftest import by_header, client_of, visiting

pytestmark = pytest.mark.anyio


class Order(BaseModel):
    """What a client sends."""

    item: str
    count: Annotated[int, Query(gt=0)] = 1


@dataclass
class Receipt:
    """What a workflow returns."""

    item: str
    total: int
    secret: str = "hidden"


class PublicReceipt(BaseModel):
    """What of it a client sees."""

    item: str
    total: int


def tenant(x_tenant: Annotated[str, Header()] = "none") -> str:
    return x_tenant


async def test_workflow_is_an_endpoint(database: str) -> None:
    """Its parameters are the input, body, path and query; its result goes through the response model."""
    app = Operon("shop", database=database)

    @app.post("/orders/{shop}", status_code=201, response_model=PublicReceipt)
    @app.workflow
    def order(shop: str, order: Order, price: int = 2) -> Receipt:
        return Receipt(f"{shop}/{order.item}", order.count * price)

    async with visiting(app) as client:
        answer = await client.post("/orders/north", json={"item": "tea", "count": 3}, params={"price": 5})
        assert (answer.status_code, answer.json()) == (201, {"item": "north/tea", "total": 15})
        (row,) = await aio.find(name=order.name)
        assert row.input == {"shop": "north", "order": Order(item="tea", count=3), "price": 5}


async def test_invalid_request_is_not_recorded(database: str) -> None:
    """Validation comes before the record, and says what is wrong as a problem."""
    app = Operon("shop", database=database)

    @app.post("/orders")
    @app.workflow
    def order(order: Order) -> int:
        return order.count

    async with visiting(app) as client:
        answer = await client.post("/orders", json={"item": "tea", "count": -3})
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["errors"][0]["loc"] == ["body", "count"]
        assert (await client.post("/orders", content=b"{")).status_code == 422
        assert await aio.count() == 0


async def test_every_kind_and_colour_is_served(database: str) -> None:
    """Workflows and transactions, blocking and async, and plain functions."""
    app = Operon("shop", database=database)

    @app.put("/workflow")
    @app.workflow
    async def workflow(n: int) -> int:
        await aio.sleep(0)
        return n + 1

    @app.post("/transaction")
    @app.transaction
    def transaction(tx: Connection, n: int) -> int:
        return int(tx.execute(text("select :n + 2"), {"n": n}).scalar_one())

    @app.get("/read/{n}")
    @app.transaction(read_only=True)
    def read(tx: Connection, n: int) -> int:
        return int(tx.execute(text("select :n + 3"), {"n": n}).scalar_one())

    @app.delete("/plain")
    def plain(n: int) -> int:
        return n + 4

    async with visiting(app) as client:
        assert (await client.put("/workflow?n=1")).json() == 2
        assert (await client.post("/transaction?n=1")).json() == 3
        assert (await client.get("/read/1")).json() == 4
        assert (await client.delete("/plain?n=1")).json() == 5
        assert {row.name for row in await aio.find()} == {workflow.name, transaction.name}


async def test_blocking_functions_leave_the_loop_free(database: str) -> None:
    """A blocking workflow and a blocking transaction wait on threads, while another request is served."""
    app = Operon("shop", database=database)
    here, gate = threading.Barrier(3), threading.Event()

    @app.post("/workflow")
    @app.workflow
    def workflow() -> bool:
        here.wait(30)
        return gate.wait(30)

    @app.get("/read")
    @app.transaction(read_only=True)
    def read(tx: Connection) -> bool:
        here.wait(30)
        return gate.wait(30)

    @app.get("/free")
    async def free() -> None:
        gate.set()

    async with visiting(app) as client:
        slow = [asyncio.create_task(client.post("/workflow")), asyncio.create_task(client.get("/read"))]
        await asyncio.get_running_loop().run_in_executor(None, here.wait, 30)
        assert (await client.get("/free")).status_code == 200
        assert [it.json() for it in await asyncio.gather(*slow)] == [True, True]


async def test_dependencies_are_part_of_the_input(database: str) -> None:
    """What `Depends` gives is recorded, so a replay sees the same."""
    app = Operon("shop", database=database)

    @app.post("/who")
    @app.workflow
    def who(tenant: Annotated[str, Depends(tenant)]) -> str:
        return tenant

    async with visiting(app) as client:
        assert (await client.post("/who", headers={"x-tenant": "acme"})).json() == "acme"
        (row,) = await aio.find(name=who.name)
        assert row.input == {"tenant": "acme"}


async def test_request_is_remembered(database: str) -> None:
    """User, roles, request id and trace are on the row, and on those of its children; nonsense is not."""
    app = Operon("shop", database=database, authenticate=by_header)

    @app.workflow
    def child() -> None: ...

    @app.post("/work")
    @app.workflow
    def work() -> None:
        child()

    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"x-user": "alice clerk", "x-request-id": "r-1", "traceparent": trace}
    async with visiting(app) as client:
        assert (await client.post("/work", headers=headers)).status_code == 200
        rows = await aio.find(user="alice")
        assert {(row.name, row.user, row.roles, row.request_id) for row in rows} == {
            (work.name, "alice", ("clerk",), "r-1"),
            (child.name, "alice", ("clerk",), "r-1"),
        }
        assert (await client.post("/work", headers={"x-request-id": "a b", "traceparent": "1"})).status_code == 200
        assert {row.request_id for row in await aio.find(user="")} == {None}


async def test_client_that_goes_does_not_stop_the_workflow(database: str) -> None:
    """A request that is cancelled leaves its workflow, which is done once, and answers the retry."""
    app = Operon("shop", database=database)
    begun, gate, runs = asyncio.Event(), asyncio.Event(), 0

    @app.post("/work")
    @app.workflow
    async def work() -> int:
        nonlocal runs
        runs += 1
        begun.set()
        await gate.wait()
        return runs

    async with visiting(app) as client:
        gone = asyncio.create_task(client.post("/work", headers={"idempotency-key": "k"}))
        await asyncio.wait_for(begun.wait(), PATIENCE)
        gone.cancel()
        await asyncio.wait({gone})
        gate.set()
        answer = await client.post("/work", headers={"idempotency-key": "k"})
        assert (answer.json(), answer.headers["idempotency-replayed"]) == (1, "true")


async def test_client_that_goes_while_it_commits_does_not_stop_the_transaction(database: str) -> None:
    """A transaction whose request is cancelled commits, once."""
    app = Operon("shop", database=database)
    begun, gate = threading.Event(), threading.Event()

    @app.post("/work")
    @app.transaction
    def work(tx: Connection) -> str:
        begun.set()
        gate.wait(30)
        return "done"

    async with visiting(app) as client:
        gone = asyncio.create_task(client.post("/work", headers={"idempotency-key": "k"}))
        await asyncio.get_running_loop().run_in_executor(None, begun.wait, 30)
        gone.cancel()
        await asyncio.wait({gone})
        gate.set()
        assert (await client.post("/work", headers={"idempotency-key": "k"})).json() == "done"
        assert await aio.count() == 1


async def test_parts_are_served_in_whatever_order(database: str) -> None:
    """Endpoints of included routes, declared before or after the FastAPI application was asked for."""
    app, part = Operon("shop", database=database), Routes("part")

    @app.http.middleware("http")
    async def stamp(request: Any, call_next: Any) -> Any:
        answer = await call_next(request)
        answer.headers["x-stamp"] = "yes"
        return answer

    app.include(part)

    @part.post("/work")
    @part.workflow
    def work() -> str:
        return "done"

    async with visiting(app) as client:
        answer = await client.post("/work")
        assert (answer.json(), answer.headers["x-stamp"]) == ("done", "yes")
        assert (await client.get("/openapi.json")).json()["paths"].keys() == {"/work"}


async def test_probes(database: str) -> None:
    """Alive is who answers; ready is who is launched and reaches its database."""
    app = Operon("shop", database=database)
    async with client_of(app) as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        async with app:
            assert (await client.get("/readyz")).status_code == 200


async def test_server_that_claims_nothing_still_answers(database: str) -> None:
    """With `run=False` a process serves; another one of the same database runs what it starts."""

    def made() -> Operon:
        app = Operon("shop", database=database, version="1")

        @app.post("/work")
        @app.workflow(name="work")
        def work() -> str:
            return "done"

        return app

    front, back = made(), made()
    front.launch(run=False)
    try:
        async with back, client_of(front) as client:
            assert (await client.post("/work")).json() == "done"
    finally:
        await asyncio.get_running_loop().run_in_executor(None, front.close)


async def test_lifespan_of_the_server_is_that_of_the_app(database: str) -> None:
    """An ASGI server's startup launches the app, and its shutdown closes it."""
    app = Operon("shop", database=database)

    @app.post("/work")
    @app.workflow
    async def work() -> str:
        return "done"

    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def tell(message: Any) -> None:
        await said.put(message)

    server = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}}, heard.get, tell))
    await heard.put({"type": "lifespan.startup"})
    assert (await asyncio.wait_for(said.get(), PATIENCE))["type"] == "lifespan.startup.complete"
    async with client_of(app) as client:
        assert (await client.post("/work")).json() == "done"
        await heard.put({"type": "lifespan.shutdown"})
        assert (await asyncio.wait_for(said.get(), PATIENCE))["type"] == "lifespan.shutdown.complete"
        await server
        refused: httpx2.Response = await client.post("/work")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


async def test_requests_wait_behind_no_background_workflow(database: str) -> None:
    """A transaction is answered while all threads for background work are taken, with and without a key."""
    app = Operon("shop", database=database, threads=1)
    busy, gate = threading.Event(), threading.Event()

    @app.workflow
    def background() -> None:
        busy.set()
        assert gate.wait(60)

    @app.post("/ones")
    @app.transaction
    def one(tx: Connection) -> int:
        return int(tx.execute(text("select 1")).scalar_one())

    async with visiting(app) as client:
        try:
            await aio.start(background)
            assert await asyncio.to_thread(busy.wait, 60)
            for headers in ({}, {"Idempotency-Key": "k"}):
                assert (await client.post("/ones", headers=headers)).json() == 1
        finally:
            gate.set()


async def test_more_requests_than_threads_are_refused(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gets no thread in time is told to come again, and nothing of it is done, neither then nor later."""
    app = Operon("shop", database=database, threads=1)
    busy, gate, ran = threading.Event(), threading.Event(), list[str]()

    @app.get("/reads/{name}")
    @app.transaction(read_only=True)
    def read(tx: Connection, name: str) -> str:
        ran.append(name)
        busy.set()
        assert gate.wait(60)
        return name

    async with visiting(app) as client:
        first = asyncio.create_task(client.get("/reads/first"))
        try:
            assert await asyncio.to_thread(busy.wait, 60)
            with monkeypatch.context() as hurried:
                hurried.setattr("operon.http.answering.PLACE", 0.05)
                refused = await client.get("/reads/second")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert "more to do" in refused.json()["detail"]
        finally:
            gate.set()
        assert (await first).json() == "first"
        assert (await client.get("/reads/third")).json() == "third"
    assert ran == ["first", "third"]
