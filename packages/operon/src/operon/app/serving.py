"""The app as an ASGI application. What serves it is made, by `site_of`, when it is first asked for."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from fastapi import FastAPI

Message = MutableMapping[str, Any]


class Site(Protocol):
    """An app's endpoints on a FastAPI application."""

    def settle(self) -> FastAPI:
        """Serve what was declared since the last time."""
        ...


class Serving:
    """What makes an app an ASGI application, for any server: `uvicorn shop:app --workers 2`."""

    site_of: ClassVar[Callable[[Any], Site]]
    """Makes the site of an app. The package's `__init__` sets it, which knows the app and what serves it."""

    @cached_property
    def _site(self) -> Site:
        return type(self).site_of(self)

    @property
    def http(self) -> FastAPI:
        """The FastAPI application behind this one, with all endpoints declared so far: for middleware and routers."""
        return self._site.settle()

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
