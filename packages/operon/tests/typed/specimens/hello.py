"""Section 1 of the contract: functions keep their signature and colour; options keep the kind of callable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from operon import Call, Handle, Operon, Routes, aio, sleep, start

app = Operon("hello")


@app.step(retries=3)
def fetch_name(user: int) -> str:
    return f"user {user}"


@app.workflow
def greet(user: int) -> str:
    name = fetch_name(user)
    assert_type(name, str)
    sleep(timedelta(days=1))
    sleep(datetime.now(UTC) + timedelta(days=1))
    sleep(1)
    sleep("a while")  # E
    fetch_name("ada")  # E
    fetch_name.using(retries="three")  # E
    return f"Hello, {fetch_name.using(name='again', retries=1, timeout=2)(user)}!"


with app:
    assert_type(greet(42), str)
    assert_type(greet.using(key="welcome-42")(42), str)
    handle = start(greet, 42)
    assert_type(handle, Handle[str])
    assert_type(handle.id, str)
    assert_type(handle.result(timeout=5), str)
    assert_type(handle.result(timeout=timedelta(seconds=5)), str)
    greet("ada")  # E
    greet()  # E
    greet(1, 2)  # E
    greet(name=1)  # E
    greet.using(key=42)  # E
    greet.using(on_duplicate="ignore")  # E
    greet.using(kye="welcome")  # E
    greet.using(key="k")("ada")  # E
    start(greet, "ada")  # E
    start(greet)  # E
    start(fetch_name, 42)  # E
    start(greet.fn, 42)  # E

assert_type(greet.fn, Callable[..., Any])
assert_type(greet.using(key="k").bind(7), Call[str])
greet.bind("ada")  # E


# ── Async ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@app.step
async def afetch(user: int) -> str:
    return f"user {user}"


@app.workflow(timeout=timedelta(hours=1), pin=True, aliases=["welcome"])
async def agreet(user: int, *, loud: bool = False) -> str:
    await aio.sleep(1)
    await aio.sleep("a while")  # E
    name = await afetch(user)
    assert_type(name, str)
    assert_type(await afetch.using(retries=2)(user), str)
    assert_type(await aio.call(greet, user), str)
    await aio.call(greet, "ada")  # E
    len(afetch(user))  # E
    return name.upper() if loud else name


async def main() -> None:
    async with app:
        assert_type(await agreet(42, loud=True), str)
        assert_type(await agreet.using(key="k")(42), str)
        handle = await aio.start(agreet, 42, loud=True)
        assert_type(handle, Handle[str])
        assert_type(await handle, str)
        assert_type(await handle.wait(timeout=5), str)
        assert_type(await aio.start(greet, 42), Handle[str])
        assert_type(agreet.bind(42), Call[str])
        await agreet("ada")  # E
        await aio.start(agreet, 42, quiet=True)  # E
        await aio.start(agreet, loud=True)  # E
        len(agreet(42))  # E


asyncio.run(main())


# ── Larger programs ──────────────────────────────────────────────────────────────────────────────────────────────────

part = Routes("billing")


@part.workflow(name="invoice")
def invoice(order: int) -> bytes:
    return bytes(order)


@part.step()
async def pay(order: int) -> None:
    del order


app.include(part)
app.include("billing")  # E
assert_type(start(invoice, 7), Handle[bytes])

shout = app.step(str.upper)
assert_type(shout("hello"), str)
shout(7)  # E


class Billing:
    def __init__(self, gateway: str) -> None:
        self.gateway = gateway

    @app.step(ignore=["client"])
    def charge(self, cents: int, client: object = None) -> str:
        del client
        return f"{self.gateway} {cents}"

    @app.workflow
    def bill(self, cents: int) -> str:
        assert_type(self.charge(cents), str)
        self.charge("all")  # E
        return self.charge.using(retries=1)(cents)

    @app.workflow()
    async def abill(self, cents: int) -> int:
        return cents

    @staticmethod
    @app.workflow
    def refund(cents: int) -> int:
        return -cents


billing = app.register(Billing("visa"), name="eu")
assert_type(billing, Billing)
app.register(Billing("visa"))  # E
assert_type(billing.bill(7), str)
assert_type(billing.bill.using(key="k")(7), str)
assert_type(billing.bill.bind(7), Call[str])
assert_type(start(billing.bill, 7), Handle[str])
assert_type(start(billing.bill.using(key="k"), 7), Handle[str])
assert_type(start(billing.abill, 7), Handle[int])
assert_type(Billing.refund(7), int)
billing.bill("all")  # E
start(billing.bill, "all")  # E
billing.bill.bind()  # E
Billing.refund("all")  # E


@contextmanager
def around() -> Generator[None]:
    yield


@contextmanager
def opened(app: Operon) -> Generator[None]:
    app.launch(run=False, migrate=False)
    yield
    app.close(drain=timedelta(seconds=5))


options = Operon(
    "shop",
    database="postgresql://localhost/shop",
    datasources={"legacy": "sqlite:///legacy.db"},
    lifespan=opened,
    around=around,
    version="1.4",
    pin=True,
    threads=8,
    max_payload=1_000_000,
    encryption_key=bytes(32),
    keep={"succeeded": timedelta(days=7), "failed": None},
    keep_keys=timedelta(days=90),
)
Operon("shop", keep=timedelta(days=7), keep_keys=None)
Operon("shop", keep="a week")  # E
Operon()  # E
Operon("shop", threads="many")  # E
Operon("shop", database_url="sqlite:///x.db")  # E


@app.workflow(key="k")  # E
def wrong() -> None: ...


@app.workflow(keep={"failed": timedelta(days=1)})
def kept(n: int) -> str:
    return str(n)


assert_type(kept(1), str)


@app.workflow(keep="a week")  # E
def kept_wrongly() -> None: ...


@app.step(keep=None)  # E
def kept_never() -> None: ...


@app.step(retries="3")  # E
def wrong_too() -> None: ...
