"""Two real processes on one Postgres, both firing every second: each second is fired once, as the database tells."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psycopg

from children import eventually, started
from operon import Client
from terminal import clean

PROGRAM = """
import sys
from datetime import datetime

from operon import Operon

app = Operon("fleet", database=sys.argv[1], threads=4)


@app.schedule("* * * * * *", tz="Europe/London", catch_up="all", overlap="queue")
@app.workflow
def every(at: datetime) -> float:
    return at.timestamp()


@app.schedule("*/2 * * * * *", tz="America/Havana")
@app.workflow
def other(at: datetime) -> float:
    return at.timestamp()


with app:
    print("up", flush=True)
    sys.stdin.read()
"""
SECONDS = 12
FIRED = """
select
    count(*),
    count(distinct w.output),
    max(w.output::float8) - min(w.output::float8) + 1,
    bool_and(w.id = 'schedule:every:' || to_char(
        to_timestamp(w.output::float8) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'
    )),
    bool_and(w.started_at >= to_timestamp(w.output::float8)),
    max(w.attempts)
from operon.workflows w where w.name = 'every'
"""


def test_processes_that_fire_every_second_fire_each_second_once(postgres_url: str, tmp_path: Path) -> None:
    """One of them is killed in the middle: nothing is fired twice, and no second is left out."""
    program = tmp_path / "fleet.py"
    program.write_text(PROGRAM)
    command = (sys.executable, str(program), postgres_url)
    with ExitStack() as running:
        fleet = [running.enter_context(started(*command, stdin=subprocess.PIPE, env=clean())) for _ in range(2)]
        for process in fleet:
            process.says("up")
        with psycopg.connect(postgres_url, autocommit=True) as connection, Client(postgres_url) as client:
            eventually(lambda: client.count(name="every", status="succeeded") >= SECONDS // 2)
            fleet[0].ends(signal.SIGKILL)
            eventually(lambda: client.count(name="every") >= SECONDS)
            for name in ("every", "other"):
                client.schedules.pause(name)
            alive = ["queued", "running", "waiting"]
            eventually(lambda: client.count(name="every", status=alive) == 0)
            row = connection.execute(FIRED).fetchone()
    assert row is not None
    fired, instants, span, named, in_time, _ = row
    assert fired >= SECONDS
    assert fired == instants == span, "each second once, and none left out"
    assert named, "the id says which instant it was"
    assert in_time, "none began before its time"
