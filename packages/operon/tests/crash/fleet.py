"""Real processes: started from one that has everything imported, spoken to over pipes, killed and stopped by pid."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from children import PATIENCE
from crash.worker import Birth, Order, Word, main

_nursery = get_context("forkserver")
_nursery.set_forkserver_preload(["crash.worker", "operon.stores.postgres", "operon.stores.sqlite"])


class Worker:
    """One process, from its birth to its death."""

    def __init__(self, birth: Birth) -> None:
        self.birth = birth
        self.executor = 0
        """Known once it is ready."""
        self.orders: dict[str, Order] = {}
        """Given to it, with nothing heard of them yet."""
        ours, theirs = _nursery.Pipe()
        self.pipe: Connection[Any, Any] = ours
        self._process = _nursery.Process(target=main, args=(birth, theirs), daemon=True)
        self._process.start()
        theirs.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended; a stopped one has not."""
        return self._process.is_alive()

    def give(self, order: Order) -> None:
        """Hand it an order; one that is dying may never read it."""
        self.orders[order.key] = order
        with contextlib.suppress(OSError):
            self.pipe.send(order)

    def words(self, seconds: float = 0.0) -> list[Word]:
        """Hear what it says, waiting so long for the first word; nothing more comes from the dead."""
        said: list[Word] = []
        with contextlib.suppress(EOFError, OSError):
            while self.pipe.poll(0.0 if said else seconds):
                word: Word = self.pipe.recv()
                if word.what == "ready":
                    self.executor = word.value
                elif word.order is not None:
                    self.orders.pop(word.order.key, None)
                said.append(word)
        return said

    def until(self, what: str, seconds: float = PATIENCE) -> Word:
        """Wait for a word."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and (self.alive or self.pipe.poll()):
            for word in self.words(min(left, 0.5)):
                if word.what == what:
                    return word
        raise AssertionError(f"worker {self.pid} never said {what!r}; it is {'alive' if self.alive else 'dead'}")

    def kill(self) -> None:
        """End it as nothing else does: at once, wherever it is."""
        self.signal(signal.SIGKILL)
        self.ends()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def ends(self) -> None:
        """Wait until it has ended."""
        self._process.join(PATIENCE)
        assert not self.alive, f"worker {self.pid} did not end within {PATIENCE:.0f} s"

    def stopped(self) -> bool:
        """Whether it is stopped, as by SIGSTOP."""
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] == "T"
        return False

    def close(self) -> None:
        """End it, and forget it."""
        if self.alive:
            self.kill()
        self.pipe.close()
        self._process.close()


def first_words(workers: list[Worker], seconds: float) -> list[Word]:
    """Hear whoever speaks, waiting so long for the first."""
    pipes = [worker.pipe for worker in workers]
    ready = wait(pipes, seconds)
    return [word for worker in workers if worker.pipe in ready for word in worker.words()]
