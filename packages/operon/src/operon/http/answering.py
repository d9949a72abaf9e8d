"""From a validated request to its answer: start a workflow and wait for it, or do the one transaction there is."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from msgspec.structs import replace
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from operon.app.declarations import Declaration
from operon.core.commands import Describe, Op, ask
from operon.core.function import Using
from operon.core.recording import Wait
from operon.core.records import at
from operon.core.results import conclude
from operon.core.rows import Outcome
from operon.core.starting import begin, new_row
from operon.core.transactions import Busy, attempt, transaction
from operon.engine.bridge import bridged
from operon.engine.engine import Engine
from operon.errors import Forbidden, KeyConflict, NotLaunched, PayloadTooLarge, StoreUnavailable
from operon.http import keys
from operon.http.admission import Admission, RequestContext
from operon.http.paths import prefix
from operon.http.problems import RETRY, Failed

T = TypeVar("T")
PATIENCE = 10.0
"""Seconds in which a start must be durable; then the database counts as out of reach."""
PLACE = 2.0
"""Seconds that a request waits for one of the threads that are there for requests."""
WAITING = 16
"""Requests that may wait for a thread, for each thread that there is."""
FULL = "The server has more to do than it can; try again, with the same Idempotency-Key."
BUSY = "A request with this Idempotency-Key is being worked on; try again."
REFUSALS: dict[type[Exception], tuple[int, str]] = {
    KeyConflict: (422, "This Idempotency-Key came with another request before; use a new one."),
    PayloadTooLarge: (413, "The request is larger than what can be recorded."),
    Forbidden: (403, "The user has none of the roles that this needs."),
}
"""What can be said of a start that was refused; nothing was recorded."""

_running: set[asyncio.Task[Any]] = set()


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request to a workflow or transaction, and the ways to its answer."""

    admission: Admission
    declared: Declaration
    request: Request
    context: RequestContext

    async def answer(self, values: dict[str, Any]) -> Any:
        """Give what the function returned, now or when this key came first; or a 202 that says where it will be.

        Raises:
            HTTPException: the workflow's own, or what is wrong with the key or the payload.
            Failed: the workflow has no result.
            StoreUnavailable: nobody knows; whoever asks again with the same key is told.
        """
        rules, using = self.declared.function.rules, self.admission.using(self.context)
        if self.declared.function.kind == "transaction" and self.context.wait > 0:
            call = self._call(using)
            if rules.read_only and using.key is None:
                return await self._run(None, transaction(self.admission.host, call, (), values))
            if not rules.read_only and self.admission.app.remembers(call.function):
                return await self._commit(call, values)
        return await self._start(self._call(replace(using, key=using.key or self.admission.fresh_id())), values)

    async def look(self, workflow_id: str) -> Any:
        """Give the answer to an earlier request of the same user, or a 202 while there is none.

        Raises:
            HTTPException: 404, there was no such request; or the workflow's own.
            Failed: the workflow has no result.
        """
        host = self.admission.host
        row = await host.adrive(ask(Describe(workflow_id)))
        if row is None or row.user != self.context.owner or host.function(row.name) is not self.declared.function:
            raise HTTPException(404)
        erased = row.ended_at if row.erased else None
        return await self._told(workflow_id, Outcome(row.status, row.output, row.error, erased))

    def _call(self, using: Using) -> Declaration:
        return Declaration(self.declared.function, self.declared.instance, using)

    # ── A workflow ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _start(self, call: Declaration, values: dict[str, Any]) -> Any:
        host, context = self.admission.host, self.context
        looked = host.clock()
        with _refusing():
            begun = await _within(PATIENCE, host.adrive(begin(host, call, (), values, inline=False)))
        if begun is None:
            raise StoreUnavailable(f"The start of {call.name} was not durable within {PATIENCE} s.")
        context.replayed = begun.joined
        outcome = begun.outcome
        if outcome is None and context.wait > 0:
            outcome = await host.adrive(_ended(begun.id, host.now() + context.wait, looked))
        if outcome is None and begun.joined and context.wait <= 0 and not context.detached:
            raise HTTPException(409, BUSY, RETRY | self._located(begun.id))
        return await self._told(begun.id, outcome)

    async def _told(self, workflow_id: str, outcome: Outcome | None) -> Any:
        if outcome is None or not outcome.status.ended:
            return await self._accepted(workflow_id)
        self.context.workflow_id = workflow_id
        with _failing(workflow_id):
            return conclude(self.admission.host, workflow_id, self.declared.function, outcome)

    async def _accepted(self, workflow_id: str) -> Response:
        row = await self.admission.host.adrive(ask(Describe(workflow_id)))
        if row is None:
            raise HTTPException(404)
        created = at(row.created_at).isoformat()
        preference = {"Preference-Applied": "respond-async"} if self.context.detached else {}
        headers = RETRY | self._located(workflow_id) | preference
        return JSONResponse({"status": row.status, "created_at": created}, 202, headers)

    def _located(self, workflow_id: str) -> dict[str, str]:
        path = self.admission.status_path.format(token=keys.token(workflow_id))
        return {"Location": prefix(self.request.scope) + path}

    # ── One transaction ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _commit(self, call: Declaration, values: dict[str, Any]) -> Any:
        """Run a transaction as a workflow of one commit; whoever else is at work with its key is waited for."""
        host, key = self.admission.host, call.options.key
        until, pause = host.clock() + self.context.wait, 0.005
        while True:
            if key is not None and await host.adrive(ask(Describe(key))) is not None:
                return await self._start(call, values)
            with _refusing():
                row = new_row(host, call, (), values)
            work = self._run(row.id, _tried(attempt(host, call, (), values, row)))
            done = await _within(None if key is None else until - host.clock(), work)
            if done is not None:
                self.context.workflow_id = row.id
                return done[0]
            if host.clock() >= until:
                raise HTTPException(409, BUSY, RETRY)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.5)

    async def _run(self, workflow_id: str | None, op: Op[T]) -> T:
        host, app = self.admission.host, self.admission.app
        with _failing(workflow_id):
            if self.declared.function.asynchronous:
                return await host.adrive(op)
            return await _threaded(host, lambda: app.around(lambda: host.drive(op)), min(self.context.wait, PLACE))


