"""A child process that never outlives us and is always reaped; it must not know what it runs.

The kernel signals a child when the *thread* that forked it ends, not the process, so each child has a thread of its
own here, which forks it, waits for it, and ends with it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from subprocess import CompletedProcess

    from operon.embedded.account import Account

PR_SET_PDEATHSIG = 1


class Child:
    """A running program, which the kernel tells to stop should we die (on Linux; elsewhere nobody does)."""

    def __init__(self, argv: Sequence[str], *, account: Account, log: Path, inherit: int, cwd: Path) -> None:
        self._argv = list(argv)
        self._account = account
        self._log = log
        self._inherit = inherit
        self._cwd = cwd
        self._exit: Future[int] = Future()
        self._started: Future[subprocess.Popen[bytes]] = Future()
        threading.Thread(target=self._live, name="operon-embedded-postgres", daemon=True).start()
        self._process = self._started.result()

    @property
    def pid(self) -> int:
        """The process id, valid while the child has not ended."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the child has ended and was reaped."""
        return self._exit.done()

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the child has ended and was reaped, and return its exit code; raises `TimeoutError`."""
        return self._exit.result(timeout)

    def signal(self, number: int) -> None:
        """Send a signal; one to a child that has ended goes nowhere."""
        self._process.send_signal(number)

    def _live(self) -> None:
        try:
            with self._log.open("ab") as log:
                process = subprocess.Popen(
                    self._argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._cwd,
                    env=_clean_environment(),
                    user=self._account.uid,
                    group=self._account.gid,
                    extra_groups=None if self._account.uid is None else [],
                    pass_fds=[self._inherit],
                    # A session of its own: Ctrl-C at the terminal is for us, and we stop the child when we are done.
                    start_new_session=True,
                    preexec_fn=_end_with_parent(signal.SIGINT),  # noqa: PLW1509 - one prepared system call, no lock
                )
        except BaseException as error:
            self._started.set_exception(error)
            return
        self._started.set_result(process)
        self._exit.set_result(process.wait())


def run(argv: Sequence[str], *, account: Account, cwd: Path, inherit: Sequence[int] = ()) -> CompletedProcess[str]:
    """Run a program under the account to its end, and return what it said; our death ends it."""
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=_clean_environment(),
        user=account.uid,
        group=account.gid,
        extra_groups=None if account.uid is None else [],
        pass_fds=inherit,
        start_new_session=True,
        preexec_fn=_end_with_parent(signal.SIGTERM),
    )


def descendants(pid: int) -> list[int]:
    """List the processes below a process, from /proc; empty where there is none."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        parents[int(entry.parent.name)] = int(fields[1])
    found = [pid]
    for parent in found:
        found.extend(child for child, its in parents.items() if its == parent)
    return found[1:]


def _end_with_parent(number: int) -> Callable[[], None] | None:
    """Return what a forked child must call before it executes a program, so that our death sends it the signal."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def arm() -> None:
        prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the call
            os._exit(1)

    return arm


def _clean_environment() -> dict[str, str]:
    """Return our environment without what would steer Postgres' programs from outside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}
