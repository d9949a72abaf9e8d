"""Three real processes on one Postgres, and the database's own record of when what ran: no limit was ever exceeded."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import psycopg

from children import Child, eventually, started
from operon import Client, remote
from terminal import clean

PROGRAM = """
import os
import sys
import time

from operon import Operon

database, lease, closed = sys.argv[1:]
app = Operon("fleet", database=database, threads=8, lease=float(lease))
app.queue("q", concurrency=4, worker_concurrency=3, partition_concurrency=2, rate=(60, 1.0))


@app.workflow
def body(number: int) -> int:
    time.sleep(0.02)
    while os.path.exists(closed):
        time.sleep(0.01)
    return number


with app:
    print("up", flush=True)
    sys.stdin.read()
"""
JOBS = 150
CONCURRENCY = 4
EXCEEDED = """
with there as (
    select
        m.began,
        count(*) as all,
        count(*) filter (where r.partition = m.partition) as of_partition,
        count(*) filter (where r.executor = m.executor) as of_process
    from operon.ran m join operon.ran r on r.began <= m.began and coalesce(r.ended, 'infinity') > m.began
    group by m.id, m.claim, m.began, m.partition, m.executor
)
select max("all"), max(of_partition), max(of_process), (
    select max((select count(*) from operon.ran r where r.began >= m.began and r.began < m.began + interval '1 s'))
    from operon.ran m
)
from there
"""
NOTE = """
create table operon.ran (
    id text, claim bigint, partition text, executor bigint, began timestamptz default clock_timestamp(),
    ended timestamptz
);
create function operon.note_run() returns trigger language plpgsql as $$
begin
    if new.status = 1 then
        insert into operon.ran values (new.id, new.claim, new.partition, new.executor);
    else
        update operon.ran set ended = clock_timestamp() where id = old.id and claim = old.claim;
    end if;
    return new;
end
$$;
create trigger note_run after update on operon.workflows
for each row when ((old.status = 1) <> (new.status = 1)) execute function operon.note_run()
"""


@remote("body")
def body(number: int) -> int:
    raise NotImplementedError


class Fleet:
    """Three processes that share the queue, and a client that fills it; nothing ends before `open`."""

    def __init__(self, url: str, directory: Path, lease: float) -> None:
        program, self._closed = directory / "fleet.py", directory / "closed"
        program.write_text(PROGRAM)
        self._closed.touch()
        self.url = url
        self.client = Client(url)
        self._open = ExitStack()
        command = (sys.executable, str(program), url, str(lease), str(self._closed))
        self.processes = [
            self._open.enter_context(started(*command, stdin=subprocess.PIPE, env=clean())) for _ in range(3)
        ]

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            opening.push(self._open)
            for process in self.processes:
                process.says("up")
            self._open.enter_context(self.client)
            self.rows(NOTE)
            opening.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._open.close()

    def fill(self, jobs: int) -> None:
        self.client.enqueue_many("q", [body.using(partition="abc"[n % 3]).bind(n) for n in range(jobs)])

    def ended(self, jobs: int) -> None:
        eventually(lambda: self.client.count(queue="q", status="succeeded") >= jobs)

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def busy(self) -> list[Child]:
        """Wait until every place is taken, and give the processes that have one: none may have them all."""
        pids = "select e.pid from operon.workflows w join operon.executors e on e.id = w.executor where w.status = 1"
        held = eventually(lambda: len(found := self.rows(pids)) >= CONCURRENCY and found, "every place is taken")
        return [process for process in self.processes if (process.pid,) in held]

    def open(self) -> None:
        """Let what has begun come to its end, and all that comes after."""
        self._closed.unlink()

    def exceeded_nothing(self) -> None:
        ((together, of_partition, of_process, in_a_second),) = self.rows(EXCEEDED)
        assert together <= CONCURRENCY
        assert of_partition <= 2
        assert of_process <= 3
        assert in_a_second <= 60


def test_processes_exceed_no_limit_at_any_instant(postgres_url: str, tmp_path: Path) -> None:
    with Fleet(postgres_url, tmp_path, lease=15.0) as fleet:
        fleet.fill(JOBS)
        assert len(fleet.busy()) > 1, "more than one process has a share"
        fleet.open()
        fleet.ended(JOBS)
        ((runs,),) = fleet.rows("select count(*) from operon.ran")
        fleet.exceeded_nothing()
    assert runs == JOBS, "each ran once"


def test_no_limit_is_exceeded_while_processes_die_and_come_back(postgres_url: str, tmp_path: Path) -> None:
    """One is killed and one is stopped while they run what they may; both hold places until they are taken for dead."""
    with Fleet(postgres_url, tmp_path, lease=2.0) as fleet:
        fleet.fill(JOBS)
        victim, zombie, *_ = fleet.busy()
        zombie.signal(signal.SIGSTOP)
        victim.ends(signal.SIGKILL)
        fleet.open()
        fleet.ended(JOBS)
        zombie.signal(signal.SIGCONT)
        fleet.fill(JOBS)
        fleet.ended(2 * JOBS)
        fleet.exceeded_nothing()
        ((again,),) = fleet.rows("select count(*) from operon.workflows where takeovers > 0")
    assert again, "something was taken over"
