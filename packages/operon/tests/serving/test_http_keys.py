"""Once and only once per request: what an Idempotency-Key promises, to whom, and what it never does."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import httpx2
import pytest
from fastapi import HTTPException
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from children import PATIENCE
from operon import Operon, aio
from operon.core.ids import checked
from operon.engine.engine import Engine
from operon.engine.retention import Retention
from operon.http import keys
from serving.conftest import by_header, visiting

pytestmark = pytest.mark.anyio


def counting(app: Operon, kind: str, runs: Counter[int]) -> None:
    """Declare `POST /work`, of one kind and colour."""

    def blocking(n: int) -> int:
        runs[n] += 1
        return n

    async def awaited(n: int) -> int:
        runs[n] += 1
        await asyncio.sleep(0)
        return n

    def committing(tx: Connection, n: int) -> int:
        tx.execute(text("insert into effects (n) values (:n)"), {"n": n})
        return n

    if kind == "transaction":
        app.post("/work")(app.transaction(committing))
    else:
        app.post("/work")(app.workflow(awaited if kind == "async" else blocking))


@pytest.mark.parametrize("kind", ["blocking", "async", "transaction"])
async def test_fifty_requests_with_one_key_are_one_run(database: str, kind: str) -> None:
    """Simultaneous requests with the same key: the work is done once, and everybody gets its answer."""
    app, runs = Operon("shop", database=database), Counter[int]()
    counting(app, kind, runs)

    @app.transaction(name="prepare")
    def prepare(tx: Connection) -> None:
        tx.execute(text("create table effects (n int)"))

    @app.transaction(name="effects", read_only=True)
    def effects(tx: Connection) -> int:
        return int(tx.execute(text("select count(*) from effects")).scalar_one())

    async with visiting(app) as client:
        await aio.call(prepare)
        answers = await asyncio.gather(*(client.post("/work?n=7", headers={"idempotency-key": "k"}) for _ in range(50)))
        assert {(it.status_code, it.text) for it in answers} == {(200, "7")}
        assert runs[7] + await aio.call(effects) == 1
        assert await aio.count(name="prepare") == 1
        assert await aio.count() == 2


async def test_without_a_key_each_request_is_its_own(database: str) -> None:
    app, runs = Operon("shop", database=database), Counter[int]()
    counting(app, "blocking", runs)
    async with visiting(app) as client:
        for _ in range(3):
            assert (await client.post("/work?n=7")).status_code == 200
        assert runs[7] == 3


async def test_users_and_routes_never_meet(database: str) -> None:
    """One key of two users, of nobody, and of two routes: four runs."""
    app = Operon("shop", database=database, authenticate=by_header)

    @app.workflow
    def work() -> int:
        return next(runs)

    runs = itertools.count()
    app.post("/a")(app.post("/b")(work))
    async with visiting(app) as client:
        visits = [("/a", "alice"), ("/a", "bob"), ("/a", ""), ("/b", "alice")]
        for _ in range(2):
            answers = [await client.post(to, headers={"x-user": who, "idempotency-key": "k"}) for to, who in visits]
            assert [it.json() for it in answers] == [0, 1, 2, 3]


async def test_other_payload_is_refused(database: str) -> None:
    """The same key with other arguments, or another path, is 422 and runs nothing."""
    app = Operon("shop", database=database)
    runs: list[str] = []

    @app.post("/work/{shop}")
    @app.workflow
    def work(shop: str, n: int = 1) -> None:
        runs.append(f"{shop}{n}")

    async with visiting(app) as client:
        key = {"idempotency-key": "k"}
        assert (await client.post("/work/a", headers=key)).status_code == 200
        assert (await client.post("/work/a?n=1", headers=key)).status_code == 200
        for other in ("/work/b", "/work/a?n=2"):
            answer = await client.post(other, headers=key)
            assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        assert runs == ["a1"]


async def test_quoted_and_plain_spell_one_key(database: str) -> None:
    app, runs = Operon("shop", database=database), Counter[int]()
    counting(app, "blocking", runs)
    async with visiting(app) as client:
        for spelt in ("8e03-97", '"8e03-97"', ' "8e03-97";v=1'):
            assert (await client.post("/work?n=1", headers={"idempotency-key": spelt})).status_code == 200
        assert runs[1] == 1


MALFORMED = ['"', '"a', 'a"b', "a b", '""', '"\\x"', "a,b", "é".encode(), b"a\xff", '"' + "k" * 256 + '"', "k" * 256]


@pytest.mark.parametrize("key", MALFORMED)
async def test_malformed_key_is_refused(sqlite_path: Any, key: str | bytes) -> None:
    app, runs = Operon("shop", database=f"sqlite:///{sqlite_path}"), Counter[int]()
    counting(app, "blocking", runs)
    async with visiting(app) as client:
        spelt = key if isinstance(key, bytes) else key.encode()
        answer = await client.post("/work?n=1", headers=[(b"idempotency-key", spelt)])
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
        assert not runs


async def test_two_keys_are_refused(sqlite_path: Any) -> None:
    app, runs = Operon("shop", database=f"sqlite:///{sqlite_path}"), Counter[int]()
    counting(app, "blocking", runs)
    async with visiting(app) as client:
        twice = [("idempotency-key", "a"), ("idempotency-key", "b")]
        assert (await client.post("/work?n=1", headers=twice)).status_code == 400
        assert not runs


parts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@given(st.tuples(parts, parts, parts), st.tuples(parts, parts, parts))
def test_ids_keep_apart_what_is_different(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    """Every id fits the database and begins with our prefix; two are the same only for the same route, user and key."""
    ids = [keys.workflow_id(f"POST {route}", user, key) for route, user, key in (one, other)]
    assert all(checked(it).startswith(keys.PREFIX) for it in ids)
    assert (ids[0] == ids[1]) == (one == other)
    assert keys.named(keys.token(ids[0])) == ids[0]


async def test_key_names_no_workflow_of_the_program(database: str) -> None:
    """Whatever a client sends, it reaches no workflow that a request did not start: by key, or by `Location`."""
    app = Operon("shop", database=database)

    @app.post("/work")
    @app.workflow
    def work() -> str:
        return "done"

    async with visiting(app) as client:
        await aio.call(work.using(key="internal"))
        answer = await client.post("/work", headers={"idempotency-key": "internal"})
        assert "idempotency-replayed" not in answer.headers
        located = (await client.post("/work", headers={"prefer": "respond-async"})).headers["location"]
        base = located.rpartition("/")[0]
        assert (await client.get(f"{base}/{keys.token('internal')}")).status_code == 404
        assert (await client.get(f"{base}/{keys.token('http:nothing')}")).status_code == 404
        for nonsense in ("!", "a", "%00", "ÿ", "/"):
            assert (await client.get(f"{base}/{nonsense}")).status_code == 404


async def test_failure_is_recorded_and_answered_again(database: str) -> None:
    """An HTTPException, also a step's, comes back with status, headers and detail; other errors without their text."""
    app, runs = Operon("shop", database=database), Counter[str]()

    @app.step
    def check(n: int) -> None:
        runs["check"] += 1
        if n == 1:
            raise HTTPException(402, {"missing": 5}, {"x-hint": "pay"})

    @app.post("/work")
    @app.workflow
    def work(n: int) -> None:
        runs["work"] += 1
        check(n)
        raise RuntimeError("the password is hunter2")

    async with visiting(app) as client:
        for replayed in (None, "true"):
            answer = await client.post("/work?n=1", headers={"idempotency-key": "a"})
            assert (answer.status_code, answer.headers["x-hint"]) == (402, "pay")
            assert answer.json()["detail"] == {"missing": 5}
            answer = await client.post("/work?n=2", headers={"idempotency-key": "b"})
            assert answer.status_code == 500
            assert "hunter2" not in answer.text
            assert answer.json()["workflow"] == "http:POST /work::b"
            assert answer.headers.get("idempotency-replayed") == replayed
        assert runs == {"check": 2, "work": 2}


