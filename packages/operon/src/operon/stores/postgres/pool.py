"""Sessions that are lent, and threads for those who do not wait themselves; it must not know for what."""

from __future__ import annotations

from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from operon.stores.postgres.session import Address, Session
from operon.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Generator


class Pool:
    """A few sessions that are lent, the one used last first, so that the others need not be opened."""

    def __init__(self, address: Address, size: int) -> None:
        self._idle = [Session(address) for _ in range(size)]
        self._permits = BoundedSemaphore(size)
        self._closed = False
        self.threads = Threads(size + 1, f"operon-{address.purpose}")

    @contextmanager
    def session(self) -> Generator[Session]:
        """Lend a session."""
        with self._permits:
            session = self._idle.pop()
            try:
                yield session
            finally:
                self._idle.append(session)
                if self._closed:
                    session.close()

    def close(self) -> None:
        """Disconnect; those that are lent, when they come back."""
        self._closed = True
        for session in self._idle:
            session.close()
