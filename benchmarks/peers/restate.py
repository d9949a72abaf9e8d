"""Restate, measured as we are: W1, W2; run in its own environment, with a server of its own on the same disk.

A handler is called over HTTP through the server, which is how it is used; there are no blocking handlers.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import restate
from hypercorn.asyncio import serve
from hypercorn.config import Config

from benchmarks.cases import MEANWHILE, PATIENCE, STEPS, WARM, steps_of
from benchmarks.children import module
from benchmarks.figures import RATE, Figure, atimed, p50
from benchmarks.peers.servers import free_port, listening, served
from benchmarks.posting import connected
from benchmarks.program import Task, main

NAME = "restate"
MODULE = "benchmarks.peers.restate"
PROGRAM = Path(__file__).parents[2] / ".operon/benchmarks/peers/restate/node/node_modules/.bin/restate-server"
WIDTH = 256
"""Requests under way at a time."""
JSON = "Content-Type: application/json"
service = restate.Service("bench")


async def step() -> int:
    return 7


@service.handler()
async def flow(context: restate.Context, steps: int) -> int:
    for n in range(steps):
        await context.run_typed(f"step-{n}", step)
    return steps


def handlers(port: str) -> None:
    """Serve the handlers until this process is ended."""
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.loglevel = "CRITICAL"
    asyncio.run(serve(restate.app([service]), config))


@contextmanager
def server(task: Task) -> Generator[int]:
    """Run a server and the handlers; give the port that calls go to."""
    ingress, admin, node, port = (free_port() for _ in range(4))
    directory = tempfile.mkdtemp(dir=task.directory)
    environment = {
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    command = [str(PROGRAM), "--base-dir", directory, "--listen-mode", "tcp", "--no-logo"]
    try:
        with served(command, lambda: listening(ingress), environment), module(MODULE, "handlers", str(port)) as child:
            asyncio.run(register(admin, port))
            yield ingress
            child.kill()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def register(admin: int, port: int) -> None:
    """Tell the server where the handlers are, as soon as both are there."""
    body = json.dumps({"uri": f"http://127.0.0.1:{port}"}).encode()
    end = time.monotonic() + 60
    while True:
        try:
            async with connected(admin) as client:
                await client.post("/deployments", JSON, body=body)
                return
        except (OSError, RuntimeError, asyncio.IncompleteReadError):
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.2)


async def latency(port: int, steps: int, samples: int) -> list[float]:
    """Call one after the other; give the milliseconds of each."""
    async with connected(port) as client:
        return await atimed(lambda: client.post("/bench/flow", JSON, body=b"%d" % steps), samples)


async def many(port: int, steps: int, number: int) -> float:
    """Call many at a time; give how many a second."""
    began = time.perf_counter()
    width = min(WIDTH, number)
    lots = [number // width + (nth < number % width) for nth in range(width)]
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(latency(port, steps, lot) for lot in lots))
    return number / (time.perf_counter() - began)


async def sent(port: int, number: int) -> list[float]:
    """Start one after the other without waiting for the results; give the milliseconds of each."""
    async with connected(port) as client:
        return await atimed(lambda: client.post("/bench/flow/send", JSON, body=b"10"), number)


def w1(task: Task) -> Iterator[Figure]:
    with server(task) as port:
        for steps in STEPS:
            asyncio.run(latency(port, steps, WARM))
            yield p50(steps_of(steps, "async"), asyncio.run(latency(port, steps, task.size.samples)), NAME)


def w2(task: Task) -> Iterator[Figure]:
    with server(task) as port:
        asyncio.run(many(port, 1, WARM))
        for steps in STEPS:
            yield Figure(steps_of(steps, "async"), RATE, asyncio.run(many(port, steps, task.size.workflows)), NAME)
        yield p50(MEANWHILE, asyncio.run(sent(port, task.size.workflows)), NAME)


if __name__ == "__main__":
    main({"w1": w1, "w2": w2}, handlers=handlers)
