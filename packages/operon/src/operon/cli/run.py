"""`operon run`: serve the app in production."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from math import inf
from typing import Annotated

from cyclopts import Parameter

from operon.app.closing import DRAIN
from operon.cli import program
from operon.cli.children import Children
from operon.cli.complaint import Complaint
from operon.cli.screen import complain
from operon.cli.serving import Serving, listen, serve
from operon.errors import OperonError

Host = Annotated[str, Parameter(env_var=("OPERON_HOST", "HOST"))]
Port = Annotated[int, Parameter(env_var=("OPERON_PORT", "PORT"))]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Place:
    """Where to listen.

    Args:
        host: Where to listen; 0.0.0.0 is everywhere.
        port: Where to listen.
    """

    host: Host = "127.0.0.1"
    port: Port = 8000


ANYWHERE = Place()


def command(
    app: program.Target = None,
    /,
    *,
    place: Place = ANYWHERE,
    workers: Annotated[int, Parameter(env_var=("OPERON_WORKERS", "WEB_CONCURRENCY"))] = 1,
    http: bool = True,
    paused: Annotated[bool, Parameter(negative=())] = False,
    queues: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    drain: Annotated[float, Parameter(env_var="OPERON_DRAIN")] = DRAIN,
) -> int:
    """Serve the app, and run its workflows. SIGTERM lets them come to a safe point; a second one exits at once.

    Args:
        place: Where to listen.
        workers: How many processes.
        http: With --no-http, only the engine runs.
        paused: Serve, start and wait, but run no workflow here.
        queues: Run only these queues, and what is in no queue.
        drain: Seconds that what runs is given to come to a safe point; then the process ends, whatever keeps it.
    """
    if workers < 1:
        raise Complaint("--workers is at least 1.")
    if not 0 <= drain < inf:
        raise Complaint("--drain is a number of seconds, 0 or more.")
    program.locate(app)
    serving = Serving(app, place.host, place.port, http, runs=False if paused else queues or True, drain=drain)
    listener = listen(serving) if http else None
    if workers == 1:
        serve(serving, listener)
        return 0
    return Children(lambda: attempt(serving, listener), workers, None, serving.longest).run()


def attempt(serving: Serving, listener: socket.socket | None) -> int:
    """Serve, and say in one line what prevents it; gives the exit code."""
    try:
        serve(serving, listener)
    except SystemExit as end:
        return int(end.code or 0)
    except (Complaint, OperonError) as error:
        complain(str(error))
        return getattr(error, "code", 1)
    return 0
