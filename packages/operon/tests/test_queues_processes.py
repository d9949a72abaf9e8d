"""Three real processes on one Postgres, and the database's own record of when what ran: no limit was ever exceeded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from engine.test_workflows import poll
from operon import Client
from terminal import clean

PROGRAM = """
import sys
import time

from operon import Operon

app = Operon("fleet", database=sys.argv[1], threads=8)
app.queue("q", concurrency=4, worker_concurrency=3, partition_concurrency=2, rate=(60, 1.0))


@app.workflow
def body(number: int) -> int:
    time.sleep(0.004)
    return number


with app:
    print("up", flush=True)
    sys.stdin.read()
"""
JOBS = 150
EXCEEDED = """
with moment as (
    select started_at as at, partition, executor from operon.ran
), there as (
    select
        m.at,
        count(*) as all,
        count(*) filter (where r.partition = m.partition) as of_partition,
        count(*) filter (where r.executor = m.executor) as of_process
    from moment m join operon.ran r on r.started_at <= m.at and r.ended_at > m.at
    group by m.at, m.partition, m.executor
)
select max("all"), max(of_partition), max(of_process), (
    select max((select count(*) from operon.ran r where r.started_at >= m.at and r.started_at < m.at + interval '1 s'))
    from moment m
)
from there
"""
NOTE = """
create table operon.ran (started_at timestamptz, ended_at timestamptz, partition text, executor bigint);
create function operon.note_run() returns trigger language plpgsql as $$
begin
    insert into operon.ran values (old.started_at, clock_timestamp(), old.partition, old.executor);
    return new;
end
$$;
create trigger note_run after update on operon.workflows
for each row when (old.status = 1 and new.status <> 1) execute function operon.note_run()
"""


@pytest.mark.timeout(120)
def test_processes_exceed_no_limit_at_any_instant(postgres_url: str, tmp_path: Path) -> None:
    program = tmp_path / "fleet.py"
    program.write_text(PROGRAM)
    fleet = [
        subprocess.Popen(
            [sys.executable, str(program), postgres_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=clean(),
            text=True,
        )
        for _ in range(3)
    ]
    try:
        for process in fleet:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
        with psycopg.connect(postgres_url, autocommit=True) as connection, Client(postgres_url) as client:
            connection.execute(NOTE)
            from operon import remote

            @remote("body")
            def body(number: int) -> int:
                raise NotImplementedError

            calls = [body.using(partition="abc"[n % 3]).bind(n) for n in range(JOBS)]
            client.enqueue_many("q", calls)
            poll(lambda: client.count(queue="q", status="succeeded") == JOBS, seconds=60)
            row = connection.execute(EXCEEDED).fetchone()
            ran = connection.execute("select count(*), count(distinct executor) from operon.ran").fetchone()
    finally:
        for process in fleet:
            process.communicate("")
    assert row is not None
    assert ran is not None
    together, of_partition, of_process, in_a_second = row
    assert ran[0] == JOBS, "each ran once"
    assert ran[1] > 1, "more than one process had a share"
    assert together <= 4
    assert of_partition <= 2
    assert of_process <= 3
    assert in_a_second <= 60
