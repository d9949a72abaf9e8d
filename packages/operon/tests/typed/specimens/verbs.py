"""The verbs, blocking and awaited: what they take, and what they give."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from typing import Any, assert_type
from uuid import UUID

import operon
from operon import AsyncClient, Client, Context, Handle, Operon, StepRecord, WorkflowRecord, aio, remote

app = Operon("verbs")


@app.workflow
def f(n: int) -> int:
    return n


@app.workflow
async def g(text: str) -> str:
    return text


@remote("billing.invoice")
def invoice(order: int) -> str:
    raise NotImplementedError


def blocking(found: WorkflowRecord) -> None:
    assert_type(operon.now(), datetime)
    assert_type(operon.rng(), Random)
    assert_type(operon.uuid4(), UUID)
    assert_type(operon.context(), Context)
    assert_type(operon.retrieve("id", f), Handle[int])
    assert_type(operon.retrieve("id"), Handle[Any])
    assert_type(operon.describe("id"), WorkflowRecord)
    assert_type(operon.steps("id"), list[StepRecord])
    assert_type(operon.find(name="f", status=["failed", "held"], limit=7, after=found), list[WorkflowRecord])
    assert_type(operon.find(since=datetime.now(UTC), attributes={"tenant": 7}, user="ada"), list[WorkflowRecord])
    assert_type(operon.count(status="queued", parent="id"), int)
    operon.cancel("id", children=False)
    operon.delete("id")
    operon.delete(7)  # E
    operon.now(1)  # E
    operon.retrieve(7)  # E
    operon.describe(f)  # E
    operon.find("f")  # E
    operon.find(since="monday")  # E
    operon.count(limit=7)  # E
    operon.cancel("id", cascade=True)  # E


async def awaited(found: WorkflowRecord) -> None:
    assert_type(await aio.now(), datetime)
    assert_type(await aio.rng(), Random)
    assert_type(await aio.uuid4(), UUID)
    assert_type(aio.context(), Context)
    assert_type(await aio.retrieve("id", g), Handle[str])
    assert_type(await aio.retrieve("id"), Handle[Any])
    assert_type(await aio.describe("id"), WorkflowRecord)
    assert_type(await aio.steps("id"), list[StepRecord])
    assert_type(await aio.find(name="f", after=found), list[WorkflowRecord])
    assert_type(await aio.count(status="queued"), int)
    await aio.cancel("id", children=False)
    await aio.delete("id")
    (await aio.now()) + 1  # E
    await aio.retrieve(7)  # E
    await aio.find(since="monday")  # E


def together() -> None:
    one, two = operon.start(f, 1), operon.start(g, "x")
    a, b = operon.gather(one, two)
    assert_type(a, int)
    assert_type(b, str)
    assert_type(operon.gather(one, two, one), tuple[int, str, int])
    assert_type(operon.gather(one, two, one, two), tuple[int, str, int, str])
    assert_type(operon.gather(one, two, one, two, one), tuple[int, str, int, str, int])
    assert_type(operon.gather(one), tuple[int, ...])
    several = [one, one]
    assert_type(operon.gather(*several), tuple[int, ...])
    assert_type(operon.gather(*several, errors="return"), tuple[int | Exception, ...])
    operon.gather(several)  # E
    operon.gather(one, two, errors="hide")  # E
    _, _, _ = operon.gather(one, two)  # E


async def together_awaited() -> None:
    one, two = await aio.start(f, 1), await aio.start(g, "x")
    a, b = await aio.gather(one, two)
    assert_type(a, int)
    assert_type(b, str)
    assert_type(await aio.gather(one, two, one), tuple[int, str, int])
    assert_type(await aio.gather(one, two, one, two), tuple[int, str, int, str])
    assert_type(await aio.gather(one, two, one, two, one), tuple[int, str, int, str, int])
    assert_type(await aio.gather(*[one, one]), tuple[int, ...])
    assert_type(await aio.gather(*[one, one], errors="return"), tuple[int | Exception, ...])
    await aio.gather([one, one])  # E
    await one.result()  # E


def covariant(handle: Handle[bool]) -> Handle[object]:
    wider: Handle[int] = handle
    narrower: Handle[str] = handle  # E
    del narrower
    return wider


def client(session: Client) -> None:
    with session as entered:
        assert_type(entered, Client)
    assert_type(session.start(f, 1), Handle[int])
    assert_type(session.start(invoice.using(key="k"), 7), Handle[str])
    assert_type(session.start("billing.invoice", order=7), Handle[Any])
    assert_type(session.retrieve("id", g), Handle[str])
    assert_type(session.describe("id"), WorkflowRecord)
    assert_type(session.steps("id"), list[StepRecord])
    assert_type(session.find(name="f"), list[WorkflowRecord])
    assert_type(session.count(), int)
    assert_type(session.gather(session.start(f, 1), session.start(g, "x")), tuple[int, str])
    session.cancel("id")
    session.delete("id")
    session.start(f, "one")  # E
    session.start(invoice, "seven")  # E


async def async_client(session: AsyncClient) -> None:
    async with session as entered:
        assert_type(entered, AsyncClient)
    assert_type(await session.start(f, 1), Handle[int])
    assert_type(await session.start(invoice, 7), Handle[str])
    assert_type(await session.retrieve("id", g), Handle[str])
    assert_type(await session.describe("id"), WorkflowRecord)
    assert_type(await session.steps("id"), list[StepRecord])
    assert_type(await session.find(name="f"), list[WorkflowRecord])
    assert_type(await session.count(), int)
    assert_type(await session.gather(await session.start(f, 1), await session.start(g, "x")), tuple[int, str])
    await session.cancel("id")
    await session.delete("id")
    await session.start(f, "one")  # E


def records(workflow: WorkflowRecord, step: StepRecord, here: Context) -> None:
    assert_type(workflow.created_at, datetime)
    assert_type(workflow.ended_at, datetime | None)
    assert_type(workflow.error, BaseException | None)
    assert_type(step.position, str)
    assert_type(step.attempt, int)
    assert_type(here.workflow_id, str | None)
    assert_type(here.idempotency_key, str)
    assert_type(here.roles, tuple[str, ...])
    workflow.status = "succeeded"  # E
    step.attempt = 7  # E
    here.user = "ada"  # E
