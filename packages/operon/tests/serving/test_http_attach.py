"""Beside an application that is there already: our routes and our life are added, and everything else is left alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse
from starlette.routing import Mount

from operon import Operon
from operon.fastapi import attach
from serving.conftest import client_of

pytestmark = pytest.mark.anyio


async def test_attached(database: str) -> None:
    """Endpoints, documentation, launch and close are added; the application keeps its lifespan, errors and paths."""
    life: list[str] = []

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncGenerator[dict[str, int]]:
        life.append(f"up, {app.host is not None}")
        yield {"answer": 42}
        life.append(f"down, {app.host is not None}")

    api = FastAPI(lifespan=lifespan)

    @api.get("/healthz")
    def healthz() -> str:
        return "mine"

    @api.get("/old")
    def old(n: int) -> int:
        raise HTTPException(402, "pay")

    @api.exception_handler(RuntimeError)
    async def mine(request: Request, error: RuntimeError) -> PlainTextResponse:
        return PlainTextResponse(f"mine: {error}", 500)

    @api.get("/broken")
    def broken() -> None:
        raise RuntimeError("oops")

    app = Operon("shop", database=database)

    @app.post("/work")
    @app.workflow
    def work(n: int) -> int:
        if n == 0:
            raise RuntimeError("hunter2")
        return n

    attach(app, api)

    @app.post("/later")
    @app.workflow
    def later() -> str:
        return "too"

    async with api.router.lifespan_context(api) as state, client_of(api) as client:
        assert (state, life) == ({"answer": 42}, ["up, True"])
        assert (await client.post("/work?n=3")).json() == 3
        assert (await client.post("/later")).json() == "too"
        assert (await client.post("/work?n=x")).headers["content-type"] == "application/problem+json"
        assert "hunter2" not in (await client.post("/work?n=0")).text
        assert (await client.get("/old?n=1")).json() == {"detail": "pay"}
        assert (await client.get("/old?n=x")).json()["detail"][0]["loc"] == ["query", "n"]
        assert (await client.get("/broken")).text == "mine: oops"
        assert (await client.get("/nothing")).json() == {"detail": "Not Found"}
        assert (await client.get("/healthz")).json() == "mine"
        assert (await client.get("/readyz")).status_code == 200
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert paths.keys() == {"/healthz", "/old", "/broken", "/work", "/later"}
    assert life == ["up, True", "down, True"]
    assert app.host is None


async def test_location_below_a_mount(database: str) -> None:
    """Where the application hangs under a path, `Location` says so."""
    app, outer = Operon("shop", database=database), FastAPI()

    @app.post("/work")
    @app.workflow
    def work() -> str:
        return "done"

    outer.router.routes.append(Mount("/shop", app.http))
    async with app, client_of(outer) as client:
        answer = await client.post("/shop/work", headers={"prefer": "respond-async"})
        assert answer.headers["location"].startswith("/shop/operon/workflows/")
        assert (await client.get(answer.headers["location"])).status_code in {200, 202}