async def test_failed_transaction_is_answered_again(database: str) -> None:
    app, runs = Operon("shop", database=database), Counter[str]()

    @app.post("/work")
    @app.transaction
    def work(tx: Connection) -> None:
        runs["work"] += 1
        raise HTTPException(409, "sold out")

    async with visiting(app) as client:
        for _ in range(2):
            answer = await client.post("/work", headers={"idempotency-key": "a"})
            assert (answer.status_code, answer.json()["detail"]) == (409, "sold out")
        assert runs["work"] == 1


# ── Waiting ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Gated:
    """`POST /work`, which ends when its gate is opened."""

    def __init__(self, app: Operon, **options: Any) -> None:
        self.begun, self.gate, self.runs = asyncio.Event(), asyncio.Event(), 0

        @app.post("/work", **options)
        @app.workflow
        async def work() -> str:
            self.runs += 1
            self.begun.set()
            await self.gate.wait()
            return "done"


async def until(visit: Callable[[], Any], wanted: int) -> httpx2.Response:
    """Ask, as a client does, until the status is another one."""
    async with asyncio.timeout(PATIENCE):
        while (answer := await visit()).status_code != wanted:
            assert answer.status_code == 202, answer.text
    return answer  # type: ignore[no-any-return] # visit is a lambda


