"""Schedules, as the contract's fourth section has them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, assert_type

from operon import AsyncClient, Client, Handle, Operon, Routes, ScheduleRecord, aio, schedules
from operon.app.declarations import AsyncWorkflow

app = Operon("scheduled")
part = Routes("part")
emails = app.queue("emails")


@app.schedule("0 9 * * MON", tz="Europe/London", catch_up="one", overlap="skip")
@app.workflow
def weekly(at: datetime) -> int:
    return at.year


@part.schedule("@daily", queue=emails, name="nightly")
@part.workflow
async def nightly() -> str:
    return ""


@app.workflow
def digest(user: str, at: datetime | None = None) -> None: ...


assert_type(nightly, AsyncWorkflow[[], str])


def plain(at: datetime) -> None: ...


app.schedule("0 9 * * *")(plain)  # E
app.schedule("0 9 * * *", overlap="wait")  # E
app.schedule("0 9 * * *", catch_up=True)  # E
app.schedule(9)  # E


def blocking(since: datetime) -> None:
    assert_type(weekly(since), int)
    weekly("monday")  # E
    assert_type(schedules.create("a", "0 9 * * *", digest.bind("acme"), tz="UTC", queue=emails), ScheduleRecord)
    assert_type(schedules.create("a", "0 9 * * *", weekly, overlap="queue", replace=True), ScheduleRecord)
    assert_type(schedules.trigger("a"), Handle[Any])
    assert_type(schedules.backfill("a", since, until=since), list[Handle[Any]])
    assert_type(schedules.list(), list[ScheduleRecord])
    assert_type(schedules.describe("a").next_at, datetime | None)
    schedules.pause("a")
    schedules.resume("a")
    schedules.delete("a")
    schedules.create("a", "0 9 * * *", digest.bind(7))  # E
    schedules.create("a", "0 9 * * *", plain)  # E
    schedules.backfill("a", since)  # E
    schedules.pause(7)  # E


async def awaited(since: datetime) -> None:
    assert_type(await aio.schedules.create("a", "0 9 * * *", weekly), ScheduleRecord)
    assert_type(await aio.schedules.trigger("a"), Handle[Any])
    assert_type(await aio.schedules.backfill("a", since, since), list[Handle[Any]])
    assert_type(await aio.schedules.list(), list[ScheduleRecord])
    assert_type(await aio.schedules.describe("a"), ScheduleRecord)
    await aio.schedules.pause("a")
    await aio.schedules.resume("a")
    await aio.schedules.delete("a")
    await aio.schedules.pause(7)  # E


def by_client(client: Client) -> None:
    assert_type(client.schedules.list(), list[ScheduleRecord])
    assert_type(client.schedules.create("a", "0 9 * * *", weekly), ScheduleRecord)
    client.schedules.pause(7)  # E


async def by_async_client(client: AsyncClient) -> None:
    assert_type(await client.schedules.describe("a"), ScheduleRecord)
    await client.schedules.pause(7)  # E
