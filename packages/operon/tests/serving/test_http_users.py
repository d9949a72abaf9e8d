"""Who may do what: when a request is admitted, at every start, and again whenever a workflow is taken up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from operon import Operon, User, aio
from operon import context as where
from operon.app.declarations import AsyncWorkflow
from operon.errors import DeclarationError, Forbidden
from serving.conftest import by_header, client_of, visiting

pytestmark = pytest.mark.anyio


async def by_header_awaited(request: Any) -> User | None:
    return by_header(request)


@pytest.mark.parametrize("authenticate", [by_header, by_header_awaited])
async def test_roles_open_the_door(database: str, authenticate: Callable[[Any], Any]) -> None:
    """Nobody is 401 and told how; a user without a role is 403; one role suffices; so for plain functions."""
    app = Operon("shop", database=database, authenticate=authenticate)

    @app.post("/work", roles=["clerk", "auditor"])
    @app.workflow
    def work() -> list[str | None]:
        return [where().user, *where().roles]

    @app.get("/plain", roles=["clerk"])
    def plain() -> None: ...

    async with visiting(app) as client:
        for visit in (client.post, client.get):
            path = "/work" if visit == client.post else "/plain"
            nobody = await visit(path)
            assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, "Bearer")
            assert (await visit(path, headers={"x-user": "bob viewer"})).status_code == 403
            answer = await visit(path, headers={"x-user": "alice viewer clerk"})
            assert answer.status_code == 200
        assert (await client.post("/work", headers={"x-user": "eve auditor"})).json() == ["eve", "auditor"]
        assert await aio.count() == 2


async def test_refusal_comes_before_the_body(database: str) -> None:
    """Who may not come in is not told what a valid request looks like."""
    app = Operon("shop", database=database, authenticate=by_header)

    @app.post("/work", roles=["clerk"])
    @app.workflow
    def work(n: int) -> None: ...

    async with visiting(app) as client:
        assert (await client.post("/work?n=x")).status_code == 401
        assert (await client.post("/work?n=x", headers={"x-user": "alice clerk"})).status_code == 422


async def test_roles_hold_at_every_start(database: str) -> None:
    """A child and a transaction inside need the role too: whoever begins a workflow is who it works for."""
    app, ran = Operon("shop", database=database, authenticate=by_header), Counter[str]()

    @app.workflow(roles=["clerk"])
    def pay() -> None:
        ran["pay"] += 1

    @app.post("/open")
    @app.workflow
    def opened() -> str:
        try:
            pay()
        except Forbidden:
            return "forbidden"
        return "paid"

    async with visiting(app) as client:
        assert (await client.post("/open", headers={"x-user": "bob"})).json() == "forbidden"
        assert (await client.post("/open")).json() == "forbidden"
        assert not ran
        assert await aio.count(name=pay.name) == 0
        assert (await client.post("/open", headers={"x-user": "alice clerk"})).json() == "paid"
        await aio.call(pay)
        assert ran["pay"] == 2


async def test_roles_are_checked_again_on_recovery(database: str) -> None:
    """A row whose recorded roles do not suffice for the code that takes it up is failed, and runs nothing."""
    ran = Counter[str]()

    def made(role: str) -> tuple[Operon, AsyncWorkflow[[], None]]:
        app = Operon("shop", database=database, authenticate=by_header)

        @app.post("/work", roles=[role])
        @app.workflow(name="work")
        async def work() -> None:
            ran["work"] += 1

        return app, work

    front, _ = made("clerk")
    front.launch(run=False)
    async with client_of(front) as client:
        headers = {"x-user": "alice clerk", "prefer": "respond-async", "idempotency-key": "k"}
        assert (await client.post("/work", headers=headers)).status_code == 202
    await aio.call(front.close)

    back, work = made("auditor")
    async with visiting(back) as client:
        (row,) = await aio.find(name="work")
        with pytest.raises(Forbidden, match="auditor"):
            await work.using(key=row.id, user="alice", roles=["auditor"])()
        assert not ran
        assert (await client.post("/work", headers={"x-user": "eve auditor"})).status_code == 200
        assert ran["work"] == 1


async def test_authentication_that_fails_lets_nobody_in(database: str) -> None:
    """An error of `authenticate`, or what is no user, is a 500, and its text stays here."""
    wrong: list[Any] = [User(""), "alice", RuntimeError("secret")]

    def authenticate(request: object) -> Any:
        user = wrong.pop()
        if isinstance(user, Exception):
            raise user
        return user

    app = Operon("shop", database=database, authenticate=authenticate)

    @app.post("/work")
    @app.workflow
    def work() -> None: ...

    async with visiting(app) as client:
        for _ in range(3):
            answer = await client.post("/work")
            assert (answer.status_code, "secret" in answer.text) == (500, False)
        assert await aio.count() == 0


def test_roles_without_users_are_refused(database: str) -> None:
    app = Operon("shop", database=database)

    @app.post("/work", roles=["clerk"])
    @app.workflow
    def work() -> None: ...

    with pytest.raises(DeclarationError, match="authenticate"):
        _ = app.http


def test_roles_are_said_once(database: str) -> None:
    app = Operon("shop", database=database)
    with pytest.raises(DeclarationError, match="say them once"):

        @app.post("/work", roles=["clerk"])
        @app.workflow(roles=["auditor"])
        def work() -> None: ...