async def test_respond_async_says_where_the_answer_will_be(database: str) -> None:
    """202 at once, with a Location that only its user may read: the state, then the very answer."""
    app = Operon("shop", database=database, authenticate=by_header)
    work = Gated(app, status_code=201)
    alice = {"x-user": "alice"}
    async with visiting(app) as client:
        headers = alice | {"prefer": "respond-async", "idempotency-key": "k"}
        first, again = [await client.post("/work", headers=headers) for _ in range(2)]
        assert first.status_code == again.status_code == 202
        assert first.headers["preference-applied"] == "respond-async"
        assert first.headers["location"] == again.headers["location"]
        assert "alice" not in first.headers["location"]
        await asyncio.wait_for(work.begun.wait(), PATIENCE)
        at = first.headers["location"]
        state = await client.get(at, headers=alice)
        assert (state.status_code, state.json()["status"]) == (202, "running")
        for stranger in ({"x-user": "bob"}, {}):
            assert (await client.get(at, headers=stranger)).status_code == 404
        work.gate.set()
        answer = await until(lambda: client.get(at, headers=alice), 201)
        assert answer.json() == "done"
        assert (await client.get(at, headers={"x-user": "bob"})).status_code == 404
        retried = await client.post("/work", headers=alice | {"idempotency-key": "k"})
        assert (retried.status_code, retried.json(), work.runs) == (201, "done", 1)


@pytest.mark.parametrize("prefer", [None, "wait=0", "respond-async, wait=0"])
async def test_request_waits_for_so_long(database: str, prefer: str | None) -> None:
    """After `wait` seconds, or fewer if the client prefers, it is 202; the workflow goes on."""
    app = Operon("shop", database=database)
    work = Gated(app, wait=30 if prefer else 0.05)
    async with visiting(app) as client:
        answer = await client.post("/work", headers={} if prefer is None else {"prefer": prefer})
        assert (answer.status_code, answer.headers["retry-after"]) == (202, "1")
        work.gate.set()
        assert (await until(lambda: client.get(answer.headers["location"]), 200)).json() == "done"


async def test_retry_joins_and_waits(database: str) -> None:
    """A retry while the first is running waits with it, and both get the one answer."""
    app = Operon("shop", database=database)
    work = Gated(app)
    async with visiting(app) as client:
        visits = [asyncio.create_task(client.post("/work", headers={"idempotency-key": "k"})) for _ in range(2)]
        await asyncio.wait_for(work.begun.wait(), PATIENCE)
        work.gate.set()
        answers = await asyncio.gather(*visits)
        assert [(it.status_code, it.json()) for it in answers] == [(200, "done")] * 2
        assert sorted("idempotency-replayed" in it.headers for it in answers) == [False, True]
        assert work.runs == 1


