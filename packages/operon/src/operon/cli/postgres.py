"""`operon postgres`: a real server for development, left running in the background."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from operon.cli.complaint import Complaint
from operon.cli.screen import say
from operon.embedded import EmbeddedPostgresError, running_url, start_in_background, stop_in_background

DIRECTORY: Final = Path(".operon/postgres")
Directory = Annotated[Path, Parameter(env_var="OPERON_POSTGRES_DIRECTORY", help="Where its data is.")]

command = App("postgres", help="Run a real Postgres for development.")


@command.command
def start(*, directory: Directory = DIRECTORY, port: int | None = None) -> None:
    """Start it unless it runs, leave it running, and print its URL.

    Args:
        port: Where it listens, on loopback only; else where it did before, or a free one.
    """
    try:
        print(start_in_background(directory, port=port))
    except EmbeddedPostgresError as error:
        raise Complaint(str(error), 1) from None


@command.command
def stop(*, directory: Directory = DIRECTORY) -> None:
    """Stop it; its data stays."""
    say("Stopped." if stop_in_background(directory) else "It was not running.")


@command.command
def url(*, directory: Directory = DIRECTORY) -> None:
    """Print its URL."""
    found = running_url(directory)
    if found is None:
        raise Complaint(f"No Postgres runs in {directory}: start it with `operon postgres start`.", 1)
    print(found)
