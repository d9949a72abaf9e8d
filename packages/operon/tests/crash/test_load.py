"""A death and a coma while every process is full of work: others go on with it as soon as ever, and once."""

from __future__ import annotations

import signal
from itertools import count
from pathlib import Path

import psycopg

from crash.fleet import Worker
from crash.stage import BEATS, Stage
from crash.worker import Order

LOAD = 40
"""Orders for each process: more than it works on at a time."""
_numbers = count(1)


def test_what_is_lost_under_load_is_taken_over_in_time(postgres_url: str, tmp_path: Path) -> None:
    """One of four is killed and one is stopped, each in the middle of much; all are busy, and stay so."""
    with Stage(postgres_url, tmp_path) as stage:
        fleet = victim, zombie, *survivors = [stage.worker() for _ in range(4)]
        for worker in fleet:
            _feed(stage, worker)
        stage.watch(victim, zombie)
        for worker in (victim, zombie):
            _catch(stage, worker)
        victim.kill()
        died = stage.beats()
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
        assert any(it.takeovers for it in stage.database.workflows())
        for _, _, taken in stage.losses():
            assert max(taken[it.executor] - died[it.executor] for it in survivors) <= BEATS
        assert not stage.violations()


def _feed(stage: Stage, worker: Worker) -> None:
    """Give a worker transfers, steps and branches."""
    for n in (next(_numbers) for _ in range(LOAD)):
        kind = ("order", "plain", "branched")[n % 3]
        key = f"{kind}-{n}"
        stage.give(worker, Order(key, kind, (key, n) if kind == "order" else (n,)))


def _catch(stage: Stage, worker: Worker) -> None:
    """Stop a worker in the middle of something, however soon it is done with what it has."""

    def caught() -> bool:
        worker.signal(signal.SIGSTOP)
        stage.until(worker.stopped, "it stops")
        if _held(stage, worker):
            return True
        worker.signal(signal.SIGCONT)
        _feed(stage, worker)
        return False

    stage.until(caught, "it is in the middle of something")


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
