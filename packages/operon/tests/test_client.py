"""A client of a process without the app: what it starts is run by whoever has the code, and nothing is run by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import pytest

from children import PATIENCE
from operon import AsyncClient, Client, Handle, Operon, WorkflowRecord, remote
from operon.errors import BadValue, KeyConflict, NotFound, NotLaunched, SchemaMismatch


@remote("greet")
def greet(name: str, times: int = 1) -> str: ...  # type: ignore[empty-body]


@remote("agreet")
async def agreet(name: str) -> str: ...  # type: ignore[empty-body]


def declare(url: str) -> Operon:
    app = Operon("served", database=url)

    @app.step
    def spell(name: str) -> str:
        return name.upper()

    @app.workflow(name="greet")
    def _greet(name: str, times: int = 1) -> str:
        return " ".join(spell(name) for _ in range(times))

    @app.workflow(name="agreet")
    async def _agreet(name: str) -> str:
        return name.upper()

    return app


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'client.db'}"


@pytest.fixture
def served(url: str) -> Iterator[Operon]:
    with declare(url) as app:
        yield app


def test_starts_what_another_process_runs(url: str, served: Operon) -> None:
    with Client(url) as client:
        handle = client.start(greet, "ada", times=2)
        _ = assert_type(handle, Handle[str])
        assert handle.result(timeout=PATIENCE) == "ADA ADA"
        record = client.describe(handle.id)
        assert_type(record, WorkflowRecord)
        assert (record.name, record.status, record.input) == ("greet", "succeeded", {"name": "ada", "times": 2})
        assert [(step.name, step.output) for step in client.steps(handle.id)] == [("declare.<locals>.spell", "ADA")] * 2


def test_starts_by_recorded_name_the_same_call(url: str, served: Operon) -> None:
    """A call by name and the same call of the declared function are one: same key, same arguments, one run."""
    with Client(url) as client:
        first = client.start(greet.using(key="welcome"), "ada")
        assert client.retrieve(first.id, greet).result(timeout=PATIENCE) == "ADA"
        assert client.gather(first, client.start("greet", name="bob")) == ("ADA", "BOB")
        assert client.count(name="greet") == 2
        with pytest.raises(KeyConflict):
            _ = client.start(greet.using(key="welcome"), "bob")
        with pytest.raises(BadValue, match="by name"):
            _ = client.start("greet", "ada")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]


def test_runs_nothing_and_enlists_nowhere(url: str) -> None:
    """What a client starts waits for an app, and another app's start sees no executor of the client's."""
    with declare(url) as app:
        assert app.name
    with Client(url) as client:
        handle = client.start("greet", name="ada")
        assert client.describe(handle.id).status == "queued"
        assert [record.id for record in client.find(status="queued")] == [handle.id]
        client.cancel(handle.id)
        assert client.describe(handle.id).status == "cancelled"
        with pytest.raises(NotFound):
            client.describe("nobody")


def test_needs_a_migrated_database(url: str) -> None:
    with pytest.raises(SchemaMismatch, match="operon migrate"), Client(url):
        pass


def test_closed_client_says_so(url: str) -> None:
    with pytest.raises(NotLaunched, match="with Client"):
        Client(url).count()


@pytest.mark.anyio
async def test_async_client_awaits_the_same_verbs(url: str) -> None:
    async with declare(url), AsyncClient(url) as client:
        handle = await client.start(agreet.using(key="k"), "ada")
        _ = assert_type(handle, Handle[str])
        assert await handle == "ADA"
        assert await client.gather(await client.start("agreet", name="bob"), handle) == ("BOB", "ADA")
        assert (await client.describe("k")).status == "succeeded"
        assert await client.steps("k") == []
        assert await client.count(status="succeeded") == len(await client.find(limit=5)) == 2
        await client.cancel("k")
        assert await (await client.retrieve("k")) == "ADA"
