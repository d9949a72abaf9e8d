"""Fixtures every test may ask for: databases that are real, empty, and the test's own."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

import counting
from children import joined
from databases import Databases
from operon.core import apps
from operon.embedded import Binaries, Postgres, discover
from surroundings import undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SOURCES = Path(__file__).parents[1] / "src"

MEMORY = Path("/dev/shm")  # noqa: S108 - directories made there have random names
ROOM = 1 << 28

undisturbed()  # in each process of the suite, since each of them imports this

# Programs that tests start must run this checkout's sources too, whichever worktree .venv was made in.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SOURCES), os.environ.get("PYTHONPATH")]))

# On a machine shared by many, how long an example takes says nothing about the code; and a CI draws as many as we do.
settings.register_profile("house", parent=settings.get_profile("default"), deadline=None)
settings.load_profile("house")


def chosen() -> Binaries | None:
    """Which Postgres the suite runs on: the preferred one, or the major version that OPERON_TEST_PG names."""
    wanted = os.environ.get("OPERON_TEST_PG")
    if not wanted:
        return None
    found = {str(binaries.major): binaries for binaries in discover()}
    if wanted not in found:
        raise pytest.UsageError(f"OPERON_TEST_PG={wanted}: no such Postgres here; there are {', '.join(found)}.")
    return found[wanted]


def connect_faster(url: str) -> None:
    """Let a password be hashed once instead of 4096 times, at each of the thousands of connections."""
    password = sql.Literal(conninfo_to_dict(url)["password"])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set scram_iterations = 1")
        connection.execute(sql.SQL("alter role postgres password {}").format(password))


def serve(binaries: Binaries | None, *, fsync: bool, settings: Mapping[str, str] | None = None) -> Iterator[Postgres]:
    """Run a server in a directory that is removed afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="operon-postgres-"))
    try:
        with Postgres(directory, binaries=binaries, fsync=fsync, settings=settings) as server:
            if server.binaries.major >= 16:
                connect_faster(server.url)
            yield server
    finally:
        shutil.rmtree(directory)


@pytest.fixture(autouse=True, scope="module")
def what_was_there_before_is_no_garbage() -> None:
    """Let the collector look at what the tests of a module make, and not again and again at all that was before."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left_launched() -> Iterator[None]:
    """Close the apps that a test has left launched, as one that fails does: the next would find several."""
    before = [*apps.launched]
    yield
    for left in [it for it in apps.launched if it not in before]:
        engine: Any = left
        closing = threading.Thread(target=engine.close, args=(0.0,), daemon=True)
        closing.start()
        joined(closing)
        engine.store.close()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real server, one a worker process, started by the first test that wants it; without fsync, for speed."""
    yield from serve(chosen(), fsync=False)


@pytest.fixture(scope="session")
def durable_postgres() -> Iterator[Postgres]:
    """A real server that syncs every commit to the disk, as in production."""
    yield from serve(chosen(), fsync=True)


@pytest.fixture(scope="session")
def counting_postgres() -> Iterator[Postgres]:
    """A real server that logs every statement, and does nothing by itself."""
    yield from serve(chosen(), fsync=False, settings=counting.SETTINGS)


@pytest.fixture(scope="session")
def databases(postgres: Postgres) -> Iterator[Databases]:
    """What that server's databases come from."""
    with Databases(postgres) as databases:
        yield databases


@pytest.fixture
def postgres_url(databases: Databases) -> Iterator[str]:
    """The URL of an empty database of the test's own."""
    with databases.fresh() as url:
        yield url


@pytest.fixture
def ready_postgres_url(databases: Databases) -> Iterator[str]:
    """The URL of a database of the test's own that has the schema already, which is ready in a tenth of the time."""
    with databases.ready() as url:
        yield url


@pytest.fixture
def durable_postgres_url(durable_postgres: Postgres) -> Iterator[str]:
    """The URL of an empty database of the test's own, on a server that syncs every commit."""
    with Databases(durable_postgres) as databases, databases.fresh() as url:
        yield url


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Iterator[Path]:
    """The path of a SQLite database that does not exist yet: in memory, where there is room, and no commit waits."""
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < ROOM:
        yield tmp_path / "test.db"
        return
    with tempfile.TemporaryDirectory(prefix="operon-sqlite-", dir=MEMORY, ignore_cleanup_errors=True) as directory:
        yield Path(directory) / "test.db"
