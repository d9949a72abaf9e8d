"""Transactions on a server that is still a standby, as after a failover, and in a database whose settings are odd."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator
from pathlib import Path

import psycopg
import pytest

from operon.core.commands import Op
from operon.datasources import Datasource
from operon.embedded import Postgres
from operon.errors import StoreUnavailable
from test_embedded import reachable_directory
from test_postgres_settings import SETTINGS, configure
from transacting import ON_POSTGRES, Bench, Sql, Way, bench, debit, running_loop

TOLD = "\u20ac \U0001f600 it's \\"


@pytest.fixture(scope="module")
def loop() -> Generator[asyncio.AbstractEventLoop]:
    with running_loop() as loop:
        yield loop


@pytest.fixture
def directory() -> Iterator[Path]:
    for directory in reachable_directory():
        directory.chmod(0o755)  # else a server that root starts has its files elsewhere
        yield directory


def tell(sql: Sql) -> Op[str]:
    """Debit, and give what Latin-1 cannot spell."""
    yield from debit(sql)
    return TOLD


def elsewhere(place: Bench, way: Way, url: str) -> None:
    """Let transactions run where the journal is not."""
    place.source.close()
    place.source = Datasource(spelled(way, url), journal="here")


def spelled(way: Way, url: str) -> str:
    return url.replace("postgresql:", f"postgresql+{way.driver}:") if way.driver else url


def test_whoever_meets_a_standby_waits_until_it_is_promoted(
    directory: Path, ready_postgres_url: str, loop: asyncio.AbstractEventLoop
) -> None:
    """What a standby says to whoever begins to write there fails no transaction for ever."""
    server = Postgres(directory / "server")
    with server, psycopg.connect(server.create_database("shop")) as connection:
        connection.execute("create table accounts (id integer primary key, cents integer not null)")
        connection.execute("insert into accounts values (1, 100)")
        (data,) = connection.execute("show data_directory").fetchone() or ("",)
    (Path(data) / "standby.signal").touch()
    with server, bench("postgres", ready_postgres_url, loop) as place:
        url = server.database_url("shop")
        for way in ON_POSTGRES:
            elsewhere(place, way, url)
            with pytest.raises(StoreUnavailable, match=r"out of reach .*(standby|recovery|transaction blocks)"):
                place.run(way, tell, place.begin(way.name))
        with psycopg.connect(url, autocommit=True) as connection:
            assert connection.execute("select pg_promote()").fetchone() == (True,)
        for way in ON_POSTGRES:
            elsewhere(place, way, url)
            assert place.run(way, tell, place.begin(f"{way.name} again")).value == TOLD
        with psycopg.connect(url) as connection:
            assert connection.execute("select cents from accounts").fetchone() == (100 - 10 * len(ON_POSTGRES),)


@pytest.mark.parametrize("way", ON_POSTGRES, ids=[way.name for way in ON_POSTGRES])
@pytest.mark.parametrize("beside", [False, True], ids=["journal", "elsewhere"])
@pytest.mark.parametrize("name", ["default_transaction_read_only", "client_encoding", "all"])
def test_what_a_database_has_set_changes_nothing_of_a_transaction(
    way: Way, name: str, ready_postgres_url: str, loop: asyncio.AbstractEventLoop, *, beside: bool
) -> None:
    """Whatever its driver, it may write, and its record holds what it returned; it is found again there."""
    given = {key: value for key, value in SETTINGS.items() if name in (key, "all") and key != "search_path"}
    with bench("postgres", ready_postgres_url, loop, spelled(way, ready_postgres_url)) as place:
        configure(ready_postgres_url, given)
        try:
            if beside:
                elsewhere(place, way, ready_postgres_url)
            book = place.begin()
            assert place.run(way, tell, book).value == TOLD
            assert place.run(way, tell, book).value == TOLD
        finally:
            configure(ready_postgres_url, dict.fromkeys(given))
        assert place.money() == 90
