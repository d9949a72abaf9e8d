"""Section 2 of the contract: the caller does not pass the transaction, whatever its type."""

from __future__ import annotations

import sqlite3
from typing import Any, assert_type

import asyncpg
import psycopg
import sqlalchemy
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import AsyncSession

from operon import Call, Handle, Operon, Routes, aio, start

app = Operon("bank")
part = Routes("part")


@app.transaction
def debit(tx: psycopg.Connection, account: int, cents: int) -> int:
    row = tx.execute(
        "update accounts set cents = cents - %s where id = %s returning cents", [cents, account]
    ).fetchone()
    assert row is not None
    return int(row[0])


@app.transaction(isolation="repeatable read", read_only=True, datasource="legacy", raises=(LookupError,))
def total(tx: sqlite3.Connection) -> int:
    return int(tx.execute("select 1").fetchone()[0])


@part.transaction
async def apay(tx: psycopg.AsyncConnection, account: int, *, cents: int = 1) -> str:
    await tx.execute("select 1")
    return f"{account} {cents}"


@app.transaction(name="core")
def core(tx: sqlalchemy.Connection, account: int) -> int:
    return int(tx.execute(sqlalchemy.text("select 1")).scalar_one()) + account


@app.transaction()
async def assess(tx: AsyncSession, account: int) -> int:
    await tx.execute(sqlalchemy.text("select 1"))
    return account


@app.transaction
async def fetch(tx: asyncpg.Connection, account: int) -> list[str]:
    del tx
    return [str(account)]


left = debit(7, 100)
assert_type(left, int)
assert_type(total(), int)
assert_type(core(7), int)
assert_type(debit.using(key="k")(7, cents=100), int)
assert_type(debit.using(key="k").bind(7, 100), Call[int])
assert_type(start(debit, 7, 100), Handle[int])
assert_type(start(apay, 7, cents=2), Handle[str])
debit(7)  # E
debit(7, "all")  # E
debit(sqlite3.connect(":memory:"), 7, 100)  # E
start(debit, 7)  # E


@app.transaction(isolation="chaos")  # E
def chaotic(tx: sqlite3.Connection) -> None: ...


@app.transaction  # E
def without() -> None: ...


async def main() -> None:
    assert_type(await apay(7, cents=3), str)
    assert_type(await apay.using(key="k")(7), str)
    assert_type(await assess(7), int)
    assert_type(await fetch(7), list[str])
    assert_type(await aio.start(assess, 7), Handle[int])
    assert_type(await aio.call(debit, 7, 100), int)
    await apay("seven")  # E
    await aio.call(debit, 7)  # E


class Ledger:
    @app.transaction
    def book(self, tx: orm.Session, cents: int) -> int:
        tx.execute(sqlalchemy.text("select 1"))
        return cents

    @app.transaction(read_only=True)
    async def abook(self, tx: AsyncSession, cents: int) -> str:
        await tx.execute(sqlalchemy.text("select 1"))
        return str(cents)

    @staticmethod
    @app.transaction
    def close(tx: orm.Session, year: int) -> int:
        del tx
        return year


async def methods(ledger: Ledger) -> None:
    assert_type(ledger.book(3), int)
    assert_type(ledger.book.using(key="k")(cents=3), int)
    assert_type(start(ledger.book, 3), Handle[int])
    assert_type(ledger.book.bind(3), Call[int])
    assert_type(await ledger.abook(3), str)
    assert_type(Ledger.close(2025), int)
    ledger.book("all")  # E
    await ledger.abook("all")  # E
    Ledger.close("now")  # E
    start(ledger.book, "all")  # E


def within(session: orm.Session, connection: psycopg.Connection[Any]) -> None:
    assert_type(start(debit.using(within=session), 7, 100), Handle[int])
    assert_type(start(debit.using(within=connection), 7, 100), Handle[int])
