"""A relay between a client and Postgres, which counts round trips, and can lose what the server says."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from children import joined

if TYPE_CHECKING:
    from collections.abc import Callable

ROUND_TRIPS = {b"Q": "query", b"S": "sync"}
"""The messages after which a client waits for the server."""


class Relay:
    """Listens on a port of its own and passes everything on, both ways."""

    def __init__(self, url: str) -> None:
        given = conninfo_to_dict(url)
        self._server = str(given["host"]), int(given["port"] or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = make_conninfo(url, host="127.0.0.1", port=self._listener.getsockname()[1])
        self.trips = 0
        """How often a client has waited for the server."""
        self._links: list[tuple[socket.socket, socket.socket]] = []
        self._cut: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._counting = threading.Lock()
        self._start(self._accept)

    def cut(self) -> None:
        """Close the clients' ends; the server notices nothing. Whoever connects from now on is heard."""
        links, self._links = self._links, []
        self._cut += links
        for client, _ in links:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close everything."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in (*self._links, *self._cut):
            for end in link:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            joined(thread)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                link = client, server
                self._links.append(link)
                self._start(self._ask, *link)
                self._start(self._answer, link)

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what the client says; when it leaves, the server is left waiting."""
        buffer, greeted = b"", False
        with suppress(OSError):
            while data := client.recv(65536):
                buffer += data
                while (length := message_length(buffer, greeted=greeted)) and len(buffer) >= length:
                    if greeted and buffer[:1] in ROUND_TRIPS:
                        self._count()
                    greeted = greeted or struct.unpack_from("!h", buffer, 4)[0] == 3
                    buffer = buffer[length:]
                server.sendall(data)

    def _count(self) -> None:
        with self._counting:
            self.trips += 1

    def _answer(self, link: tuple[socket.socket, socket.socket]) -> None:
        client, server = link
        with suppress(OSError), client, server:
            while data := server.recv(65536):
                if link in self._links:
                    client.sendall(data)


def message_length(buffer: bytes, *, greeted: bool) -> int:
    """How long the message is that begins here; the first ones of a connection have no letter. 0: not known yet."""
    if len(buffer) < 8 and not (greeted and len(buffer) >= 5):
        return 0
    length: int = struct.unpack_from("!i", buffer, int(greeted))[0]
    return length + greeted
