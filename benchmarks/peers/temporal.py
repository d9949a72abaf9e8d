"""Temporal, measured as we are: W1, W2; run in its own environment, with its development server on the same disk.

That server keeps its state in SQLite; a production one on a cluster is another thing. Steps are activities. It is given
at most 500 workflows at once, which takes it long enough.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from benchmarks.cases import MEANWHILE, PATIENCE, STEPS, WARM, steps_of
from benchmarks.figures import RATE, Figure, atimed, p50
from benchmarks.peers.servers import free_port, listening, served
from benchmarks.program import Task, main

NAME = "temporal"
LINE = "line"
MOST = 500
WIDTH = 256
"""Starts under way at a time."""


@activity.defn
async def step(n: int) -> int:
    return n


@workflow.defn
class Flow:
    """So many activities, one after the other."""

    @workflow.run
    async def run(self, steps: int) -> int:
        """Add up what they give."""
        total = 0
        for n in range(steps):
            total += await workflow.execute_activity(step, n, start_to_close_timeout=timedelta(minutes=5))
        return total


@asynccontextmanager
async def worker(port: int) -> AsyncGenerator[Client]:
    """Have a worker and a client on this loop."""
    client = await Client.connect(f"127.0.0.1:{port}")
    async with Worker(
        client, task_queue=LINE, workflows=[Flow], activities=[step], workflow_runner=UnsandboxedWorkflowRunner()
    ):
        yield client


async def one(client: Client, steps: int) -> None:
    """Run one to its end."""
    await client.execute_workflow(Flow.run, steps, id=str(uuid.uuid4()), task_queue=LINE)


async def latency(port: int, samples: int) -> list[Figure]:
    found = []
    async with worker(port) as client:
        for steps in STEPS:
            await atimed(lambda steps=steps: one(client, steps), WARM)
            took = await atimed(lambda steps=steps: one(client, steps), samples)
            found.append(p50(steps_of(steps, "async"), took, NAME))
    return found


async def throughput(port: int, number: int) -> list[Figure]:
    found = []
    gate = asyncio.Semaphore(WIDTH)

    async def gated(client: Client, steps: int) -> None:
        async with gate:
            await one(client, steps)

    async with worker(port) as client, asyncio.timeout(PATIENCE * 2):
        for steps in STEPS:
            began = time.perf_counter()
            await asyncio.gather(*(gated(client, steps) for _ in range(number)))
            found.append(Figure(steps_of(steps, "async"), RATE, number / (time.perf_counter() - began), NAME))
        took = await atimed(lambda: client.start_workflow(Flow.run, 10, id=str(uuid.uuid4()), task_queue=LINE), number)
        found.append(p50(MEANWHILE, took, NAME))
    return found


def measured(task: Task) -> Iterator[Figure]:
    port = free_port()
    file = Path(task.directory) / f"temporal-{port}.db"
    program = str(Path(sys.executable).with_name("temporal"))
    command = [program, "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port)]
    with served([*command, "--db-filename", str(file), "--log-level", "never"], lambda: listening(port)):
        time.sleep(2)  # its namespace is registered after its port is open
        if task.workload == "w1":
            yield from asyncio.run(latency(port, task.size.samples))
        else:
            yield from asyncio.run(throughput(port, min(task.size.workflows, MOST)))
    for left in file.parent.glob(f"{file.name}*"):
        left.unlink()


if __name__ == "__main__":
    main({"w1": measured, "w2": measured})
