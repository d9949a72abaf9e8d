"""A FastAPI route that admits requests first and answers errors as problems; no other route is touched."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial, wraps
from inspect import Parameter, Signature
from typing import Any, cast

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from operon.app.declarations import Declaration
from operon.core.codec.hints import hints_of
from operon.http import keys
from operon.http.admission import Admission, too_large
from operon.http.answering import Exchange
from operon.http.problems import HANDLERS

REQUEST = "operon_request"
"""The one parameter that FastAPI fills and that is no input."""


class AdmittingRoute(APIRoute):
    """Admits a request before its body is read, bounds the body, and answers errors as problems."""

    def __init__(self, admission: Admission, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self.admission = admission
        super().__init__(path, endpoint, **options)

    @classmethod
    def admitting(cls, admission: Admission) -> type[APIRoute]:
        """Give what FastAPI takes for a class of routes."""
        return cast("type[APIRoute]", partial(cls, admission))

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Look at the headers first; the rest is FastAPI's."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            request.scope["operon.context"] = await self.admission.admit(request)
            return await handler(request)

        return handle

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        # Where Starlette keeps the handlers of the application around this request: here they are ours.
        scope["starlette.exception_handlers"] = (HANDLERS, {})
        await super().handle(scope, _bounded(receive, self.admission.endpoint.max_body), _marked(scope, send))


def serving(admission: Admission, declared: Declaration) -> Callable[..., Awaitable[Any]]:
    """Make the function that FastAPI calls: the workflow's own parameters, and the request beside them."""

    @wraps(declared.fn)
    async def endpoint(**values: Any) -> Any:
        request: Request = values.pop(REQUEST)
        return await Exchange(admission, declared, request, request.scope["operon.context"]).answer(values)

    return _signed(endpoint, declared, declared.__signature__)


def telling(admission: Admission, declared: Declaration) -> Callable[..., Awaitable[Any]]:
    """Make the function behind a `Location`: the same answer, later."""

    async def endpoint(token: str, **values: Any) -> Any:
        request: Request = values.pop(REQUEST)
        return await Exchange(admission, declared, request, request.scope["operon.context"]).look(keys.named(token))

    token = Parameter("token", Parameter.KEYWORD_ONLY, annotation=str)
    return _signed(endpoint, declared, declared.__signature__.replace(parameters=[token]))


def _signed(
    endpoint: Callable[..., Awaitable[Any]], declared: Declaration, signature: Signature
) -> Callable[..., Awaitable[Any]]:
    hints = hints_of(declared.fn)
    parameters = [it.replace(annotation=hints.get(name, it.annotation)) for name, it in signature.parameters.items()]
    request = Parameter(REQUEST, Parameter.KEYWORD_ONLY, annotation=Request)
    result = hints.get("return", signature.return_annotation)
    setattr(endpoint, "__signature__", Signature([*parameters, request], return_annotation=result))
    return endpoint


def _bounded(receive: Receive, limit: int) -> Receive:
    total = 0

    async def bounded() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit:
            raise too_large(limit)
        return message

    return bounded


def _marked(scope: Scope, send: Send) -> Send:
    """Say in a header that the answer is that of an earlier request."""

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start" and getattr(scope.get("operon.context"), "replayed", False):
            message["headers"] = [*message["headers"], (b"idempotency-replayed", b"true")]
        await send(message)

    return marked
