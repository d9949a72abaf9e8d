"""W10: a POST with an idempotency key that inserts a row, beside FastAPI and SQLAlchemy with the same insert."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from itertools import count

import uvicorn
from fastapi import FastAPI
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from benchmarks.children import module
from benchmarks.figures import FLOOR, OURS, RATE, Figure, atimed, p50, p99
from benchmarks.posting import Poster, connected
from benchmarks.program import Task, main
from benchmarks.workloads.latency import prepare
from operon import Operon

WIDTH = 32
WARM = 50
INSERT = text("insert into orders values (:number)")
_keys = count(time.time_ns())


def w10(task: Task) -> Iterator[Figure]:
    """Ask one by one, and from many connections at once."""
    prepare(task.url)
    for colour in ("sync", "async") if task.database == "postgres" else ("sync",):
        for subject in (FLOOR, OURS):
            with module("benchmarks.workloads.serving", "serve", task.url, subject, colour) as server:
                port = server.line()
                assert port is not None
                yield from asyncio.run(asked(task, int(port), colour, subject))


async def asked(task: Task, port: int, colour: str, subject: str) -> list[Figure]:
    """Measure one server."""
    async with connected(port) as client:
        await atimed(lambda: post(client), WARM)
        alone = await atimed(lambda: post(client), min(task.size.samples, task.size.requests))
    each = task.size.requests // WIDTH + 1
    begun = time.perf_counter()
    took = await asyncio.gather(*(one(port, each) for _ in range(WIDTH)))
    elapsed = time.perf_counter() - begun
    return [
        p50(f"alone, {colour}", alone, subject),
        Figure(f"{WIDTH} at a time, {colour}", RATE, each * WIDTH / elapsed, subject),
        p99(f"{WIDTH} at a time, {colour}", [milliseconds for times in took for milliseconds in times], subject),
    ]


async def one(port: int, requests: int) -> list[float]:
    """Ask one request after the other over one connection."""
    async with connected(port) as client:
        return await atimed(lambda: post(client), requests)


async def post(client: Poster) -> None:
    """Order one, with a key of its own."""
    await client.post("/orders?number=7", f'Idempotency-Key: "{next(_keys)}"')


def serve(url: str, subject: str, colour: str) -> None:
    """Serve on a free port of loopback until this process is ended."""
    app = ours(url, colour) if subject == OURS else theirs(url, colour)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        server.run(sockets=[listener])


def ours(url: str, colour: str) -> Operon:
    """Declare an endpoint that is a transaction."""
    app = Operon("bench", database=url)
    if colour == "sync":

        @app.post("/orders")
        @app.transaction
        def order(tx: Session, number: int) -> int:
            tx.execute(INSERT, {"number": number})
            return number

    else:

        @app.post("/orders")
        @app.transaction
        async def aorder(tx: AsyncSession, number: int) -> int:
            await tx.execute(INSERT, {"number": number})
            return number

    return app


def theirs(url: str, colour: str) -> FastAPI:
    """Declare the same without us: a session a request, committed before the answer."""
    app = FastAPI()
    driver = url.replace("postgresql:", "postgresql+psycopg:")
    if colour == "sync":
        engine = create_engine(driver, pool_size=WIDTH)

        @app.post("/orders")
        def order(number: int) -> int:
            with Session(engine) as tx, tx.begin():
                tx.execute(INSERT, {"number": number})
            return number

    else:
        aengine = create_async_engine(driver, pool_size=WIDTH)

        @app.post("/orders")
        async def aorder(number: int) -> int:
            async with AsyncSession(aengine) as tx, tx.begin():
                await tx.execute(INSERT, {"number": number})
            return number

    return app


if __name__ == "__main__":
    main({"w10": w10}, serve=serve)
