"""A TCP proxy before Postgres that loses a connection, or holds it up, at a chosen message; it knows no protocol."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from enum import Enum
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from children import PATIENCE

CHUNK = 65536


class Fault(Enum):
    """What befalls the message."""

    LOST = "the connection breaks before the server gets it"
    ANSWER_LOST = "the server does it, and the connection breaks before its answer comes back"
    HELD = "it waits before the server until released"
    ANSWER_HELD = "the server does it, and its answer waits until released"


@dataclass(eq=False)
class Rule:
    """One fault, for the first message that holds these bytes, once it is armed."""

    match: bytes
    fault: Fault
    armed: bool = True
    met: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def fits(self, message: bytes) -> bool:
        """Whether this is the one; only once."""
        with self._mutex:
            fits = self.armed and self.match in message
            self.armed = self.armed and not fits
            return fits

    def await_met(self) -> None:
        """Wait until it has happened."""
        assert self.met.wait(PATIENCE), f"no message with {self.match!r} came by"

    def await_released(self) -> None:
        """Wait until the test lets it go on."""
        assert self.released.wait(PATIENCE), f"the message with {self.match!r} was not released"


class Proxy:
    """Stands before a server; `url` is the way through it."""

    def __init__(self, url: str, *rules: Rule) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._rules = rules
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        credentials = parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{port}"))
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for rule in self._rules:
            rule.released.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)
        for end in self._sockets:
            _break(end)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets += (client, server)
                link = Link(client, server, self._rules)
                threading.Thread(target=link.upwards, daemon=True).start()
                threading.Thread(target=link.downwards, daemon=True).start()


class Link:
    """One connection through the proxy."""

    def __init__(self, client: socket.socket, server: socket.socket, rules: tuple[Rule, ...]) -> None:
        self._client = client
        self._server = server
        self._rules = rules
        self._answered: Rule | None = None

    def upwards(self) -> None:
        """Carry what the client says, until one of them is gone."""
        with contextlib.suppress(OSError):
            while message := self._client.recv(CHUNK):
                rule = next((rule for rule in self._rules if rule.fits(message)), None)
                match rule.fault if rule else None:
                    case Fault.LOST if rule:
                        rule.met.set()
                        break
                    case Fault.HELD if rule:
                        rule.met.set()
                        rule.await_released()
                    case _:
                        self._answered = rule
                self._server.sendall(message)
        self._break()

    def downwards(self) -> None:
        """Carry what the server answers."""
        with contextlib.suppress(OSError):
            while answer := self._server.recv(CHUNK):
                rule, self._answered = self._answered, None
                if rule is not None:
                    rule.met.set()
                    if rule.fault is Fault.ANSWER_LOST:
                        break
                    rule.await_released()
                self._client.sendall(answer)
        self._break()

    def _break(self) -> None:
        _break(self._client)
        _break(self._server)


def _break(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
