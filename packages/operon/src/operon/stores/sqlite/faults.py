"""What an error of SQLite means, as one table; it must not know who met it."""

from __future__ import annotations

import sqlite3

from operon.errors import StoreError, StoreUnavailable

FAULTS: dict[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_BUSY: (StoreUnavailable, "another process keeps it locked"),
    sqlite3.SQLITE_LOCKED: (StoreUnavailable, "another connection keeps a table locked"),
    sqlite3.SQLITE_PROTOCOL: (StoreUnavailable, "too many processes open it at the same moment"),
    sqlite3.SQLITE_FULL: (StoreUnavailable, "the disk is full: free some space"),
    sqlite3.SQLITE_READONLY: (StoreError, "it is read-only: make the file and its directory writable"),
    sqlite3.SQLITE_CANTOPEN: (StoreError, "it cannot be opened: create its directory, and let this user write there"),
    sqlite3.SQLITE_PERM: (StoreError, "this user may not open it"),
    sqlite3.SQLITE_IOERR: (StoreError, "the disk failed; see the system's log, then start again"),
    sqlite3.SQLITE_CORRUPT: (StoreError, "it is damaged: restore a backup, or try `sqlite3 FILE .recover`"),
    sqlite3.SQLITE_NOTADB: (StoreError, "it is no SQLite database"),
}
"""By primary result code: the error to raise, and what it tells. Any other is a plain StoreError."""


def explain(error: Exception, place: str) -> StoreError:
    """Say what went wrong, in our words and in SQLite's."""
    if isinstance(error, StoreError):
        return error
    kind, reason = FAULTS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, (StoreError, "it refused"))
    return kind(f"{place}: {reason} ({error}).")


def is_transient(error: Exception) -> bool:
    """Whether the same may succeed later."""
    return explain(error, "").transient