@contextmanager
def _refusing() -> Generator[None]:
    try:
        yield
    except tuple(REFUSALS) as error:
        raise HTTPException(*REFUSALS[type(error)]) from error


@contextmanager
def _failing(workflow_id: str | None) -> Generator[None]:
    try:
        yield
    except (HTTPException, StoreUnavailable, NotLaunched):
        raise
    except Exception as error:
        raise Failed(workflow_id) from error


async def _within(seconds: float | None, work: Coroutine[Any, Any, T]) -> T | None:
    """Await some work for so long; it goes on, whether the time is over or the client is gone."""
    task = asyncio.create_task(work)
    _running.add(task)
    task.add_done_callback(_forget)
    await asyncio.wait({task}, timeout=seconds)
    return task.result() if task.done() else None


def _forget(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled():
        task.exception()


async def _threaded(host: object, work: Callable[[], T], seconds: float) -> T:
    """Run blocking work on a thread that is there for requests, if one is free within so many seconds.

    Raises:
        HTTPException: 503, none was; the work was not begun, and will not be.
    """
    done: Future[T] = Future()
    begun: Future[None] = Future()

    def run() -> None:
        if not begun.set_running_or_notify_cancel():
            return
        done.set_running_or_notify_cancel()
        begun.set_result(None)
        try:
            done.set_result(contextvars.Context().run(work))
        except BaseException as error:
            done.set_exception(error)

    pool = cast("Engine", host).requests
    if not pool.offer(run, WAITING * pool.limit):
        raise HTTPException(503, FULL, RETRY)
    try:
        async with asyncio.timeout(seconds):
            await bridged(begun)
    except TimeoutError:
        if begun.cancel():
            raise HTTPException(503, FULL, RETRY) from None
    except asyncio.CancelledError:
        begun.cancel()
        raise
    return await bridged(done)


def _ended(workflow_id: str, until: float, looked: float) -> Op[Outcome | None]:
    """Wait until a workflow that was looked at just now has ended or is held; None if it takes longer."""
    seen = yield from ask(Wait(None, until, (workflow_id,), looked))
    return seen.get(workflow_id)


def _tried(op: Op[T]) -> Op[tuple[T] | None]:
    """Give None where somebody else is at work with the same key."""
    try:
        return ((yield from op),)
    except Busy:
        return None
