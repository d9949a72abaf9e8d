"""What the tests of the command line share: a project in a directory, and `operon` in it, here or in a process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Final, Self, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
PATIENCE: Final = 60.0
SETTINGS: Final = ("OPERON_", "DATABASE_URL", "PORT", "HOST", "NO_COLOR", "COLUMNS", "WEB_CONCURRENCY", "FORCE_COLOR")


def clean() -> dict[str, str]:
    """Our environment without anything that would change what `operon` does."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(look: Callable[[], T]) -> T:
    """Look until there is something to see: what happens in another process has no signal for us."""
    deadline = time.monotonic() + PATIENCE
    while not (seen := look()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return seen


@dataclass
class Project:
    """A directory with an app in it."""

    directory: Path
    environment: dict[str, str] = field(default_factory=clean)

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def operon(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "operon", *arguments],
            cwd=self.directory,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def start(self, *arguments: str, **environment: str) -> Running:
        """Begin a command that goes on."""
        log = self.directory / "output.log"
        with log.open("a") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "operon", *arguments],
                cwd=self.directory,
                env=self.environment | environment,
                stdout=output,
                stderr=output,
            )
        return Running(process, log)


@dataclass
class Running:
    """A command that goes on."""

    process: subprocess.Popen[bytes]
    log: Path

    def until(self, said: str, times: int = 1) -> str:
        """Wait until it has said this."""

        def look() -> bool:
            text = self.log.read_text()
            assert self.process.poll() is None or text.count(said) >= times, f"it ended, having said:\n{text}"
            return text.count(said) >= times

        eventually(look)
        return self.log.read_text()

    def end(self, signal: int) -> int:
        self.process.send_signal(signal)
        return self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def fetch(
    url: str, method: str = "GET", headers: Mapping[str, str] | None = None, body: str | None = None
) -> tuple[int, str]:
    place = urlsplit(url)
    with closing(HTTPConnection(place.netloc, timeout=PATIENCE)) as connection:
        connection.request(method, f"{place.path}?{place.query}", body, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
