"""Which database a command means, and a client of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from operon.app import Operon
from operon.app.client import Client
from operon.app.stores import default_url
from operon.cli import program
from operon.cli.complaint import Complaint

Database = Annotated[
    str | None,
    Parameter(
        name="--database",
        env_var="OPERON_DATABASE_URL",
        help="URL; else that of the app (--app, pyproject.toml, app.py), else DATABASE_URL.",
    ),
]
App = Annotated[str | None, Parameter(name="--app", env_var="OPERON_APP", help="MODULE:APP, whose database it is.")]


@dataclass(frozen=True, slots=True)
class Source:
    """A database, and the app that it is of if that is known."""

    database: Any
    app: Operon | None


def choose(database: str | None, target: str | None) -> Source:
    """Say which database is meant.

    Raises:
        Complaint: nothing says so.
    """
    if database is not None:
        return Source(database, None)
    try:
        with redirect_stdout(sys.stderr):  # what the app prints when it is imported is no part of a listing
            app = program.load(target)
    except Complaint:
        if target is None and (url := os.environ.get("DATABASE_URL")):
            return Source(url, None)
        raise
    return Source(app.database if app.database is not None else default_url(app.name), app)


@contextmanager
def connect(source: Source) -> Generator[Client]:
    """Connect to a database that is there."""
    url = source.database
    if isinstance(url, str) and url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///").partition("?")[0])
        if not path.is_file():
            raise Complaint(f"There is no database {path} yet: start the app once, or run `operon migrate`.", 1)
    with Client(url) as client:
        yield client
