"""Processes that are kept at work: several at once, or one that is started anew whenever a file changes.

The parent imports nothing of the user's, so that a fork copies neither threads nor connections.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType

from operon.cli.serving import SIGNALS, leave

LOOK: float = 0.4
"""Seconds between two looks at the files."""
Work = Callable[[], int]


class Children:
    """A number of processes that do the same work.

    Args:
        work: what each does; gives its exit code.
        number: how many.
        changed: says, when called, whether they are to be started anew; None never asks.
        patience: seconds that they are given to end, once they are told to; then they are killed.
    """

    def __init__(self, work: Work, number: int, changed: Callable[[], bool] | None, patience: float) -> None:
        self._work = work
        self._patience = patience
        self._number = number
        self._changed = changed
        self._fork = multiprocessing.get_context("fork")
        self._living: list[BaseProcess] = []
        self._alive, self._lifeline = os.pipe()
        self._wake, self._waker = socket.socketpair()
        self._waker.setblocking(False)  # noqa: FBT003 - the socket's own spelling
        self._signals = 0

    def run(self) -> int:
        """Keep them at work until a signal: the first drains them, the second ends them at once."""
        for sig in SIGNALS:
            signal.signal(sig, self._signalled)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        code = 0
        self._start()
        while not self._signals and (self._living or self._changed):
            wait([self._wake, *(child.sentinel for child in self._living)], LOOK if self._changed else None)
            code = max(code, self._bury())
            if self._changed is not None and self._changed():
                self._stop()
                self._start()
                code = 0
            elif code and self._changed is None:
                break
        self._stop()
        return 0 if self._signals else code

    def _signalled(self, sig: int, _: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            for child in self._living:
                child.kill()
            leave(sig)

    def _start(self) -> None:
        while len(self._living) < self._number:
            child = self._fork.Process(target=self._child)
            child.start()
            self._living.append(child)

    def _stop(self) -> None:
        for child in self._living:
            child.terminate()
        ends = time.monotonic() + self._patience
        for child in self._living:
            child.join(max(0.0, ends - time.monotonic()))
            if child.is_alive():
                child.kill()
        self._living.clear()

    def _bury(self) -> int:
        """Replace those that were killed; what ended by itself has a reason that a second one would have, too."""
        ends = [(child, child.exitcode) for child in self._living]  # each is asked once: it may end at any moment
        self._living = [child for child, code in ends if code is None]
        codes = [code for _, code in ends if code is not None]
        if any(code < 0 for code in codes) and not self._signals:
            self._start()
        return max((code for code in codes if code > 0), default=0)

    def _child(self) -> None:
        """Work, in a process group of its own: Ctrl-C reaches the parent, who passes it on once."""
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for sig in SIGNALS:
            signal.signal(sig, signal.SIG_DFL)
        os.close(self._lifeline)
        threading.Thread(target=self._follow, name="operon-parent", daemon=True).start()
        code = self._work()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _follow(self) -> None:
        """End when the parent does, however that ends."""
        os.read(self._alive, 1)
        os.kill(os.getpid(), signal.SIGTERM)
