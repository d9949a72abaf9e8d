"""Fixtures every test may ask for: databases that are real, empty, and the test's own."""

from __future__ import annotations

import os
import shutil
import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from operon.embedded import Binaries, Postgres, discover
from surroundings import undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = Path(__file__).parents[1] / "src"

undisturbed()  # in each process of the suite, since each of them imports this

# Programs that tests start must run this checkout's sources too, whichever worktree .venv was made in.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SOURCES), os.environ.get("PYTHONPATH")]))

# On a machine shared by many, how long an example takes says nothing about the code; and a CI draws as many as we do.
settings.register_profile("house", parent=settings.get_profile("default"), deadline=None)
settings.load_profile("house")

_names = count(1)


def chosen() -> Binaries | None:
    """Which Postgres the suite runs on: the preferred one, or the major version that OPERON_TEST_PG names."""
    wanted = os.environ.get("OPERON_TEST_PG")
    if not wanted:
        return None
    found = {str(binaries.major): binaries for binaries in discover()}
    if wanted not in found:
        raise pytest.UsageError(f"OPERON_TEST_PG={wanted}: no such Postgres here; there are {', '.join(found)}.")
    return found[wanted]


def serve(binaries: Binaries | None, *, fsync: bool) -> Iterator[Postgres]:
    """Run a server in a directory that is removed afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="operon-postgres-"))
    try:
        with Postgres(directory, binaries=binaries, fsync=fsync) as server:
            yield server
    finally:
        shutil.rmtree(directory)


def fresh_database(server: Postgres) -> Iterator[str]:
    """Create an empty database for one test, and drop it afterwards."""
    name = f"test_{next(_names)}"
    yield server.create_database(name)
    server.drop_database(name)


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


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The URL of an empty database of the test's own."""
    yield from fresh_database(postgres)


@pytest.fixture
def durable_postgres_url(durable_postgres: Postgres) -> Iterator[str]:
    """The URL of an empty database of the test's own, on a server that syncs every commit."""
    yield from fresh_database(durable_postgres)


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    """The path of a SQLite database that does not exist yet."""
    return tmp_path / "test.db"
