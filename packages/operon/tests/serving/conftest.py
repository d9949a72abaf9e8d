"""Apps to be visited over HTTP: a database of the test's own, and a client that the app's loop serves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2
import pytest

from children import PATIENCE
from operon import Operon, User
from operon.http import answering, health

Visit = Callable[..., AbstractAsyncContextManager[httpx2.AsyncClient]]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody be told to come again because this machine stood still: who tests that says how long to wait."""
    for module, name in ((answering, "PATIENCE"), (answering, "PLACE"), (health, "PATIENCE")):
        monkeypatch.setattr(module, name, PATIENCE)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('sqlite_path')}"
    return str(request.getfixturevalue("ready_postgres_url"))


def by_header(request: Any) -> User | None:
    """Believe who somebody says he is: `X-User: alice clerk auditor`."""
    name, *roles = request.headers.get("x-user", "").split() or [""]
    return User(name, roles) if name else None


def client_of(app: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://test", timeout=60)


@asynccontextmanager
async def visiting(app: Operon) -> AsyncGenerator[httpx2.AsyncClient]:
    """Launch the app on this loop, and visit it."""
    async with app, client_of(app) as client:
        yield client
