"""How a transaction begins on Postgres, whatever the driver; it must not know any."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from operon.core.ledger import Work

ENCODING = {"client_encoding": "utf8"}
"""In which every record can be written, whatever a role or a database has set."""
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
