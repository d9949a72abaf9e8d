"""A database, a ledger, and single workers on them: for tests that know exactly what befalls whom."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import sql

from children import PATIENCE
from crash.campaign import transfers
from crash.effects import Effect, Effects
from crash.evidence import Database, Evidence, Record
from crash.fleet import Worker
from crash.laws import violations
from crash.points import Point
from crash.program import SCHEMA
from crash.worker import Birth, Order
from operon.engine.executor import BEATS_A_LEASE

LEASE = 1.0
BEATS = 10 * BEATS_A_LEASE
"""Eight heartbeats of who lives see the end of a lease; some more come when something becomes due, or while the thread
that takes over is kept waiting."""
WATCH = """
create table public.beats (workflow text, claim bigint, executor bigint, beat bigint);
create function public.note_beats() returns trigger language plpgsql as $$
begin
    insert into public.beats select old.id, old.claim, id, beat from operon.executors;
    return null;
end $$;
create trigger note_beats after update on operon.workflows for each row
when (old.executor = any({}) and new.executor is distinct from old.executor) execute function public.note_beats();
"""
"""Notes at which heartbeat everybody is when a workflow leaves one of the dead, in the same commit."""


class Stage:
    """Everything a scenario needs; what it started is ended with it."""

    def __init__(self, url: str, directory: Path, *, lease: float = LEASE) -> None:
        self.database = Database(url)
        self.database.create(SCHEMA)
        self.effects = Effects(directory / "effects.jsonl")
        self.orders: dict[str, Order] = {}
        self.told: list[tuple[str, Any]] = []
        self._lease = lease
        self._log = directory / "workers.log"
        self._workers: list[Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for worker in self._workers:
            worker.close()
        self.effects.close()

    def worker(self, point: Point | None = None, *, url: str | None = None, ready: bool = True) -> Worker:
        """Start a worker, on the database or by another way to it."""
        born = Birth(url or self.database.url, self.effects.path, self._lease, point, self._log)
        worker = Worker(born)
        self._workers.append(worker)
        if ready:
            worker.until("ready")
        return worker

    def give(self, worker: Worker, order: Order) -> None:
        """Give an order, without waiting for what becomes of it."""
        self.orders[order.key] = order
        worker.give(order)

    def until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> float:
        """Poll for what another process brings about; answers how long that took."""
        begun = time.monotonic()
        while not condition():
            assert time.monotonic() < begun + seconds, f"in {seconds} s it never came to be: {what}"
            self._breathe()
        return time.monotonic() - begun

    def ended(self, *, within: float = PATIENCE) -> None:
        """Wait until every workflow has ended."""
        self.until(lambda: self.orders and not self.database.unfinished(), "all ended", within)

    def records(self, workflow: str) -> list[Record]:
        """Read the journal of a workflow."""
        return [record for record in self.database.records() if record.workflow == workflow]

    def steps(self, workflow: str) -> list[Effect]:
        """See which steps of a workflow ran, in order."""
        return [it for it in self.effects.read() if it.kind == "step" and it.workflow == workflow]

    def claims(self, workflow: str) -> list[Effect]:
        """See who took a workflow, in order."""
        return [it for it in self.effects.read() if it.kind == "claim" and it.workflow == workflow]

    def watch(self, *dead: Worker) -> None:
        """Note from here on at which heartbeat each executor is when one of these loses a workflow."""
        with psycopg.connect(self.database.url) as connection:
            connection.execute(sql.SQL(WATCH).format(sql.Literal([worker.executor for worker in dead])))

    def beats(self) -> dict[int, int]:
        """See at which heartbeat each executor is."""
        return dict(self.database.rows("select id, beat from $executors"))

    def losses(self) -> list[tuple[str, int, dict[int, int]]]:
        """List what those have lost: the workflow, the claim, and at which heartbeat each executor was."""
        found: dict[tuple[str, int], dict[int, int]] = {}
        for workflow, claim, executor, beat in self.database.rows("select * from public.beats"):
            found.setdefault((workflow, claim), {})[executor] = beat
        return [(*lost, beats) for lost, beats in found.items()]

    def evidence(self) -> Evidence:
        """Gather everything."""
        return Evidence(
            frozenset(self.orders),
            {key: move for order in self.orders.values() for key, move in transfers(order).items()},
            self.database.workflows(),
            self.database.records(),
            self.database.moves(),
            self.database.balances(),
            tuple(self.effects.read()),
            tuple(self.told),
        )

    def violations(self) -> list[str]:
        """Hold what is there against the laws."""
        return violations(self.evidence())

    def _breathe(self) -> None:
        for worker in self._workers:
            if worker.alive and not worker.pipe.closed:
                self.told += [
                    (word.order.key, word.value) for word in worker.words() if word.order and word.what == "answered"
                ]
        time.sleep(0.005)
