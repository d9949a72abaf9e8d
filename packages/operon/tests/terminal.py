"""What the tests of the command line share: a project in a directory, and `operon` in it, here or in a process."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from children import PATIENCE, Child, eventually, ran, started

PORTS: Final = range(10_000, 30_000)


def clean() -> dict[str, str]:
    """Our environment without what a test of this process has put into it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPERON_")}


def free_port() -> int:
    """Find a port that nobody has, below those which a system hands out by itself: none of them is taken meanwhile."""
    for port in random.SystemRandom().sample(PORTS, 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@dataclass
class Project:
    """A directory with an app in it."""

    directory: Path
    environment: dict[str, str] = field(default_factory=clean)

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.fresh")
        fresh.write_text(text)
        fresh.replace(path)  # whoever watches it sees it once, and whole
        return path

    def operon(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        command = (sys.executable, "-m", "operon", *arguments)
        return ran(*command, cwd=self.directory, env=self.environment | environment)

    @contextmanager
    def start(self, *arguments: str, **environment: str) -> Generator[Running]:
        """Begin a command that goes on, until this is left."""
        log = self.directory / "output.log"
        command = (sys.executable, "-m", "operon", *arguments)
        where: dict[str, Any] = {"cwd": self.directory, "env": self.environment | environment}
        with log.open("a") as output, started(*command, **where, stdout=output, stderr=output) as child:
            yield Running(child, log)


@dataclass
class Running:
    """A command that goes on."""

    child: Child
    log: Path

    def until(self, said: str, times: int = 1) -> str:
        """Wait until it has said this."""

        def look() -> bool:
            text = self.log.read_text()
            assert self.child.process.poll() is None or text.count(said) >= times, f"it ended, having said:\n{text}"
            return text.count(said) >= times

        eventually(look, f"it said {said!r} {times} times")
        return self.log.read_text()

    def ends(self, number: int | None = None) -> int:
        """Send it a signal, if any, wait for its end, and give its exit code."""
        return self.child.ends(number)


def fetch(
    url: str, method: str = "GET", headers: Mapping[str, str] | None = None, body: str | None = None
) -> tuple[int, str]:
    place = urlsplit(url)
    with closing(HTTPConnection(place.netloc, timeout=PATIENCE)) as connection:
        connection.request(method, f"{place.path}?{place.query}", body, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
