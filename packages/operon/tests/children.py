"""The programs that tests start: every wait for them has a bound, and none of them outlives its test."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import psutil

from operon.embedded import child

PATIENCE: Final = 60.0
"""Seconds that a test waits for what must happen, on a machine shared by many."""


CompletedProcess = subprocess.CompletedProcess[str]


class Child:
    """A program that a test has started, and what it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid
        self._lines: list[str] = []
        self._heard = 0
        self._silent = process.stdout is None
        self._news = threading.Condition()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def says(self, what: str = "") -> str:
        """Wait for its next line that contains this, and give it."""
        while what not in (line := self._next(what or "something")):
            pass
        return line

    def rest(self) -> list[str]:
        """Wait until it says nothing more, and give the lines that nobody has waited for."""
        self._wait(lambda: self._silent, "come to an end")
        left, self._heard = self._lines[self._heard :], len(self._lines)
        return left

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ends(self, number: int | None = None) -> int:
        """Close its input or send it a signal, wait for its end, and give its exit code."""
        if number is not None:
            self.signal(number)
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} did not end within {PATIENCE:.0f} s") from None

    def close(self) -> None:
        """Let go of its pipes, once it has ended."""
        self._listener.join(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def __str__(self) -> str:
        return f"{_named(self.process)}, which has said {self._lines},"

    def _next(self, what: str) -> str:
        self._wait(lambda: len(self._lines) > self._heard or self._silent, f"say {what!r}")
        assert len(self._lines) > self._heard, f"{self} was to say {what!r}, and ended with {self.process.poll()}"
        self._heard += 1
        return self._lines[self._heard - 1]

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        with self._news:
            assert self._news.wait_for(condition, PATIENCE), f"{self} did not {what} within {PATIENCE:.0f} s"

    def _listen(self) -> None:
        for line in self.process.stdout or ():
            with self._news:
                self._lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._silent = True
            self._news.notify_all()


@contextmanager
def started(*command: str, stdin: int = subprocess.DEVNULL, **options: Any) -> Generator[Child]:
    """Start a program and hear what it says; it has ended when this is left, with all that it started."""
    with _spawned(command, stdin=stdin, **{"stdout": subprocess.PIPE} | options) as process:
        program = Child(process)
        try:
            yield program
        finally:
            _end(process)
            program.close()


def ran(*command: str, check: bool = False, patience: float = PATIENCE, **options: Any) -> CompletedProcess:
    """Run a program to its end, and give its exit code and what it said."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with _spawned(command, stdin=subprocess.DEVNULL, **pipes | options) as process:
        try:
            said, complained = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            _end(process)
            said, complained = process.communicate(timeout=PATIENCE)
            raise AssertionError(f"{_named(process)} did not end within {patience:.0f} s: {said}{complained}") from None
    ended = CompletedProcess(process.args, process.returncode, said, complained)
    assert not check or ended.returncode == 0, f"{_named(process)} ended with {ended.returncode}: {said}{complained}"
    return ended


def eventually(look: Any, what: str = "it never came to be") -> Any:
    """Look until there is something to see: what another thread or process does has no signal for us."""
    deadline = time.monotonic() + PATIENCE
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(0.01)
    return seen


def joined(thread: threading.Thread) -> None:
    """Wait for the end of a thread."""
    thread.join(PATIENCE)
    assert not thread.is_alive(), f"{thread} did not end within {PATIENCE:.0f} s"


def runs(pid: int) -> bool:
    """Whether a process has not ended; one that has may still wait for its parent to notice."""
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


@contextmanager
def _spawned(command: Sequence[str], **options: Any) -> Generator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, text=True, encoding="utf-8", start_new_session=True, **options)
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """End a program, and then all that it started, whichever of them still live."""
    below = child.descendants(process.pid)  # by parent alone: psutil compares times, too, and clocks are set
    process.kill()
    process.wait(PATIENCE)
    orphans = {*below, *_session(process.pid)}
    for pid in orphans:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(map(runs, orphans)), f"all that {_named(process)} started has ended")


def _session(leader: int) -> Iterator[int]:
    """Find those who are in a program's session, whether or not it lives itself."""
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader:
                yield pid


def _named(process: subprocess.Popen[str]) -> str:
    return f"{shlex.join(process.args)[:200]!r}"  # type: ignore[arg-type]
