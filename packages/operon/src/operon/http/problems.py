"""Errors as the client sees them: RFC 9457 problems. What a user's exception says stays here, in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError, ResponseValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from operon.errors import NotLaunched, RecordDeleted, StoreUnavailable, WorkflowCancelled, WorkflowTimedOut

log = logging.getLogger("operon")
MEDIA_TYPE = "application/problem+json"
RETRY = {"Retry-After": "1"}
NOT_LAUNCHED = "The app is not launched here: it starts, or stops. Try again, with the same Idempotency-Key."
UNAVAILABLE = "The database is out of reach for now; try again, with the same Idempotency-Key."
BODILESS = {204, 205, 304}


class Failed(Exception):
    """A workflow has no answer to give; `__cause__` is why."""

    def __init__(self, workflow_id: str | None) -> None:
        super().__init__(workflow_id)
        self.workflow_id = workflow_id


def problem(status: int, detail: Any = None, *, headers: Mapping[str, str] | None = None, **members: Any) -> Response:
    """Make the response that tells of an error."""
    if status in BODILESS:
        return Response(status_code=status, headers=headers)
    title = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error"
    body = {"type": "about:blank", "title": title, "status": status}
    if detail is not None and detail != title:
        body["detail"] = detail
    return JSONResponse(body | members, status, headers, media_type=MEDIA_TYPE)


async def _refused(request: Request, error: HTTPException) -> Response:
    del request
    return problem(error.status_code, error.detail, headers=error.headers)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    del request
    faults = [{"loc": list(it["loc"]), "msg": it["msg"], "type": it["type"]} for it in error.errors()]
    return problem(422, "The request does not fit what is declared.", errors=faults)


async def _unavailable(request: Request, error: Exception) -> Response:
    log.warning("%s %s is answered 503: %s", request.method, request.url.path, error)
    return problem(503, NOT_LAUNCHED if isinstance(error, NotLaunched) else UNAVAILABLE, headers=RETRY)


async def _failed(request: Request, error: Failed) -> Response:
    cause = error.__cause__
    if isinstance(cause, WorkflowCancelled):
        return problem(409, "The workflow was cancelled; a new request needs a new key.", workflow=error.workflow_id)
    if isinstance(cause, RecordDeleted):
        return problem(410, "The request was answered long ago, and the answer was deleted since.")
    if isinstance(cause, WorkflowTimedOut):
        return problem(504, "The workflow passed its deadline and was stopped.", workflow=error.workflow_id)
    log.error("%s %s failed in workflow %s.", request.method, request.url.path, error.workflow_id, exc_info=cause)
    return problem(500, "The workflow failed.", workflow=error.workflow_id)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed.", request.method, request.url.path, exc_info=error)
    known = getattr(request.scope.get("operon.context"), "workflow_id", None)
    members = {} if known is None else {"workflow": known}
    if isinstance(error, ResponseValidationError):
        return problem(500, "The result does not fit the response model.", **members)
    return problem(500, **members)


HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    HTTPException: _refused,
    RequestValidationError: _invalid,
    StoreUnavailable: _unavailable,
    NotLaunched: _unavailable,
    Failed: _failed,
    Exception: _unexpected,
}
"""Who answers which exception; the most special class wins."""

_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {},
        "errors": {"type": "array", "items": {"type": "object"}},
        "workflow": {"type": "string"},
    },
}


def documented(description: str) -> dict[str, Any]:
    """Describe a problem in OpenAPI."""
    return {"description": description, "content": {MEDIA_TYPE: {"schema": _SCHEMA}}}
