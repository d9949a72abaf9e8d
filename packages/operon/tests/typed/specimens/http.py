"""Section 3 of the contract: HTTP decorators, outermost, give back what they are given."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import assert_type

from fastapi import FastAPI
from starlette.requests import Request

from operon import Handle, Operon, Routes, User, start
from operon.fastapi import attach


def authenticate(request: Request) -> User | None:
    name = request.headers.get("x-user")
    return User(name, roles=["clerk"]) if name else None


app = Operon("bank", authenticate=authenticate)
part = Routes()


@app.post("/transfers", wait=5, roles=["clerk"], status_code=201, tags=["money"])
@app.workflow
def transfer(source: int, target: int, cents: int) -> int:
    return source + target + cents


@app.get("/accounts/{id}")
@app.transaction(read_only=True)
def account(tx: sqlite3.Connection, id: int) -> Mapping[str, int]:  # noqa: A002 - a path says {id}
    del tx
    return {"id": id}


@part.put("/notes/{name}")
@part.workflow
async def note(name: str) -> str:
    return name


@part.patch("/plain")
def patch(size: int) -> int:
    return size


@part.delete("/plain")
async def delete(size: int) -> int:
    return size


async def main() -> None:
    assert_type(transfer(1, 2, 300), int)
    assert_type(start(transfer.using(key="k"), 1, 2, 300), Handle[int])
    assert_type(account(7), Mapping[str, int])
    assert_type(await note("x"), str)
    assert_type(patch(7), int)
    assert_type(await delete(7), int)
    assert_type(app.http, FastAPI)
    transfer(1, 2)  # E
    account("seven")  # E
    await note(7)  # E
    patch("seven")  # E
    attach(app, FastAPI())
    attach(FastAPI(), app)  # E


app.post(7)  # E
app.get("/x", wait="long")  # E
