"""The command line: it parses, calls, and says in one line what went wrong; each noun is a module."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError
from cyclopts.config import Dict

from operon.cli.complaint import Complaint
from operon.cli.configuration import settings
from operon.cli.screen import complain, prepare
from operon.errors import OperonError

COMMANDS: Final = {
    "new": "Make a project: a crash-proof endpoint on SQLite, with a test.",
    "dev": "Serve the app here, and again whenever a file changes.",
    "run": "Serve the app in production.",
    "migrate": "Bring the database up to date.",
    "workflows": "Look at workflows, start and cancel them.",
    "queues": "Look at queues, pause and resume them, change their limits.",
    "schedules": "Look at schedules, pause and resume them, run them now or for a time gone by.",
    "executors": "See the processes that have launched an app; one whose lease is below zero is silent, or dead.",
    "postgres": "Run a real Postgres for development, in .operon/postgres.",
}
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code: 0, 1 if it failed, 2 if it was called wrongly."""
    prepare()
    try:
        return int(commands()(sys.argv[1:] if arguments is None else arguments) or 0)
    except CycloptsError as error:
        complain(f"{error}  Try: {_help(error)}")
        return 2
    except Complaint as error:
        complain(str(error))
        return error.code
    except OperonError as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a listing had enough
        sys.stderr.close()
        return 0


def commands() -> App:
    """Describe the commands; each is imported when it is called."""
    app = App(
        "operon",
        help="Durable execution on the database you already have.",
        help_format="plaintext",
        version=_version,
        config=Dict(_defaults(), use_commands_as_keys=False, allow_unknown=True, source="pyproject.toml"),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        exit_on_error=False,
        print_error=False,
    )
    for name, summary in COMMANDS.items():
        app.command(f"operon.cli.{name}:command", name=name, help=summary)
    return app


def _defaults() -> dict[str, object]:
    """What `[tool.operon]` says; which app it names is relative to that file, and so not a default of the command's."""
    return {name: value for name, value in settings().items() if name != "app"}


def _version() -> str:
    from importlib.metadata import version

    return f"operon {version('operon-py')}"


def _help(error: CycloptsError) -> str:
    return " ".join(["operon", *(error.command_chain or ()), "--help"])
