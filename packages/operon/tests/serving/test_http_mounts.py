"""Below other applications: wherever an app hangs, a `Location` leads back to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.routing import Host, Mount

from children import PATIENCE
from operon import Operon
from operon.core.commands import Op
from operon.core.rows import Outcome
from operon.core.states import Status
from operon.fastapi import attach
from operon.http import answering
from serving.conftest import client_of

pytestmark = pytest.mark.anyio


def attached(app: Operon) -> FastAPI:
    api = FastAPI()
    attach(app, api)
    return api


def mounted(path: str, inner: Any) -> FastAPI:
    outer = FastAPI()
    outer.mount(path, inner)
    return outer


def included(path: str, inner: Any) -> FastAPI:
    outer = FastAPI()
    outer.include_router(inner.router, prefix=path)
    return outer


def included_twice(app: Operon) -> FastAPI:
    router, outer = APIRouter(), FastAPI()
    router.include_router(attached(app).router, prefix="/shop")
    outer.include_router(router, prefix="/v1")
    return outer


WAYS: dict[str, tuple[str, Callable[[Operon], Any]]] = {
    "itself": ("", lambda app: app),
    "attached": ("", attached),
    "mounted": ("/shop", lambda app: mounted("/shop", app)),
    "its application, mounted": ("/shop", lambda app: mounted("/shop", app.http)),
    "its router, mounted": ("/shop", lambda app: mounted("/shop", app.http.router)),
    "attached and mounted": ("/shop", lambda app: mounted("/shop", attached(app))),
    "in Starlette": ("/shop", lambda app: Starlette(routes=[Mount("/shop", app)])),
    "below a host": ("/shop", lambda app: Starlette(routes=[Host("test", mounted("/shop", app))])),
    "mounted twice": ("/v1/shop", lambda app: mounted("/v1", mounted("/shop", app))),
    "attached and mounted twice": ("/v1/shop", lambda app: mounted("/v1", mounted("/shop", attached(app)))),
    "included": ("/v1", lambda app: included("/v1", attached(app))),
    "included twice": ("/v1/shop", included_twice),
    "included and mounted": ("/v1/shop", lambda app: mounted("/v1", included("/shop", attached(app)))),
    "mounted for each tenant": ("/a%20%C3%BC%25@b/shop", lambda app: mounted("/{tenant}/shop", app)),
    "where a path begins like a host": ("/%2Fshop", lambda app: mounted("/{any:path}/shop", app)),
}


def declared(gate: asyncio.Event, name: str = "shop") -> Operon:
    """Three endpoints: one that waits a moment, one that refuses to wait, and one with parameters in its path."""
    app = Operon(name, database="memory:")

    async def work() -> str:
        await asyncio.wait_for(gate.wait(), PATIENCE)
        return "done"

    for path, wait in (("/work", 0.01), ("/at/once", 0)):
        app.post(path, wait=wait)(app.workflow(name=path)(work))

    @app.put("/files/{number}/{path:path}")
    @app.workflow
    def put(number: int, path: str) -> str:
        return f"{number}: {path}"

    return app


@pytest.mark.parametrize("proxy", ["", "/api", "/api v2"])
@pytest.mark.parametrize("way", WAYS)
async def test_each_location_is_below_where_the_app_hangs(way: str, proxy: str) -> None:
    """Told at once, after a wait, with a 409, and by the status itself; and it answers there."""
    gate = asyncio.Event()
    app = declared(gate)
    where, hang = WAYS[way]
    if way == "where a path begins like a host":
        where = "//shop/shop" if not proxy else "/shop/shop"
    where = proxy.replace(" ", "%20") + where
    api = hang(app)
    transport = httpx2.ASGITransport(app=api, root_path=proxy)
    async with app, httpx2.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
        told = [
            await client.post(f"http://test{where}/work"),
            await client.post(f"http://test{where}/work", headers={"prefer": "respond-async"}),
            await client.post(f"http://test{where}/at/once", headers={"idempotency-key": "k"}),
            await client.post(f"http://test{where}/at/once", headers={"idempotency-key": "k"}),
        ]
        assert [it.status_code for it in told] == [202, 202, 202, 409]
        base = where.replace("//", "/%2F")
        for answer in told:
            location = answer.headers["location"]
            assert location.startswith(f"{base}/operon/workflows/")
            status = await client.get(location)
            assert (status.status_code, status.json()["status"]) == (202, "running")
            assert status.headers["location"] == location
        file = f"http://test{where}/files/007/a/b%2Fc"
        put = await client.put(file, headers={"prefer": "respond-async"})
        assert put.headers["location"].startswith(f"{base}/operon/workflows/")
        gate.set()


async def test_two_apps_with_the_same_endpoint_below_one() -> None:
    """Each tells its own `Location`."""
    gate, outer = asyncio.Event(), FastAPI()
    apps = [declared(gate, name) for name in ("one", "two")]
    async with AsyncExitStack() as stack:
        for app in apps:
            outer.mount(f"/{app.name}", app.http)
            await stack.enter_async_context(app)
        client = await stack.enter_async_context(client_of(outer))
        for app in apps:
            answer = await client.post(f"/{app.name}/work")
            assert answer.headers["location"].startswith(f"/{app.name}/operon/workflows/")
            assert (await client.get(answer.headers["location"])).status_code == 202
        gate.set()


async def test_a_held_workflow_says_where_it_is_below_a_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request is answered 202, as it may go on yet."""
    gate = asyncio.Event()
    app = declared(gate)

    def held(*_: Any) -> Op[Outcome]:
        yield from ()
        return Outcome(Status.HELD)

    monkeypatch.setattr(answering, "_ended", held)
    async with app, client_of(mounted("/shop", app)) as client:
        answer = await client.post("/shop/work")
        assert answer.status_code == 202
        assert answer.headers["location"].startswith("/shop/operon/workflows/")
        gate.set()
