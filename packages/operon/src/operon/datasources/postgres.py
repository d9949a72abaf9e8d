"""How a transaction begins on Postgres, whatever the driver; it must not know any."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from operon.core.addresses import NETWORK

if TYPE_CHECKING:
    from operon.core.ledger import Work

ENCODING = {"client_encoding": "utf8"}
"""In which every record can be written, whatever a role or a database has set."""
OPTIONS = {
    "TCP_KEEPIDLE": NETWORK["keepalives_idle"],
    "TCP_KEEPINTVL": NETWORK["keepalives_interval"],
    "TCP_KEEPCNT": NETWORK["keepalives_count"],
    "TCP_USER_TIMEOUT": NETWORK["tcp_user_timeout"],
}
"""What libpq is told of the network, for a socket; what a platform does not have is left out."""
CANCELLING = 5.0
"""Seconds that a server is given to take the word that a statement is to be cancelled."""
UNSAFE = re.compile(r"[^\w .<>:-]", re.ASCII)


def begin(work: Work, idle: float) -> str:
    """Spell the beginning of a transaction, in one message."""
    return f"begin isolation level {work.isolation}; {settings(work, idle)}"


def settings(work: Work, idle: float) -> str:
    """Spell what holds until the transaction ends, whatever its role or database has set.

    After `idle` seconds without a statement the server ends it, so that what it has locked is free again about when
    the lease of a stopped process is over. The name is seen in `pg_stat_activity`, and taken off at the end of the
    transaction; the server reports that by itself, so we know without asking whether it is still the one we began.
    """
    mode = "read only" if work.read_only else "read write"
    name = UNSAFE.sub("?", f"operon: {work.name}")[:63]
    return (
        f"set transaction {mode}; set local idle_in_transaction_session_timeout = {idle * 1000:.0f}; "
        f"set local application_name = '{name}'"
    )


def network(address: str) -> dict[str, int]:
    """Give what libpq is to know of the network, but what the address says itself."""
    return {key: value for key, value in NETWORK.items() if f"{key}=" not in address}


def watch(connected: Any) -> None:
    """Set the same on the socket of a driver that does not know these parameters."""
    if connected is not None and connected.family in {socket.AF_INET, socket.AF_INET6}:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in OPTIONS.items():
            if hasattr(socket, name):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def sever(descriptor: int) -> None:
    """Break a connection from another thread: whoever waits for an answer on it gets an error."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connected:
        connected.shutdown(socket.SHUT_RDWR)
