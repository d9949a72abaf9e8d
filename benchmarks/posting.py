"""A client of HTTP that does one thing, so that it takes little of the machine that it measures; no other library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

PATIENCE = 300.0


class Poster:
    """One connection, over which one request is sent after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def post(self, path: str, *headers: str, body: bytes = b"") -> bytes:
        """Send a request, and read the answer.

        Raises:
            RuntimeError: it is no success.
        """
        lines = (f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers, "", "")
        self._writer.write("\r\n".join(lines).encode() + body)
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), PATIENCE)
        known = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
        if "content-length" in known:
            answer = await self._reader.readexactly(int(known["content-length"]))
        else:
            answer = await self._chunks()
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"{head!r} {answer!r}")
        return answer

    async def _chunks(self) -> bytes:
        answer = b""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            answer += await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)
        return answer


@asynccontextmanager
async def connected(port: int) -> AsyncGenerator[Poster]:
    """Open a connection to a port of loopback."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Poster(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()
