"""Queues, as the contract's fourth section has them."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

import operon
from operon import Handle, Operon, Queue, aio

app = Operon("queues")
emails = app.queue("emails", concurrency=10, worker_concurrency=2, rate=(100, timedelta(minutes=1)))
assert_type(emails, Queue)


@app.workflow
def digest(user: int) -> str:
    return str(user)


def blocking(rows: list[tuple[str, int]]) -> None:
    assert_type(operon.enqueue(emails, digest, 7), Handle[str])
    assert_type(operon.enqueue(emails, digest.using(priority=1, delay=60, dedupe="d", partition="t"), 7), Handle[str])
    assert_type(
        operon.enqueue_many(emails, [digest.using(key=key).bind(user) for key, user in rows]), list[Handle[str]]
    )
    operon.enqueue(emails, digest, "x")  # E
    operon.enqueue(emails)  # E


async def awaited() -> None:
    assert_type(await aio.enqueue(emails, digest, 7), Handle[str])
    assert_type(await aio.enqueue_many(emails, [digest.bind(7)]), list[Handle[str]])
    await aio.enqueue(emails, digest, "x")  # E
