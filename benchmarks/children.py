"""Programs that this one starts, talks with in lines, and ends by their own id; standard library only."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "packages" / "operon" / "src"
COMPLAINT = 25
"""Lines of an error output that are shown."""


class Child:
    """A program under way; with `group`, it and all that it starts are ended together, and their errors are kept."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, *, group: bool = False
    ) -> None:
        self._group = group
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - as long as it
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors if group else None,
            text=True,
            cwd=ROOT,
            env=dict(environment or surroundings()),
            start_new_session=group,
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        assert self.process.stdout is not None
        threading.Thread(target=self._listen, args=[self.process.stdout], daemon=True).start()

    def line(self, patience: float = 60.0) -> str | None:
        """Give its next line, or None once it says nothing more.

        Raises:
            TimeoutError: it said nothing for so many seconds.
        """
        try:
            return self._lines.get(timeout=patience)
        except queue.Empty:
            raise TimeoutError(f"It said nothing for {patience:.0f} s") from None

    def lines(self, patience: float) -> Iterator[str]:
        """Give all its lines, each within so many seconds."""
        while (line := self.line(patience)) is not None:
            yield line

    def ask(self, line: str) -> None:
        """Say a line to it."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def complaint(self) -> str:
        """Give the end of what it said on its error output."""
        self._errors.seek(0)
        return "".join(self._errors.readlines()[-COMPLAINT:])

    def kill(self) -> None:
        """End it as a crash does; in a group of its own, what it has started, too."""
        with suppress(ProcessLookupError):
            if self._group:
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait(30)

    def close(self, patience: float = 20.0) -> None:
        """Let it end by itself, for its input is over; kill it if it does not."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        self.kill()

    def _listen(self, stdout: IO[str]) -> None:
        for line in stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


def surroundings() -> dict[str, str]:
    """Give the environment of our own programs: this checkout's sources go first."""
    return os.environ | {"PYTHONPATH": f"{SOURCES}{os.pathsep}{ROOT}"}


@contextmanager
def module(name: str, *arguments: str) -> Generator[Child]:
    """Run a module of this checkout beside this program."""
    child = Child([sys.executable, "-m", name, *arguments])
    try:
        yield child
    finally:
        child.close()
