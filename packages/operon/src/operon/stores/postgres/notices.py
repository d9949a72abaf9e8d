"""Words between processes: NOTIFY after the commit, LISTEN on a connection of its own. Hints, and never more.

Inside a transaction that commits data, NOTIFY takes a lock that all commits share, and undoes the group commit; so it
is a statement of its own, sent by a thread of its own, and words that come while one is under way go together.
"""

from __future__ import annotations

import threading
from selectors import EVENT_READ, DefaultSelector
from socket import socket, socketpair
from typing import TYPE_CHECKING

import psycopg

from operon.stores.postgres.session import SQL, Address, Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from operon.stores.postgres.session import Row

RECONNECT = 1.0
"""Seconds between two attempts to hear again; the heartbeat is the safety net."""


class Notices:
    """Says words to all who listen on this database, and listens."""

    def __init__(self, conninfo: str) -> None:
        self._notifier = Session(Address(conninfo, "notify"))
        self._listener = Address(conninfo, "listen")
        self._words: set[str] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._wakeup: tuple[socket, socket] | None = None
        """The end that rings, and the end that a listening thread attends to."""
        self._listening = threading.Event()
        self._late = False
        """Words may have been said before it listened for the first time."""
        self._threads: dict[str, threading.Thread] = {}

    def shout(self, word: str) -> None:
        """Say a word soon; never blocks, and is lost where the database is out of reach."""
        with self._changed:
            self._words.add(word)
            self._changed.notify()
        self._start("shout", self._say)

    def listen(self, heard: Callable[[str], None]) -> None:
        """Call this, on a thread of ours, with every word that is said once this returns; or with one for all."""
        self._wakeup = socketpair()
        self._start("listen", lambda: self._hear(heard))
        self._listening.wait(RECONNECT)
        with self._changed:
            self._late = not self._listening.is_set()

    def close(self) -> None:
        """Say what is still to be said, and disconnect."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._wakeup is not None:
            self._wakeup[0].send(b".")
        for thread in self._threads.values():
            thread.join()
        self._notifier.close()
        for end in self._wakeup or ():
            end.close()

    def _start(self, name: str, work: Callable[[], None]) -> None:
        with self._changed:
            if name in self._threads or self._closed:
                return
            self._threads[name] = threading.Thread(target=work, name=f"operon-{name}", daemon=True)
        self._threads[name].start()

    def _say(self) -> None:
        while words := self._next():
            try:
                self._notifier.rows("shout", words=list(words))
            except psycopg.Error:
                self._notifier.close()

    def _next(self) -> set[str]:
        with self._changed:
            self._changed.wait_for(lambda: self._words or self._closed)
            words, self._words = self._words, set()
            return words

    def _hear(self, heard: Callable[[str], None]) -> None:
        while not self._closed:
            try:
                with self._listener.connect() as connection:
                    connection.execute(SQL["listen"].encode())
                    with self._changed:
                        missed = self._late or self._listening.is_set()
                        self._listening.set()
                    if missed:
                        heard("ready")  # whatever was said while there was no connection
                    self._attend(connection, heard)
            except psycopg.Error:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, RECONNECT)

    def _attend(self, connection: psycopg.Connection[Row], heard: Callable[[str], None]) -> None:
        with DefaultSelector() as selector:
            selector.register(connection.fileno(), EVENT_READ)
            if self._wakeup is not None:
                selector.register(self._wakeup[1], EVENT_READ)
            while not self._closed:
                words: set[str] = set()
                while notice := connection.pgconn.notifies():
                    words.add(notice.extra.decode())
                for word in sorted(words):
                    heard(word)
                selector.select()
                connection.pgconn.consume_input()
