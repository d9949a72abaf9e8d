"""The app that is killed: every kind of durable operation, each leaving its mark outside the engine."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg

import operon
from crash.effects import Effect, Effects
from operon import Operon, aio
from operon.core import context as here

OPENING = 1_000_000
"""Cents on each account before anything moves."""
ACCOUNTS = 8
GRACE = 0.1
LONG = 0.2
"""Seconds of a sleep that leaves its process, since it is longer than the grace."""
POISON = 10_000
"""A workflow that is killed often here is not poison, but unlucky."""

SCHEMA = (
    "create table accounts (id integer primary key, cents bigint not null)",
    # No unique key: a transfer that is applied twice must be seen, not prevented.
    "create table moves (key text not null, account integer not null, cents bigint not null)",
    f"insert into accounts {' union all '.join(f'select {n}, {OPENING}' for n in range(ACCOUNTS))}",
)


class Flaky(Exception):
    """A failure that goes away."""


class Marks:
    """What the workflows write outside, under the claim and position at which they run."""

    def __init__(self, effects: Effects) -> None:
        self.effects = effects

    def step(self, made: list[str]) -> str:
        """Mark that a step's body ends here, what it was given, and its output, unlike any other."""
        self.seen(made)
        token, step = uuid4().hex, here.step()
        assert step is not None
        run = self._run()
        done = Effect("step", run.id, run.guard.claim, step.position, step.attempt, token, step.idempotency_key)
        self.effects.append(done)
        return token

    def move(self, made: list[str]) -> str:
        """Mark that a transaction's body ends here, and what it was given; if it commits, its output is recorded."""
        token = uuid4().hex
        if here.branch() is not None:
            self.seen(made)
            run = self._run()
            self.effects.append(Effect("move", run.id, run.guard.claim, token=token))
        return token

    def seen(self, made: list[str]) -> None:
        """Mark what an operation was given by those before it: they must be recorded, now that it has begun."""
        if here.branch() is not None:
            run = self._run()
            self.effects.append(Effect("seen", run.id, run.guard.claim, seen=tuple(made)))

    def _run(self) -> Any:
        branch = here.branch()
        assert branch is not None
        return branch.run


def make(url: str, effects: Effects, *, lease: float) -> tuple[Operon, dict[str, Any]]:
    """Declare everything on an app; also gives its functions by the names that orders use."""
    app = Operon("crash", database=url, lease=lease, grace=GRACE, threads=16, version="1")
    app._settings = replace(app._settings, poison=POISON)
    marks = Marks(effects)
    connection: Any = psycopg.Connection if url.startswith("postgres") else sqlite3.Connection

    def spell(statement: str) -> str:
        return statement.replace("?", "%s") if url.startswith("postgres") else statement

    steps = _steps(app, marks)

    def move(tx: Any, key: str, account: int, cents: int, made: list[str]) -> str:
        tx.execute(spell("update accounts set cents = cents + ? where id = ?"), (cents, account))
        tx.execute(spell("insert into moves values (?, ?, ?)"), (key, account, cents))
        return marks.move(made)

    move.__annotations__["tx"] = connection
    moving = app.transaction(name="move")(move)
    flows = _flows(app, steps, moving)
    return app, {**flows, "move": moving, "branched": _branched(app, marks)}


def _steps(app: Operon, marks: Marks) -> dict[str, Any]:
    @app.step(name="token")
    def token(n: int, made: list[str]) -> str:
        return f"{marks.step(made)}-{n}"

    @app.step(name="shaky", retries=3, backoff=0.02, factor=1.0, retry_on=Flaky)
    def shaky(n: int, made: list[str]) -> str:
        token = marks.step(made)
        if operon.context().attempt <= n % 3:
            raise Flaky(token)
        return token

    return {"token": token, "shaky": shaky}


def _flows(app: Operon, steps: dict[str, Any], move: Any) -> dict[str, Any]:
    token, shaky = steps["token"], steps["shaky"]

    @app.workflow(name="plain")
    def plain(n: int) -> list[str]:
        made: list[str] = []
        for i in range(1 + n % 4):
            made.append(token(i, made))
        return made

    @app.workflow(name="parcel")
    def parcel(key: str, n: int, rest: float = 0.0) -> list[str]:
        made = [token(n, [])]
        operon.sleep(rest)
        made.append(move(f"{key}/parcel", n % ACCOUNTS, 7, made))
        return made

    @app.workflow(name="order")
    def order(key: str, n: int) -> list[str]:
        drawn = [str(operon.rng().random()), operon.now().isoformat(), str(operon.uuid4())]
        made = [token(0, [])]
        made.append(move(f"{key}/debit", n % ACCOUNTS, -100, made))
        made.append(shaky(n, made))
        behind = operon.start(parcel, f"{key}/behind", n + 1, LONG)
        made += parcel(f"{key}/inline", n)
        operon.sleep(LONG if n % 4 == 0 else 0.02)
        made.append(move(f"{key}/credit", (n + 3) % ACCOUNTS, 100, made))
        made += behind.result()
        made.append(token(1, made))
        return made + drawn

    return {"plain": plain, "parcel": parcel, "order": order}


def _branched(app: Operon, marks: Marks) -> Any:
    @app.step(name="wander")
    async def wander(side: str, i: int, made: list[str]) -> str:
        await asyncio.sleep(random.random() * 0.02)
        return f"{side}{i}-{marks.step(made)}"

    @app.workflow(name="branched")
    async def branched(n: int) -> list[str]:
        met: list[str] = []

        async def branch(side: str) -> list[str]:
            made: list[str] = []
            for i in range(3):
                made.append(await wander(side, i, made))
            met.append(side)
            return made

        left, right = await asyncio.gather(branch("l"), branch("r"))
        await aio.sleep(0.01 * (n % 3))
        return [*left, *right, *met]

    return branched
