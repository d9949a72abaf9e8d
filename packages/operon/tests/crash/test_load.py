"""A death and a coma while every process is full of work: others go on with it as soon as ever, and once."""

from __future__ import annotations

import signal
from itertools import count
from pathlib import Path
from time import monotonic

import psycopg

from crash.fleet import Worker
from crash.stage import LEASE, Stage
from crash.worker import Order

LOAD = 40
"""Orders for each process: more than it works on at a time."""
BOUND = LEASE + 2.0
_numbers = count(1)


def test_what_is_lost_under_load_is_taken_over_in_time(postgres_url: str, tmp_path: Path) -> None:
    """One of four is killed and one is stopped, each in the middle of much; all are busy, and stay so."""
    with Stage(postgres_url, tmp_path) as stage:
        fleet = victim, zombie, *survivors = [stage.worker() for _ in range(4)]
        for worker in fleet:
            _feed(stage, worker)
        stage.until(lambda: _held(stage, victim) and _held(stage, zombie), "both are in the middle of something")
        victim.kill()
        zombie.signal(signal.SIGSTOP)
        died = monotonic()
        stage.until(zombie.stopped, "the zombie stops")
        lost = {**_held(stage, victim), **_free(postgres_url, _held(stage, zombie))}
        victim.words()
        for order in tuple(victim.orders.values()):
            stage.give(survivors[0], order)
        for worker in survivors:
            _feed(stage, worker)
        stage.until(lambda: _taken(stage, lost), "all that they held is taken over")
        zombie.signal(signal.SIGCONT)
        for worker in (zombie, *survivors):
            _feed(stage, worker)
        stage.until(lambda: not any(worker.orders for worker in (zombie, *survivors)), "every order is accepted")
        stage.ended()
        assert lost
        for key, claim in lost.items():
            assert min(it.at for it in stage.claims(key) if it.claim > claim) - died < BOUND
        assert not stage.violations()


def _feed(stage: Stage, worker: Worker) -> None:
    """Give a worker transfers, steps and branches."""
    for n in (next(_numbers) for _ in range(LOAD)):
        kind = ("order", "plain", "branched")[n % 3]
        key = f"{kind}-{n}"
        stage.give(worker, Order(key, kind, (key, n) if kind == "order" else (n,)))


def _held(stage: Stage, worker: Worker) -> dict[str, int]:
    return {key: claim for key, claim, _ in stage.database.held_by(worker.executor)}


def _free(url: str, held: dict[str, int]) -> dict[str, int]:
    """Leave out what it stopped in the middle of a commit of: that keeps the row, which may yet be committed."""
    ask = "select id from operon.workflows where id = any(%s) for no key update skip locked"
    with psycopg.connect(url) as connection:
        return {key: held[key] for (key,) in connection.execute(ask, [[*held]])}


def _taken(stage: Stage, lost: dict[str, int]) -> bool:
    claims = {it.id: it.claim for it in stage.database.workflows()}
    return all(claims[key] > claim for key, claim in lost.items())
