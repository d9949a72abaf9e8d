"""A death and a coma while every process is full of work: others go on with it as soon as ever, and once."""

from __future__ import annotations

import signal
from itertools import count
from pathlib import Path

import psycopg
from psycopg import sql

from crash.fleet import Worker
from crash.stage import Stage
from crash.worker import Order
from operon.engine.executor import BEATS_A_LEASE

LOAD = 40
"""Orders for each process: more than it works on at a time."""
BEATS = 10 * BEATS_A_LEASE
"""Eight of a survivor's heartbeats see the end of a lease; some more come in between, when something becomes due."""
WATCH = """
create table public.beats (workflow text, claim bigint, executor bigint, beat bigint);
create function public.note_beats() returns trigger language plpgsql as $$
begin
    insert into public.beats select old.id, old.claim, id, beat from operon.executors;
    return null;
end $$;
create trigger note_beats after update on operon.workflows for each row
when (old.executor in ({}, {}) and new.executor is distinct from old.executor) execute function public.note_beats();
"""
"""Notes at which heartbeat everybody is when a workflow leaves the victim or the zombie, in the same commit."""
_numbers = count(1)


def test_what_is_lost_under_load_is_taken_over_in_time(postgres_url: str, tmp_path: Path) -> None:
    """One of four is killed and one is stopped, each in the middle of much; all are busy, and stay so."""
    with Stage(postgres_url, tmp_path) as stage:
        fleet = victim, zombie, *survivors = [stage.worker() for _ in range(4)]
        for worker in fleet:
            _feed(stage, worker)
        _watch(postgres_url, victim, zombie)
        stage.until(lambda: _held(stage, victim) and _held(stage, zombie), "both are in the middle of something")
        victim.kill()
        zombie.signal(signal.SIGSTOP)
        stage.until(zombie.stopped, "the zombie stops")
        died = _beats(postgres_url)
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
            taken = _beats(postgres_url, key, claim)
            assert max(taken[it.executor] - died[it.executor] for it in survivors) <= BEATS
        assert not stage.violations()


def _feed(stage: Stage, worker: Worker) -> None:
    """Give a worker transfers, steps and branches."""
    for n in (next(_numbers) for _ in range(LOAD)):
        kind = ("order", "plain", "branched")[n % 3]
        key = f"{kind}-{n}"
        stage.give(worker, Order(key, kind, (key, n) if kind == "order" else (n,)))


def _watch(url: str, *dead: Worker) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(sql.SQL(WATCH).format(*(worker.executor for worker in dead)))


def _beats(url: str, *lost: object) -> dict[int, int]:
    """At which heartbeat each executor is, or was when a claim was taken from its owner."""
    there = "select executor, beat from public.beats where workflow = %s and claim = %s"
    with psycopg.connect(url) as connection:
        return dict(connection.execute(there if lost else "select id, beat from operon.executors", lost))


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
