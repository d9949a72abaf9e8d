"""One process that serves an app: over HTTP, or only its engine; and how it is asked to stop."""

from __future__ import annotations

import asyncio
import logging
import logging.config
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from operon.app.closing import CLOSING, DRAIN
from operon.cli.complaint import Complaint
from operon.cli.program import load
from operon.cli.screen import console

if TYPE_CHECKING:
    from operon.app import Operon

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
OVERDUE: Final = CLOSING + 0.5
"""Seconds after the drain at which the process is ended, whatever keeps it: a thread of the user's, as a rule."""
LATE: Final = b"Something does not end; exiting without it.\n"
STOPPING: Final = b"Stopping when what runs has come to a safe point; a second signal exits at once.\n"


@dataclass(frozen=True, slots=True)
class Serving:
    """What to serve, where and how."""

    target: str | None
    host: str = "127.0.0.1"
    port: int = 8000
    http: bool = True
    runs: bool | list[str] = True
    drain: float = DRAIN

    @property
    def longest(self) -> float:
        """Seconds within which it has ended, once it was told to."""
        return self.drain + OVERDUE + CLOSING

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        shown = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104 - where we listen was asked
        return f"http://[{shown}]:{self.port}" if ":" in shown else f"http://{shown}:{self.port}"


def serve(serving: Serving, listener: socket.socket | None) -> None:
    """Import the app and serve it until a signal says stop: the first drains, the second exits at once.

    Raises:
        Complaint: the app cannot be imported.
        OperonError: its database cannot be used.
    """
    app = load(serving.target)
    app.runs = serving.runs
    logging.config.dictConfig(_logging())
    if listener is None:
        _run(app, serving)
    else:
        _serve(app, serving, listener)


def listen(serving: Serving) -> socket.socket:
    """Take the port, before anything else is begun.

    Raises:
        Complaint: it is taken, or not ours to take.
    """
    family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((serving.host, serving.port))
    except (OSError, OverflowError) as error:
        listener.close()
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise Complaint(f"Cannot listen on {serving.host}:{serving.port}: {why}. Choose another --port.", 1) from None
    listener.listen(2048)
    listener.set_inheritable(True)
    return listener


def announce(app: Operon, serving: Serving) -> None:
    """Say that it is up."""
    store: Any = app.host.store if app.host is not None else None
    line = Text.assemble(("● ", "green"), (app.name, "bold"))
    if serving.http:
        line.append(f"  {serving.url}", style="cyan")
    line.append(f"  {store.url if store else ''}", style="dim")
    if not app.runs:
        line.append("  paused", style="yellow")
    elif app.runs is not True:
        line.append(f"  queues: {', '.join(app.runs)}")
    console().print(line)
    sys.stdout.flush()


# ── With HTTP ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _serve(app: Operon, serving: Serving, listener: socket.socket) -> None:
    try:
        import uvicorn
    except ImportError:
        raise Complaint("HTTP needs the extra: pip install 'operon-py[http]', or --no-http.", 1) from None

    class Server(uvicorn.Server):
        """Uvicorn, saying in our words that it is up, and leaving the signals to us."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                announce(app, serving)

        @contextmanager
        def capture_signals(self) -> Generator[None]:
            yield

    config = uvicorn.Config(
        app, log_config=None, lifespan="on", server_header=False, timeout_graceful_shutdown=int(serving.drain)
    )
    server = Server(config)
    ends = [0.0]

    def stop() -> None:
        ends[0] = time.monotonic() + serving.drain
        server.should_exit = True

    async def live() -> None:
        async with app:
            await server.serve(sockets=[listener])
            await asyncio.to_thread(app.close, max(0.0, ends[0] - time.monotonic()))

    heed(stop, serving.drain)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(live())
    if not server.started:
        raise SystemExit(1)


# ── Without ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _run(app: Operon, serving: Serving) -> None:
    stop = threading.Event()
    heed(stop.set, serving.drain)
    app.launch()
    try:
        announce(app, serving)
        stop.wait()
    finally:
        app.close(drain=serving.drain)


# ── Stopping ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def heed(stop: Callable[[], object], drain: float) -> None:
    """Ask for an orderly end at the first signal; exit at once at the second, or where that end takes too long."""
    asked = threading.Event()

    def signalled(sig: int, _: FrameType | None) -> None:
        if asked.is_set():
            leave(sig)
        asked.set()
        _say(STOPPING)
        stop()

    def watch() -> None:
        asked.wait()
        time.sleep(drain + OVERDUE)
        _say(LATE)
        leave(signal.SIGTERM)

    threading.Thread(target=watch, name="operon-watch", daemon=True).start()
    for sig in SIGNALS:
        signal.signal(sig, signalled)


def _say(text: bytes) -> None:
    """Write to stderr, unless nobody reads it: the process ends all the same. `print` may be what was interrupted."""
    with suppress(OSError, ValueError):
        if select.select((), (2,), (), 0)[1]:
            os.write(2, text)


def leave(sig: int) -> None:
    """Exit at once; what ran is taken up by whoever is next, as after a crash."""
    os._exit(128 + sig)


def _logging() -> dict[str, Any]:
    """Log as uvicorn does, our own lines among its."""
    logger = {"handlers": ["default"], "level": "INFO", "propagate": False}
    line = {"format": "%(asctime)s %(levelname)-7s %(message)s", "datefmt": "%H:%M:%S"}
    output = {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": line},
        "handlers": {"default": output},
        "loggers": {
            "operon": logger,
            "uvicorn": logger | {"level": "WARNING"},
            "uvicorn.access": logger,
        },
    }
