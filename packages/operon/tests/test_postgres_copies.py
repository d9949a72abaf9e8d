"""A physical copy of a cluster does not go on with the original's work; the original does, wherever it is moved."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from children import PATIENCE, eventually
from operon import Client, Operon
from operon.embedded import Postgres
from operon.errors import ForeignDatabase
from operon.stores.postgres import PostgresStore, schema
from test_embedded import reachable_directory


@pytest.fixture
def directory() -> Iterator[Path]:
    for directory in reachable_directory():
        directory.chmod(0o755)  # else a server that root starts has its files elsewhere
        yield directory


def test_a_copy_is_refused_until_it_is_adopted_and_the_original_is_not(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "WATCHED", 0.5)
    original, copy, moved = directory / "original", directory / "copy", directory / "moved"
    with Postgres(original) as server:
        url = server.create_database("shop")
        with closing(PostgresStore(url)) as store:
            store.open()
        with psycopg.connect(url) as connection:
            (place,) = connection.execute("select place from operon.identity").fetchone() or ("",)
    made = float(place)
    eventually(lambda: time.time() >= made + 2, "another second, for Postgres tells no more of a file's time")
    shutil.copytree(original, copy, symlinks=True)
    for path in (original, *original.rglob("*")):
        owner = path.lstat()
        os.chown(copy / path.relative_to(original), owner.st_uid, owner.st_gid, follow_symlinks=False)
    with Postgres(copy) as server:
        url = server.database_url("shop")
        with closing(PostgresStore(url)) as store:
            for _ in range(2):
                with pytest.raises(ForeignDatabase, match=r"files were made.*adopt=True"):
                    store.open()
        app = Operon("shop", database=url)
        with pytest.raises(ForeignDatabase):
            app.launch()
        with pytest.raises(ForeignDatabase), Client(url):
            pass
        app.launch(adopt=True)
        app.close()
        app.launch()
        app.close()
    original.rename(moved)
    with Postgres(moved) as server, closing(PostgresStore(server.database_url("shop"))) as store:
        store.open()


def test_a_standby_that_took_over_with_its_clients_needs_nobody(
    ready_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is launched there sees a process beat that was there before."""
    monkeypatch.setattr(schema, "WATCHED", PATIENCE)
    old = Operon("old", database=ready_postgres_url, lease=1.0)
    new = Operon("new", database=ready_postgres_url)
    with old, psycopg.connect(ready_postgres_url, autocommit=True) as connection:
        connection.execute("update operon.identity set place = '1700000000'")
        new.launch()
        new.close()
        (place,) = connection.execute("select place from operon.identity").fetchone() or ("",)
        assert place != "1700000000"
        connection.execute("update operon.identity set place = '1700000000'")
    monkeypatch.setattr(schema, "WATCHED", 0.5)
    with pytest.raises(ForeignDatabase, match="2023-11-14 22:13:20 UTC"):
        new.launch()
    with psycopg.connect(ready_postgres_url) as connection:
        connection.execute("update operon.identity set place = %s", [place])  # the database is lent again


def test_what_was_there_before_places_were_known_learns_its_own(ready_postgres_url: str) -> None:
    with psycopg.connect(ready_postgres_url, autocommit=True) as connection:
        with closing(PostgresStore(ready_postgres_url)) as store:
            store.open()
        connection.execute("update operon.identity set place = null")
        with closing(PostgresStore(ready_postgres_url)) as store:
            store.open()
        assert connection.execute("select era, place is null from operon.identity").fetchall() == [(1, False)]
