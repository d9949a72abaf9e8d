"""`operon dev`: serve the app here, and again whenever a file changes."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from operon.cli import program
from operon.cli.children import Children
from operon.cli.complaint import Complaint
from operon.cli.files import Files
from operon.cli.postgres import DIRECTORY
from operon.cli.run import Host, Port, attempt
from operon.cli.screen import say
from operon.cli.serving import Serving, listen


def command(
    app: program.Target = None,
    /,
    *,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    postgres: Annotated[bool, Parameter(negative=())] = False,
    reload: bool = True,
) -> int:
    """Serve the app, and again whenever a file changes; workflows go on where they were.

    Args:
        host: Where to listen.
        port: Where to listen.
        postgres: On a real Postgres of this project's own, in .operon/postgres; else on SQLite.
        reload: With --no-reload, files are not watched.
    """
    # Compiled files are told apart by whole seconds and sizes: two quick edits of one length look alike.
    sys.dont_write_bytecode = True
    place = program.locate(app)
    serving = Serving(app, host, port, drain=2.0)
    with ExitStack() as open_things:
        listener = open_things.enter_context(listen(serving))
        if postgres:
            os.environ["OPERON_DATABASE_URL"] = _postgres(open_things)
        files = Files(place.directory)

        def changed() -> bool:
            if (path := files.changed()) is not None:
                say(f"↻ {path.relative_to(place.directory)}", style="dim")
            return path is not None

        return Children(lambda: attempt(serving, listener), 1, changed if reload else None, serving.longest).run()


def _postgres(open_things: ExitStack) -> str:
    from operon.embedded import EmbeddedPostgresError, Postgres, running_url

    directory = Path(os.environ.get("OPERON_POSTGRES_DIRECTORY", DIRECTORY))
    try:
        url = running_url(directory) or open_things.enter_context(Postgres(directory)).url
    except EmbeddedPostgresError as error:
        raise Complaint(str(error), 1) from None
    say(f"Postgres in {directory}", style="dim")
    return url
