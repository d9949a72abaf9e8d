"""What an error of a database means for a transaction, as one table; it must not know who met it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from enum import Enum

from operon.core.retry import Retry


class Fault(Enum):
    """Why a transaction is tried again, and how long."""

    CONFLICT = Retry(retries=200, backoff=0.004, cap=0.5)
    """Another was faster: it met our rows, or has our record."""
    LOST = Retry(retries=20, backoff=0.05, cap=5.0)
    """The database is out of reach or out of means for now; a minute of patience."""
    IDLE = Retry(retries=3, backoff=0.05)
    """The server ended the transaction because it did nothing for too long."""


SQLSTATES = {
    "08": Fault.LOST,  # connection exceptions
    "40001": Fault.CONFLICT,  # serialization failure
    "40003": Fault.LOST,  # statement completion unknown
    "40P01": Fault.CONFLICT,  # deadlock
    "53": Fault.LOST,  # no connections, memory or disk left
    "57P01": Fault.LOST,  # terminated by an administrator, or by a new owner
    "57P02": Fault.LOST,  # the server crashed
    "57P03": Fault.LOST,  # the server is starting or stopping
    "57P05": Fault.IDLE,  # idle session timeout
    "25P03": Fault.IDLE,  # idle in transaction
    "25P04": Fault.IDLE,  # transaction timeout
    "25006": Fault.LOST,  # read-only: a standby, unless it was declared so
}
"""By state, or its class of two characters; any other is final. 55P03 is too: a user says `nowait` to see it."""

STANDBY = {"0A000", "25P01"}
"""What a standby says to whoever begins to write there; a driver that overlooks it, that nothing has begun."""
SQLITE = {
    sqlite3.SQLITE_BUSY: "53000",
    sqlite3.SQLITE_LOCKED: "53000",
    sqlite3.SQLITE_PROTOCOL: "53000",
    sqlite3.SQLITE_FULL: "53100",
    sqlite3.SQLITE_IOERR: "53000",
    sqlite3.SQLITE_READONLY: "25006",
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: "23505",
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: "23505",
}
"""What SQLite's result codes are in the standard's terms."""


def sqlstate(error: BaseException, beside: BaseException | None = None) -> str | None:
    """Find the standard's code of a database error, in it or in what it was raised from.

    That a connection was lost says less than why, where both are told.

    Args:
        error: what was raised.
        beside: what the caller was handling, which has nothing to do with it.
    """
    codes = [code for cause in _causes(error, beside) if (code := _code(cause)) is not None]
    return next((code for code in codes if not code.startswith("08")), codes[0] if codes else None)


def fault(code: str | None) -> Fault | None:
    """Say whether the transaction may be tried again."""
    return None if code is None else SQLSTATES.get(code) or SQLSTATES.get(code[:2])


def _code(error: BaseException) -> str | None:
    code: object = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if isinstance(code, str):
        return code
    result: object = getattr(error, "sqlite_errorcode", None)
    return SQLITE.get(result) or SQLITE.get(result & 0xFF) if isinstance(result, int) else None


def _causes(error: BaseException | None, beside: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException | None] = [beside]
    while error is not None and not any(error is each for each in seen):
        seen.append(error)
        yield error
        original: object = getattr(error, "orig", None)  # SQLAlchemy's
        if isinstance(original, BaseException):
            yield original
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
