"""A store in Postgres: SQL in `.sql` files, one file a noun. Must not know who asks, nor why."""

from operon.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
