"""A database's address that was mistyped is refused, and nobody is told its password."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from children import ran
from operon import Client, Operon
from operon.app.stores import store_for
from operon.core.addresses import address
from operon.datasources import Datasource
from operon.errors import BadValue, StoreUnavailable
from operon.stores.postgres import PostgresStore
from operon.stores.postgres.session import where

SLIPS = [
    "host=127.0.0.1 port=1 user=app password=hunter2 dbname=x",
    "password=hunter2 host=127.0.0.1",
    "//app:hunter2@127.0.0.1:1/x",
    "postgres:app:hunter2@127.0.0.1:1/x",
    "Postgresql://app:hunter2@127.0.0.1:1/x",
    "postgresql+psycopg2://app:hunter2@127.0.0.1:1/x",
    "jdbc:postgresql://127.0.0.1:1/x?user=app&password=hunter2",
    "mysql://app:hunter2@127.0.0.1:1/x",
    "sqlite+pysqlcipher://:hunter2@/x.db",
    "postgresql://app:hunter2@127.0.0.1:1/x?pool_size=5",
    "postgresql://app:hunter2@127.0.0.1:1/x?password",
    "postgresql://app:hunter2@127.0.0.1:1/x?a=b=hunter2",
    "postgresql://app:hunter2@127.0.0.1:port/x",
    "postgresql://app:hunter2",
    "postgresql://app:hunter2/x",
    "postgresql://app:@hunter2@127.0.0.1:1/x",
    "postgresql://app:a@hunter2@127.0.0.1:1/x",
    "postgresql://app:a/hunter2@127.0.0.1:1/x",
    "postgresql://app:a?hunter2@127.0.0.1:1/x",
    "postgresql://app:a?user=hunter2@127.0.0.1:1/x",
    "postgresql://app:1/hunter2@127.0.0.1:1/x",
    "postgresql://app:hunter2%@127.0.0.1:1/x",
    "postgresql://app:%zzhunter2@127.0.0.1:1/x",
    "postgresql://app:%00hunter2@127.0.0.1:1/x",
    "postgresql://app:hunter2@[::1/x",
    "postgresql://app:hunter2@[]/x",
    "postgresql://app:hunter2@[::1]x/x",
    "postgresql://app:hunter2@127.0.0.1:1/%",
]
"""Each with the password `hunter2`, or one that holds it."""
UNREACHABLE = [
    "postgresql://app:hunter2@127.0.0.1:1/x",
    "postgresql://127.0.0.1:1/x?user=app&password=hunter2",
    "postgresql://app:a%2Fhunter2%40@127.0.0.1:1/x",
    "postgresql://app:hunter2#@127.0.0.1:1/x",
    "postgresql://app:a[hunter2@127.0.0.1:1/x",
    "postgresql://app:hunter2@127.0.0.1:1,127.0.0.1:2/x?target_session_attrs=read-write",
    "postgres://app:hunter2@127.0.0.1:1",
]
PROGRAMS = [
    ["-c", "import sys, operon\nwith operon.Operon('x', database=sys.argv[1]): pass"],
    ["-c", "import sys, operon\nwith operon.Client(sys.argv[1]) as client: client.count()"],
    ["-c", "import sys, operon\nwith operon.Operon('x', database='memory:', datasources={'d': sys.argv[1]}): pass"],
    ["-m", "operon", "workflows", "list", "--database"],
    ["-m", "operon", "migrate", "--database"],
]


@pytest.mark.parametrize("url", SLIPS)
def test_a_mistyped_address_is_refused_without_its_password(url: str) -> None:
    for refuse in (
        lambda: store_for(url).open(),
        lambda: Client(url).__enter__(),
        lambda: Operon("x", database=url).launch(),
    ):
        with pytest.raises(BadValue) as raised:
            refuse()
        told = raised.getrepr(style="long", showlocals=False, chain=True)
        assert "hunter2" not in str(raised.value)
        assert "hunter2" not in "".join(line for line in str(told).splitlines() if line.startswith("E "))
        assert raised.value.__cause__ is raised.value.__context__ is None


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda it: it[-1].partition("\n")[2] or it[2])
@pytest.mark.parametrize("url", [SLIPS[0], SLIPS[17]])
def test_no_program_prints_a_password(program: list[str], url: str, tmp_path: Path) -> None:
    told = ran(sys.executable, *program, url, cwd=tmp_path, env={**os.environ, "COLUMNS": "500"})
    assert "hunter2" not in told.stdout + told.stderr
    assert ("operon.errors." if program[0] == "-c" else "operon: ") in told.stderr or "datasources" in program[1]


@pytest.mark.parametrize("url", UNREACHABLE)
def test_what_can_be_read_is_left_as_it_is(url: str) -> None:
    assert address(url) == url
    assert "hunter2" not in where(url)
    with closing(PostgresStore(url, patience=0.0)) as store, pytest.raises(StoreUnavailable) as raised:
        store.open()
    assert "hunter2" not in str(raised.value)


def test_an_engine_and_a_pool_are_read_as_they_connect() -> None:
    """Whose own spelling is the library's: a space, a percent sign and an at sign in a password arrive."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from psycopg_pool import ConnectionPool
    from sqlalchemy import URL, create_engine

    parts: dict[str, Any] = {
        "user": "app",
        "password": "a b%@/?:'\\",
        "host": "127.0.0.1",
        "port": 1,
        "dbname": "x",
        "options": "-c work_mem=1MB",
    }
    pool: ConnectionPool[Any] = ConnectionPool(make_conninfo("", **parts), open=False)
    spelled = URL.create(
        "postgresql+psycopg", "app", str(parts["password"]), "127.0.0.1", 1, "x", {"options": "-c work_mem=1MB"}
    )
    for database in (pool, create_engine(spelled)):
        store: Any = store_for(database)
        assert store.url == "postgresql://app@127.0.0.1:1/x"
        texts: list[str] = [store._services._idle[0].address.conninfo, Datasource(database).conninfo]
        for conninfo in texts:
            given: dict[str, Any] = conninfo_to_dict(conninfo)
            assert {key: str(it) for key, it in given.items()} == {key: str(it) for key, it in parts.items()}
        store.close()
    with pytest.raises(BadValue, match="mysql"):
        store_for(type("Engine", (), {"url": URL.create("mysql+pymysql", "app", "hunter2", "h", 1, "x")})())


def test_a_path_is_a_file(tmp_path: Path) -> None:
    assert address(tmp_path / "x.db") == f"sqlite:///{tmp_path}/x.db"
    assert Datasource(tmp_path / "x.db").dialect == "sqlite"
