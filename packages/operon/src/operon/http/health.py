"""Whether this process is alive, and whether it can do its work; for load balancers and Kubernetes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Future

from starlette.responses import JSONResponse, Response

from operon.app.app import Operon
from operon.core.commands import Look
from operon.core.rows import Outcome
from operon.errors import StoreError
from operon.http.problems import RETRY, problem

PATIENCE = 2.0


class Health:
    """The two probes of one app."""

    def __init__(self, app: Operon) -> None:
        self._app = app
        self._probe: Future[Mapping[str, Outcome]] | None = None

    async def alive(self) -> Response:
        """Say yes: the process answers."""
        return JSONResponse({"status": "ok"})

    async def ready(self) -> Response:
        """Ask the database, in the tables that the launch has migrated; 503 when that takes more than two seconds."""
        host = self._app.host
        if host is None:
            return problem(503, "Not launched.", headers=RETRY)
        try:
            # One question at a time: probes must not pile up while the database is out of reach.
            if self._probe is None or self._probe.done():
                self._probe = host.store.submit(Look(("readyz",)))
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._probe)), PATIENCE)
        except (TimeoutError, StoreError) as error:
            return problem(503, f"The database does not answer ({type(error).__name__}).", headers=RETRY)
        return JSONResponse({"status": "ready"})
