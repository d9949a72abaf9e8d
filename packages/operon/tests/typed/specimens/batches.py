"""Batches: a function of a list, started with single items."""

from __future__ import annotations

from typing import assert_type

import operon
from operon import Handle, Operon, aio

app = Operon("batches")
queue = app.queue("documents")


@app.workflow(batch=100, batch_wait=2.0)
def index(docs: list[int]) -> list[str]:
    return [str(doc) for doc in docs]


@app.workflow(batch=100)
def store(docs: list[int]) -> None:
    del docs


@app.workflow(batch=100, name="aindex")
async def aindex(docs: list[int]) -> list[str]:
    return [str(doc) for doc in docs]


class Library:
    @app.workflow(batch=5)
    def shelve(self, books: list[str]) -> list[int]:
        return [len(book) for book in books]


def blocking(library: Library) -> None:
    assert_type(operon.enqueue(queue, index, 7), Handle[str])
    assert_type(operon.enqueue_many(queue, [index.using(key="k").bind(7)]), list[Handle[str]])
    assert_type(operon.enqueue(queue, store, 7), Handle[None])
    assert_type(operon.enqueue(queue, library.shelve, "Emma"), Handle[int])
    assert_type(index(7), str)
    operon.enqueue(queue, index, [7])  # E
    operon.enqueue(queue, index, "x")  # E
    index([7])  # E


async def awaited() -> None:
    assert_type(await aio.enqueue(queue, aindex, 7), Handle[str])
    assert_type(await aindex(7), str)
    await aindex("x")  # E


@app.workflow(batch=10)  # E
def no_list(doc: int) -> str:
    return str(doc)


@app.workflow(batch="ten")  # E
def no_number(docs: list[int]) -> list[int]:
    return docs
