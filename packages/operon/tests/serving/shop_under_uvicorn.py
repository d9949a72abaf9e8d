"""What `test_http_workers.py` serves: a user's program, as `uvicorn serving.shop_under_uvicorn:app` finds it."""

from __future__ import annotations

import os
import signal
from typing import Any

import psycopg

from operon import Operon, aio

app = Operon("shop", lease=3)


@app.transaction
def transfer_once(tx: psycopg.Connection[Any], n: int) -> int:
    tx.execute("insert into effects (n) values (%s)", [n])
    return n


@app.step
async def die_once() -> int:
    """Kill the process, the first time."""
    async with await psycopg.AsyncConnection.connect(os.environ["OPERON_DATABASE_URL"], autocommit=True) as connection:
        first = await connection.execute("insert into deaths values (1) on conflict do nothing returning 1")
        if await first.fetchone():
            os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


@app.post("/transfers")
@app.workflow
async def transfer(n: int) -> list[int]:
    done = await aio.call(transfer_once, n)
    return [done, await die_once()]


@app.get("/pid")
def pid() -> int:
    return os.getpid()
