"""The app as an ASGI application: the one way from here out to `operon.http`, taken when somebody asks for it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

Message = MutableMapping[str, Any]


class Serving:
    """What makes an app an ASGI application, for any server: `uvicorn shop:app --workers 2`."""

    @cached_property
    def _site(self) -> Any:
        # By name, since arrows point inwards: `operon.http` knows the app, and the app only that there is such a thing.
        return import_module("operon.http").Site.of(self)

    @property
    def http(self) -> FastAPI:
        """The FastAPI application behind this one, with all endpoints declared so far: for middleware and routers."""
        api: FastAPI = self._site.settle()
        return api

    @property
    def raises(self) -> tuple[type[BaseException], ...]:
        """HTTPException: any function may record it as itself. Whoever raised it has imported it."""
        exceptions = sys.modules.get("starlette.exceptions")
        return () if exceptions is None else (exceptions.HTTPException,)

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Serve one connection, or the server's own lifespan: its startup launches the app, its shutdown closes it."""
        await self.http(scope, receive, send)
