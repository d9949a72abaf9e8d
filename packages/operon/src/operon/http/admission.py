"""Admitting a request to an endpoint: who makes it, with which key, and how long it waits for its workflow."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from inspect import isawaitable, iscoroutinefunction

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from operon.app.app import Operon
from operon.app.endpoints import Endpoint
from operon.core.function import Using
from operon.core.host import Host
from operon.core.ids import checked, names
from operon.errors import BadValue, NotLaunched
from operon.http import keys
from operon.types import User

TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
REQUEST_ID = re.compile(r"[!-~]{1,128}")
RESPOND_ASYNC = re.compile(r"(?:^|[,;\s])respond-async(?:$|[,;\s])", re.IGNORECASE)
WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*(\d{1,6})(?:$|[,;\s])", re.IGNORECASE)


@dataclass(slots=True)
class RequestContext:
    """What is known of one request, before its body is read; and later, which workflow it led to."""

    user: User | None
    owner: str | None
    """The user's name as it is recorded: "" for nobody, None where the app knows no users."""
    key: str | None
    wait: float
    detached: bool
    """The client asked not to wait (`Prefer: respond-async`)."""
    request_id: str | None
    traceparent: str | None
    workflow_id: str | None = None
    replayed: bool = False
    """The answer is that of an earlier request."""


@dataclass(frozen=True, slots=True)
class Admission:
    """One endpoint, and what a request needs to be let in to it."""

    app: Operon
    endpoint: Endpoint

    @property
    def route(self) -> str:
        """Method and path: what a key belongs to, beside its user."""
        return f"{self.endpoint.method} {self.endpoint.path}"

    @property
    def name(self) -> str:
        """What the route behind its `Location`s is called; the same in every process and version."""
        return f"operon-{blake2b(self.route.encode(), digest_size=6).hexdigest()}"

    @property
    def status_path(self) -> str:
        """Where its `Location`s are."""
        return f"/operon/workflows/{self.name.removeprefix('operon-')}/{{token}}"

    @property
    def roles(self) -> tuple[str, ...]:
        """One of these is needed."""
        declared = self.endpoint.durable
        return self.endpoint.roles if declared is None else declared.function.rules.roles

    @property
    def host(self) -> Host:
        """The launched app.

        Raises:
            NotLaunched: it is not, or not any more.
        """
        if self.app.host is None:
            raise NotLaunched(f"{self.app.name} is not launched.")
        return self.app.host

    async def admit(self, request: Request) -> RequestContext:
        """Look at the headers: authenticate, and read the key and the preferences.

        Raises:
            HTTPException: 400, 401, 403 or 413.
        """
        if _length(request) > self.endpoint.max_body:
            raise too_large(self.endpoint.max_body)
        user = await self._user(request)
        prefer = ",".join(request.headers.getlist("prefer"))
        detached = RESPOND_ASYNC.search(prefer) is not None
        patience = WAIT.search(prefer)
        wait = float(patience[1]) if patience else 0.0 if detached else self.endpoint.wait
        return RequestContext(
            user=user,
            owner=user.name if user is not None else None if self.app.authenticate is None else "",
            key=keys.parse(request.headers.getlist("idempotency-key")) if self.endpoint.method != "GET" else None,
            wait=min(wait, self.endpoint.wait),
            detached=detached,
            request_id=_matching(REQUEST_ID, request.headers.get("x-request-id")),
            traceparent=_matching(TRACEPARENT, request.headers.get("traceparent")),
        )

    def using(self, context: RequestContext) -> Using:
        """Give the options of the call that a request makes."""
        return Using(
            key=None if context.key is None else keys.workflow_id(self.route, context.owner, context.key),
            user=context.owner,
            roles=tuple(context.user.roles) if context.user is not None else (),
            request_id=context.request_id,
            traceparent=context.traceparent,
        )

    def fresh_id(self) -> str:
        """Make an id for a request without a key, which nobody can guess."""
        return f"{keys.PREFIX}{self.host.new_id()}{self.host.random.getrandbits(64):016x}"

    async def _user(self, request: Request) -> User | None:
        if self.app.authenticate is None or not (self.roles or self.endpoint.durable):
            return None
        user = await _call(self.app.authenticate, request)
        if user is not None and not (isinstance(user, User) and user.name):
            raise BadValue(f"authenticate() gave {user!r}; give a User with a name, or None.")
        if user is not None:
            checked(user.name, "authenticate() gave a User whose name", BadValue)
            names(user.roles, "The roles of a User", "A role of a User", BadValue)
        if user is None and self.roles:
            raise HTTPException(401, "Say who you are.", {"WWW-Authenticate": "Bearer"})
        if user is not None and self.roles and not set(self.roles).intersection(user.roles):
            raise HTTPException(403, f"This needs one of the roles {', '.join(self.roles)}.")
        return user


def too_large(limit: int) -> HTTPException:
    """Make the refusal of a body that is too large."""
    return HTTPException(413, f"The request's body is larger than {limit} bytes.")


async def _call(authenticate: Callable[[Request], object], request: Request) -> object:
    """Call it; off the loop if it may block."""
    if iscoroutinefunction(authenticate):
        return await authenticate(request)
    user = await run_in_threadpool(authenticate, request)
    return await user if isawaitable(user) else user


def _length(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


def _matching(pattern: re.Pattern[str], given: str | None) -> str | None:
    return given if given is not None and pattern.fullmatch(given) else None
