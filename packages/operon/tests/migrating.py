"""A database as an earlier version of the schema left it, with workflows in it, migrated to today's."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest

from conformance.world import World
from operon.stores import migrations
from operon.stores.postgres import PostgresStore, schema
from operon.stores.postgres.session import Session
from operon.stores.sqlite import SqliteStore
from operon.stores.sqlite import store as sqlite_store

OLD_SQLITE = """insert into operon_workflows (
    id, name, status, claim, ready_at, created_at, ended_at, version, nonce, digest, input, attempts
) values (:id, 'greet', :status, :claim, :ready, 1.0, :ended, 'v0', 7, 'd', '[1]', 0)"""
OLD_POSTGRES = """insert into operon.workflows (
    id, name, status, claim, ready_at, created_at, ended_at, version, nonce, digest, input
)
values (
    %(id)s, 'greet', %(status)s, %(claim)s, to_timestamp(%(ready)s), to_timestamp(1), to_timestamp(%(ended)s), 'v0', 7,
    'd', '[1]'
)"""


def row(key: str, status: int, claim: int, ready: float | None = None, ended: float | None = None) -> dict[str, Any]:
    """Spell a workflow that was there before."""
    return {"id": key, "status": status, "claim": claim, "ready": ready, "ended": ended}


def only_migrate(session: Session, *_: object, **__: object) -> None:
    """Do what today's `open` does, as far as every version of the schema knows of it."""
    migrations.migrate(schema.Ledger(session), migrations.shipped(schema.PACKAGE))


@contextmanager
def migrated(url: str, number: int, rows: Sequence[dict[str, Any]]) -> Generator[World]:
    """Fill a database whose last migration was of this number, and bring it up to date."""
    shipped = migrations.shipped
    kind: Any = SqliteStore if url.startswith("sqlite") else PostgresStore

    def old(package: str) -> tuple[migrations.Migration, ...]:
        return tuple(it for it in shipped(package) if it.number <= number)

    with pytest.MonkeyPatch.context() as patch:
        for place in (sqlite_store, migrations):
            patch.setattr(place, "shipped", old)
        patch.setattr(schema, "prepare", only_migrate)
        with closing(kind(url)) as store:
            store.open()
    if kind is SqliteStore:
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            connection.executemany(OLD_SQLITE, rows)
    else:
        with psycopg.connect(url) as server:
            server.cursor().executemany(OLD_POSTGRES, rows)
    with closing(kind(url)) as store:
        store.open()
        yield World(store, lambda _: None)