async def test_retry_of_what_waits_for_nobody_is_a_conflict(database: str) -> None:
    """With `wait=0` a retry of what is being processed is 409 with Retry-After, as the draft asks, until it is done."""
    app = Operon("shop", database=database)
    work = Gated(app, wait=0)
    key = {"idempotency-key": "k"}
    async with visiting(app) as client:
        first = await client.post("/work", headers=key)
        assert first.status_code == 202
        busy = await client.post("/work", headers=key)
        assert (busy.status_code, busy.headers["retry-after"]) == (409, "1")
        assert busy.headers["location"] == first.headers["location"]
        work.gate.set()
        await until(lambda: client.get(first.headers["location"]), 200)
        assert (await client.post("/work", headers=key)).json() == "done"
        assert work.runs == 1


async def test_retry_of_a_transaction_under_way_is_a_conflict(postgres_url: str) -> None:
    """A transaction that is one commit has no row to join before it: a retry waits, then is 409, then answered."""
    app = Operon("shop", database=postgres_url)
    begun, gate = threading.Event(), threading.Event()

    @app.transaction
    def prepare(tx: Connection) -> None:
        tx.execute(text("create table effects (n serial)"))

    @app.post("/work", wait=0.2)
    @app.transaction
    def work(tx: Connection) -> int:
        begun.set()
        gate.wait(30)
        return int(tx.execute(text("insert into effects default values returning n")).scalar_one())

    @app.get("/effects")
    @app.transaction(read_only=True)
    def effects(tx: Connection) -> int:
        return int(tx.execute(text("select count(*) from effects")).scalar_one())

    key = {"idempotency-key": "k"}
    async with visiting(app) as client:
        await aio.call(prepare)
        first = asyncio.create_task(client.post("/work", headers=key))
        await asyncio.get_running_loop().run_in_executor(None, begun.wait, 30)
        busy = await client.post("/work", headers=key)
        assert (busy.status_code, busy.headers["retry-after"]) == (409, "1")
        assert (await first).status_code == 409
        gate.set()
        async with asyncio.timeout(PATIENCE):
            while (answer := await client.post("/work", headers=key)).status_code == 409:
                pass
        again = await client.post("/work", headers=key)
        assert again.json() == answer.json()
        assert (await client.get("/effects")).json() == 1


async def test_transaction_in_the_background(database: str) -> None:
    """With `Prefer: respond-async` a transaction is a workflow that survives us, and its key is the same key."""
    app, runs = Operon("shop", database=database), Counter[str]()

    @app.post("/work")
    @app.transaction
    def work(tx: Connection) -> str:
        runs["work"] += 1
        return "done"

    async with visiting(app) as client:
        answer = await client.post("/work", headers={"idempotency-key": "k", "prefer": "respond-async"})
        assert (await until(lambda: client.get(answer.headers["location"]), 200)).json() == "done"
        again = await client.post("/work", headers={"idempotency-key": "k"})
        assert (again.json(), again.headers["idempotency-replayed"], runs["work"]) == ("done", "true", 1)


@pytest.mark.parametrize("kind", ["blocking", "transaction"])
async def test_a_request_whose_answer_was_deleted_is_gone_and_not_done_again(database: str, kind: str) -> None:
    """A client that comes back late is told so, and so is who asks where he was sent; another payload is a 422."""
    app, runs = Operon("shop", database=database, keep=0), Counter[int]()
    counting(app, kind, runs)

    @app.transaction(name="prepare")
    def prepare(tx: Connection) -> None:
        tx.execute(text("create table effects (n int)"))

    async with visiting(app) as client:
        await aio.call(prepare)
        engine = cast("Engine", app.host)
        engine.service._retention._next = float("inf")  # the record goes when the test says so
        key = {"Idempotency-Key": "k"}
        location = "/"
        if kind == "blocking":
            location = (await client.post("/work?n=1", headers=key | {"Prefer": "respond-async"})).headers["Location"]
        assert (await client.post("/work?n=1", headers=key)).json() == 1
        retention = Retention(lambda: app.functions, engine.settings)
        for tick in range(3):
            await engine.adrive(retention.tick(tick * 3600.0))
        again = await client.post("/work?n=1", headers=key)
        assert (again.status_code, "deleted" in again.json()["detail"]) == (410, True)
        assert (await client.post("/work?n=2", headers=key)).status_code == 422
        if kind == "blocking":
            assert (await client.get(location)).status_code == 410
            assert runs == {1: 1}
