"""The site of an app: its endpoints on a FastAPI application, its own or one that is there already."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import FastAPIError

from operon.app.app import Operon
from operon.app.declarations import Declaration
from operon.app.endpoints import Endpoint
from operon.errors import DeclarationError
from operon.http.admission import Admission
from operon.http.health import Health
from operon.http.problems import HANDLERS, documented
from operon.http.route import AdmittingRoute, serving, telling

KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Makes the request safe to repeat: with the same key it is done once, and answered alike.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[0-9A-Za-z._~/+:-]+$"},
}
DURABLE: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "It goes on; the answer will be at `Location`.",
        "headers": {
            "Location": {"schema": {"type": "string", "format": "uri-reference"}},
            "Retry-After": {"schema": {"type": "integer"}},
        },
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["status", "created_at"],
                    "properties": {
                        "status": {"type": "string"},
                        "created_at": {"type": "string", "format": "date-time"},
                    },
                }
            }
        },
    },
    409: documented("A request with this Idempotency-Key is being worked on."),
}
ALL: dict[int | str, dict[str, Any]] = {
    422: documented("The request does not fit, or its Idempotency-Key came with another one before."),
    "default": documented("What went wrong."),
}


class Site:
    """One app on one FastAPI application."""

    def __init__(self, app: Operon, api: FastAPI) -> None:
        self.app = app
        self.api = api
        self._served: list[Endpoint] = []
        inner = api.router.lifespan_context

        @asynccontextmanager
        async def lifespan(api: FastAPI) -> AsyncGenerator[Any]:
            self.settle()
            async with self._launched(), inner(api) as state:
                yield state

        api.router.lifespan_context = lifespan

    @classmethod
    def of(cls, app: Operon) -> Site:
        """Make a site with a FastAPI application of its own, which answers every error as a problem."""
        site = cls(app, FastAPI(title=app.name, exception_handlers={**HANDLERS}, responses={**ALL}))
        site.open()
        return site

    def open(self) -> None:
        """Serve what does not depend on endpoints."""
        health = Health(self.app)
        self.api.add_api_route("/healthz", health.alive, include_in_schema=False)
        self.api.add_api_route("/readyz", health.ready, include_in_schema=False)

    def settle(self) -> FastAPI:
        """Serve what was declared since the last time.

        Raises:
            DeclarationError: an endpoint that FastAPI cannot serve.
        """
        for endpoint in self.app.endpoints():
            if not any(endpoint is it for it in self._served):
                self._served.append(endpoint)
                self._add(endpoint)
        return self.api

    def _add(self, endpoint: Endpoint) -> None:
        admission = Admission(self.app, endpoint)
        if admission.roles and self.app.authenticate is None:
            raise DeclarationError(
                f"{admission.route} needs a role, and nobody has one: give Operon(authenticate=...)."
            )
        try:
            if endpoint.durable is None:
                self._route(admission, endpoint.path, endpoint.target, {"responses": ALL, **endpoint.options})
            else:
                self._durable(admission, endpoint.durable)
        except FastAPIError as error:
            raise DeclarationError(f"{admission.route}: {error}") from error

    def _durable(self, admission: Admission, declared: Declaration) -> None:
        if declared.function.method and declared.instance is None:
            raise DeclarationError(
                f"{admission.route}: {declared.name} is a method; serve that of a registered object."
            )
        options = dict(admission.endpoint.options)
        options["responses"] = {**ALL, **DURABLE, **options.get("responses", {})}
        if admission.endpoint.method != "GET":
            extra = dict(options.get("openapi_extra") or {})
            options["openapi_extra"] = extra | {"parameters": [*extra.get("parameters", ()), KEY_PARAMETER]}
        self._route(admission, admission.endpoint.path, serving(admission, declared), options)
        hidden = options | {"name": admission.name, "include_in_schema": False, "operation_id": None}
        self._route(admission, admission.status_path, telling(admission, declared), hidden, method="GET")

    def _route(
        self, admission: Admission, path: str, target: Any, options: dict[str, Any], method: str | None = None
    ) -> None:
        self.api.router.add_api_route(
            path,
            target,
            methods=[method or admission.endpoint.method],
            route_class_override=AdmittingRoute.admitting(admission),
            **options,
        )

    @asynccontextmanager
    async def _launched(self) -> AsyncGenerator[None]:
        if self.app.host is not None:  # whoever launched it closes it
            yield
            return
        async with self.app:
            yield


def attach(app: Operon, api: FastAPI) -> None:
    """Serve an app's endpoints on a FastAPI application that is there already.

    Adds the endpoints, `/healthz` and `/readyz`, and the app's launch and close to the lifespan. The application's
    other routes, those of the same paths included, its middleware and its error handlers are left as they are.
    """
    site = Site(app, api)
    site.open()
    site.settle()
