"""Remember in one SQLite file: WAL, one writer at a time, many commands a commit. Must not know any business rule."""

from operon.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
