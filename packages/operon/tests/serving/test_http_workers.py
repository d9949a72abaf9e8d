"""The whole of it: real workers under uvicorn, one of them killed in the middle of a request."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import httpx2
import psycopg
import pytest

from children import PATIENCE, started

pytestmark = [pytest.mark.slow, pytest.mark.anyio]
TESTS = Path(__file__).parents[1]


@pytest.fixture
def server(postgres_url: str) -> Generator[str]:
    """Two workers on one port and one database; its output is shown when a test fails."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute("create table effects (n int)")
        connection.execute("create table deaths (n int primary key)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = (sys.executable, "-m", "uvicorn", "serving.shop_under_uvicorn:app", "--workers", "2", "--port", str(port))
    path = os.pathsep.join([str(TESTS), os.environ["PYTHONPATH"]])
    environment = os.environ | {"OPERON_DATABASE_URL": postgres_url, "PYTHONPATH": path}
    with started(*command, env=environment, stderr=subprocess.STDOUT) as process:
        try:
            for _ in range(2):
                process.says("startup complete")
            yield f"http://127.0.0.1:{port}"
            assert process.ends(signal.SIGTERM) in {0, -signal.SIGTERM}
        finally:
            print(process)


async def answered(client: httpx2.AsyncClient, method: str, path: str, **headers: str) -> httpx2.Response:
    """Ask as a client with patience does: again when the connection breaks, or the server says so."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                answer = await client.request(method, path, headers=headers)
            except httpx2.TransportError:
                continue
            if answer.status_code not in {409, 503}:
                return answer


async def test_worker_killed_in_the_middle_of_a_request(server: str, postgres_url: str) -> None:
    """The worker that runs the workflow is killed; the retry reaches another: one effect, one answer."""
    async with httpx2.AsyncClient(base_url=server, timeout=60) as client:
        async with asyncio.timeout(PATIENCE):
            while len({(await answered(client, "GET", "/pid", connection="close")).json() for _ in range(8)}) < 2:
                pass
        answer = await answered(client, "POST", "/transfers?n=7", **{"idempotency-key": "k"})
        again = await answered(client, "POST", "/transfers?n=7", **{"idempotency-key": "k"})
        assert answer.json()[0] == 7
        assert again.json() == answer.json()
        assert (await answered(client, "GET", "/readyz")).status_code == 200
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("select n from effects").fetchall() == [(7,)]
        assert connection.execute("select count(*) from deaths").fetchone() == (1,)
        claims = connection.execute(
            "select claim from operon.workflows where id = 'http:POST /transfers::k'"
        ).fetchone()
        assert claims is not None
        assert claims[0] > 1
