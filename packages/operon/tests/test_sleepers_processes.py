"""Many sleepers that are due at the same instant, and two real processes to wake them: each runs on, and once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from children import eventually, started
from operon import Client, remote
from terminal import clean

PROGRAM = """
import asyncio
import os
import sys
import time
from datetime import datetime

import operon
from operon import Operon, aio

app = Operon("fleet", database=sys.argv[1], threads=8, tasks=8)
seen = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def awake() -> None:
    os.write(seen, f"{operon.context().workflow_id} {os.getpid()}\\n".encode())


def alone() -> bool:
    with open(sys.argv[2]) as file:
        return len({line.split()[1] for line in file if line.endswith("\\n")}) < 2


@app.workflow
def sleeper(until: datetime) -> None:
    operon.sleep(until)
    awake()
    while alone():
        time.sleep(0.01)


@app.workflow
async def asleeper(until: datetime) -> None:
    await aio.sleep(until)
    awake()
    while alone():
        await asyncio.sleep(0.01)


with app:
    print("up", flush=True)
    sys.stdin.read()
"""
HERD = 300


@remote("sleeper")
def sleeper(until: datetime) -> None: ...


@remote("asleeper")
async def asleeper(until: datetime) -> None: ...


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'herd.db'}"


def asleep(client: Client, function: Any, seconds: float) -> set[str]:
    """Let many fall asleep until an instant, and give their ids, if all were asleep before it."""
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    herd = {client.start(function, until).id for _ in range(HERD)}
    while (asleep := client.count(status="waiting")) < HERD and datetime.now(UTC) < until:
        time.sleep(0.01)
    return herd if asleep == HERD else set()


@pytest.mark.parametrize("kind", ["sleeper", "asleeper"])
def test_a_herd_wakes_once_over_two_processes(url: str, kind: str, tmp_path: Path) -> None:
    """None is lost and none is awake twice, whoever claims it; who has no room leaves them to the other.

    Each stays awake until both processes have some that are: so neither takes more than it has places for.
    """
    program, seen = tmp_path / "fleet.py", tmp_path / "seen"
    program.write_text(PROGRAM)
    command = (sys.executable, str(program), url, str(seen))
    with ExitStack() as running:
        fleet = [running.enter_context(started(*command, stdin=subprocess.PIPE, env=clean())) for _ in range(2)]
        for process in fleet:
            process.says("up")
        with Client(url) as client:
            for seconds in (3, 12, 48):  # on a slow machine the first would be due before the last is asleep
                herd = asleep(client, sleeper if kind == "sleeper" else asleeper, seconds)
                eventually(lambda: client.count(status="waiting") == 0, "the last is woken")
                eventually(lambda: client.count(status="succeeded") == client.count(), "the last has ended")
                if herd:
                    break
            rows = [row for row in client.find(status="succeeded", limit=1000) if row.id in herd]
    woken = Counter(line.split()[0] for line in seen.read_text().splitlines())
    assert {key: times for key, times in woken.items() if key in herd} == dict.fromkeys(herd, 1)
    assert len(rows) == HERD
    assert {row.attempts for row in rows} == {2}, "one claim to begin, and one to wake"
