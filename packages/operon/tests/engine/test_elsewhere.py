"""What a body asks of another database is refused there, and done in a step; it never waits for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import operon
from children import PATIENCE
from operon import AsyncClient, Client, Operon, aio
from operon.errors import WrongDatabase


class Two:
    """An app whose workflow asks the other one, in its body or in a step of it."""

    def __init__(self, url: Any, other: Any) -> None:
        self.mine, self.other = Operon("mine", database=url), Operon("other", database=other)
        self.client, self.aclient = Client(other), AsyncClient(other)

        @self.other.workflow(name="there")
        def there(n: int) -> int:
            return n + 1

        @self.other.workflow(name="athere")
        async def athere(n: int) -> int:
            return n + 1

        self.there, self.athere = there, athere

        @self.mine.step
        def within(kind: str) -> Any:
            return self.ask(kind)

        @self.mine.step
        async def awithin(kind: str) -> Any:
            return await self.aask(kind)

        @self.mine.workflow(name="flow")
        def flow(kind: str, *, step: bool) -> Any:
            return within(kind) if step else self.ask(kind)

        @self.mine.workflow(name="aflow")
        async def aflow(kind: str, *, step: bool) -> Any:
            return await awithin(kind) if step else await self.aask(kind)

        self.flow, self.aflow = flow, aflow

    def ask(self, kind: str) -> Any:
        asked: dict[str, Any] = {
            "call": lambda: self.there(1),
            "start": lambda: operon.start(self.there, 1).result(PATIENCE),
            "client start": lambda: self.client.start(self.there, 1).result(PATIENCE),
            "client start by name": lambda: self.client.start("there", n=1).result(PATIENCE),
            "client gather": lambda: self.client.gather(self.client.start(self.there, 1))[0],
            "client count": lambda: self.client.count(name="nobody") + 2,
            "client cancel": lambda: self.client.cancel("nobody"),
            "handle": lambda: self.handle.result(PATIENCE),
        }
        return asked[kind]()

    async def aask(self, kind: str) -> Any:
        if kind == "call":
            return await self.athere(1)
        if kind == "start":
            return await (await aio.start(self.athere, 1))
        if kind == "handle":
            return await self.handle
        if kind == "client count":
            return await self.aclient.count(name="nobody") + 2
        if kind == "client cancel":
            return await self.aclient.cancel("nobody")
        if kind == "client start by name":
            return await (await self.aclient.start("there", n=1))
        handle = await self.aclient.start(self.athere, 1)
        return (await self.aclient.gather(handle))[0] if kind == "client gather" else await handle

    async def run(self, colour: str, kind: str, *, step: bool) -> Any:
        """Run the workflow, and give what became of it; the clients are connected on this loop."""
        async with self.mine, self.other, self.aclient:
            with_client = asyncio.to_thread(self.client.__enter__)
            await with_client
            try:
                self.handle = await aio.start(self.there, 1)
                handle = await aio.start(self.flow if colour == "sync" else self.aflow, kind, step=step)
                return await handle
            finally:
                await asyncio.to_thread(self.client.close)


@pytest.fixture(params=["sqlite", "postgres"])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Two:
    here = f"sqlite:///{tmp_path}/here.db"
    other = (
        f"sqlite:///{tmp_path}/there.db" if request.param == "sqlite" else request.getfixturevalue("ready_postgres_url")
    )
    return Two(here, other)


KINDS = ["call", "start", "client start", "client start by name", "client gather", "client count", "handle"]


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("kind", [*KINDS, "client cancel"])
def test_a_body_is_refused(two: Two, colour: str, kind: str) -> None:
    with pytest.raises(WrongDatabase, match="Do it in a step"):
        asyncio.run(two.run(colour, kind, step=False))


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_asks_the_other_database(two: Two, colour: str, kind: str) -> None:
    assert asyncio.run(two.run(colour, kind, step=True)) == 2


def test_apps_on_one_database_call_each_other(tmp_path: Path) -> None:
    two = Two(tmp_path / "one.db", tmp_path / "one.db")
    for kind in ("call", "start"):
        for colour in ("sync", "async"):
            assert asyncio.run(two.run(colour, kind, step=False)) == 2
