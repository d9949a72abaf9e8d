"""Servers that peers need: on free ports of loopback, ended with what started them; standard library only."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress

from benchmarks.figures import until

PATIENCE = 60.0


def free_port() -> int:
    """Give a port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as it:
        port: int = it.getsockname()[1]
        return port


@contextmanager
def served(
    command: Sequence[str], ready: Callable[[], object], environment: Mapping[str, str] | None = None
) -> Generator[int]:
    """Run a server until this ends, and give its process id once it is ready; what it says is shown if it ends."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | dict(environment or {})
        )
        try:
            until(lambda: ready() or process.poll() is not None, "a server to be ready", PATIENCE)
            if process.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"The server ended: {log.read()[-2000:].decode(errors='replace')}")
            yield process.pid
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait(10)


def listening(port: int) -> bool:
    """Tell whether somebody listens on a port of loopback."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
