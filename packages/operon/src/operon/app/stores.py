"""Which store a database URL means."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from operon.core.addresses import POSTGRES, address, rendered
from operon.errors import BadValue

if TYPE_CHECKING:
    from operon.core.store import Store


def default_url(name: str) -> str:
    """Find the database: `OPERON_DATABASE_URL`, else `DATABASE_URL`, else a SQLite file named like the app."""
    plain = "".join(it if it.isalnum() or it in "-_" else "-" for it in name)
    return os.environ.get("OPERON_DATABASE_URL") or os.environ.get("DATABASE_URL") or f"sqlite:///{plain}.db"


def store_for(database: object) -> Store:
    """Make the store for a URL, a path, or the user's own engine or pool; a store is taken as it is.

    Raises:
        BadValue: it is none of these.
    """
    database = address(database)
    url = database if isinstance(database, str) else url_of(database)
    if url is None:
        return database  # type: ignore[return-value] # a caller that passes an object of its own knows the protocol
    if url == "memory:":
        from operon.stores.memory import MemoryStore

        return MemoryStore()
    if url.startswith("sqlite"):
        from operon.stores.sqlite import SqliteStore

        return SqliteStore(url)
    from operon.stores.postgres import PostgresStore

    return PostgresStore(POSTGRES.sub("postgresql://", url))


def url_of(database: Any) -> str | None:
    """Give the URL that an SQLAlchemy engine connects to, or the connection string of a psycopg pool."""
    if hasattr(database, "sync_engine"):
        database = database.sync_engine
    url: Any = getattr(database, "url", None)
    if hasattr(url, "render_as_string"):
        return str(address(rendered(url)))
    conninfo = getattr(database, "conninfo", None)
    if isinstance(conninfo, str) and hasattr(database, "getconn"):
        return conninfo
    if hasattr(database, "ask") and hasattr(database, "submit"):
        return None
    raise BadValue(f"database= takes a URL, a SQLAlchemy Engine or a psycopg pool, not a {type(database).__name__}.")
