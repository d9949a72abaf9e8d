"""Listens for other processes' commits: SQLite says that somebody else wrote, and a query whether anything is ready."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

from operon.stores.sqlite.connection import connect_reader

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL = 0.04
"""Seconds between two looks at the file's version: a few microseconds each, and no statement."""


class Listener:
    """A thread that says, after another connection's commit, whether something is or will be ready."""

    def __init__(self, path: str, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def listen(self, heard: Callable[[str], None]) -> None:
        """Begin to listen."""
        self._thread = threading.Thread(target=self._run, args=(heard,), name="operon-listen", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, heard: Callable[[str], None]) -> None:
        with closing(connect_reader(self._path)) as reader:
            version, soonest = -1, None
            while not self._closed.wait(INTERVAL):
                try:
                    (latest,) = reader.execute("pragma data_version").fetchone()
                    if latest == version:
                        continue
                    version, before = latest, soonest
                    (soonest,) = reader.one("soonest")
                except sqlite3.Error:
                    continue
                if soonest is not None and soonest <= self._clock():
                    heard("ready")
                elif soonest not in (None, before):
                    heard("later")
