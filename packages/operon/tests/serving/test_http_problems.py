"""Errors are problems (RFC 9457), say what the client can do, and never what a user's exception says."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import HTTPException

from children import PATIENCE
from operon import Operon, aio
from operon.embedded import Postgres
from operon.http import answering, health
from serving.conftest import client_of, visiting

pytestmark = pytest.mark.anyio


def is_problem(answer: httpx2.Response, status: int) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    return body


@pytest.fixture
def app(sqlite_path: Path) -> Operon:
    return Operon("shop", database=f"sqlite:///{sqlite_path}")


async def test_unknown_paths_and_methods(app: Operon) -> None:
    @app.post("/work")
    @app.workflow
    def work() -> None: ...

    async with visiting(app) as client:
        is_problem(await client.get("/nothing"), 404)
        answer = await client.get("/work")
        is_problem(answer, 405)
        assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("durable", [True, False])
async def test_large_bodies_are_refused_while_they_come(app: Operon, durable: bool) -> None:
    """Announced or streamed, a body beyond `max_body` is 413; a streamed one is read no further."""

    def measure(body: list[int]) -> int:
        return len(body)

    app.post("/work", max_body=1000)(app.workflow(measure) if durable else measure)
    sent = 0

    async def streamed() -> AsyncGenerator[bytes]:
        nonlocal sent
        yield b"[0"
        for sent in range(1000):  # noqa: B007 - how far it came is what is asked
            yield b",0" * 100
        yield b"]"

    async with visiting(app) as client:
        assert (await client.post("/work", json=[0] * 300)).json() == 300
        is_problem(await client.post("/work", json=[0] * 600), 413)
        is_problem(await client.post("/work", content=streamed(), headers={"content-type": "application/json"}), 413)
        assert sent < 20
        sent = 0
        announced = {"content-type": "application/json", "content-length": "200002"}
        is_problem(await client.post("/work", content=streamed(), headers=announced), 413)
        assert sent == 0
        assert await aio.count() == int(durable)


async def test_what_cannot_be_recorded_is_too_large(sqlite_path: Path) -> None:
    """A payload within `max_body` and beyond `max_payload` is 413, too."""
    app = Operon("shop", database=f"sqlite:///{sqlite_path}", max_payload=500)

    @app.post("/work")
    @app.workflow
    def work(body: list[int]) -> int:
        return len(body)

    async with visiting(app) as client:
        is_problem(await client.post("/work", json=[0] * 600), 413)


async def test_errors_of_plain_functions(app: Operon) -> None:
    """They are problems too, and a traceback is for the log."""

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("hunter2")

    @app.get("/teapot")
    def teapot() -> None:
        raise HTTPException(418, "short and stout", {"x-tea": "yes"})

    async with visiting(app) as client:
        assert "hunter2" not in str(is_problem(await client.get("/broken"), 500))
        answer = await client.get("/teapot")
        assert is_problem(answer, 418)["detail"] == "short and stout"
        assert answer.headers["x-tea"] == "yes"


async def test_result_that_does_not_fit_its_model(app: Operon) -> None:
    """The workflow has ended, its answer cannot be spelt: a clear 500 with the workflow's id."""

    @app.post("/work", response_model=int)
    @app.workflow
    def work() -> str:
        return "hunter2"

    async with visiting(app) as client:
        body = is_problem(await client.post("/work", headers={"idempotency-key": "k"}), 500)
        assert body["workflow"] == "http:POST /work::k"
        assert "response model" in body["detail"]
        assert "hunter2" not in str(body)


async def test_cancelled_and_timed_out(app: Operon) -> None:
    """A workflow that was stopped has no answer, and says why."""
    begun = asyncio.Event()

    @app.post("/work")
    @app.workflow(timeout=3600)
    async def work() -> None:
        begun.set()
        await aio.sleep(3600)

    @app.post("/brief")
    @app.workflow(timeout=0.05)
    async def brief() -> None:
        await aio.sleep(3600)

    async with visiting(app) as client:
        visit = asyncio.create_task(client.post("/work", headers={"idempotency-key": "k"}))
        await asyncio.wait_for(begun.wait(), PATIENCE)
        await aio.cancel("http:POST /work::k")
        is_problem(await visit, 409)
        is_problem(await client.post("/brief"), 504)


async def test_exit_without_body(app: Operon) -> None:
    """An HTTPException whose status has no body has none."""

    @app.post("/work")
    @app.workflow
    def work() -> None:
        raise HTTPException(304)

    async with visiting(app) as client:
        answer = await client.post("/work")
        assert (answer.status_code, answer.content) == (304, b"")


@pytest.fixture
def mortal_postgres() -> Generator[Postgres]:
    """A server that the test may stop."""
    directory = Path(tempfile.mkdtemp(prefix="operon-postgres-"))
    with Postgres(directory, fsync=False) as server:
        yield server
    shutil.rmtree(directory)


async def test_database_out_of_reach(mortal_postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After, for requests and for the probe; alive all the same; and well again when it is back."""
    monkeypatch.setattr(answering, "PATIENCE", 0.2)
    monkeypatch.setattr(health, "PATIENCE", 0.2)
    app = Operon("shop", database=mortal_postgres.create_database("shop"))

    @app.post("/work")
    @app.workflow
    def work() -> str:
        return "done"

    key = {"idempotency-key": "k"}
    async with app, client_of(app) as client:
        await aio.call(mortal_postgres.stop)
        answer = await client.post("/work", headers=key)
        assert is_problem(answer, 503)
        assert answer.headers["retry-after"] == "1"
        is_problem(await client.get("/readyz"), 503)
        assert (await client.get("/healthz")).status_code == 200
        await aio.call(mortal_postgres.start)
        async with asyncio.timeout(PATIENCE):
            while (answer := await client.post("/work", headers=key)).status_code == 503:
                pass
        assert answer.json() == "done"
