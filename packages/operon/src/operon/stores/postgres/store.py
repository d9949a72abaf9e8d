"""A store in Postgres: who answers which command, over which connection. Must not know what any command does."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, TypeVar

import psycopg

from operon.core.commands import Advance, Beat, Command, LaneCommand, Start
from operon.core.rows import Outcome
from operon.stores.postgres import faults, schema
from operon.stores.postgres.answers import ANSWERS
from operon.stores.postgres.faults import Fault
from operon.stores.postgres.lane import PostgresLane
from operon.stores.postgres.lanes import Lanes
from operon.stores.postgres.notices import Notices
from operon.stores.postgres.patience import Patience
from operon.stores.postgres.session import INDEXED, SQL, Address, Session, where

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from operon.core.store import Lock as Writer

T = TypeVar("T")

CONNECTIONS = 4
"""For everything that does not ride in a lane, nor is a heartbeat."""
OPENING = 5.0
"""Seconds to find the database at launch: somebody is looking at the screen."""
USERS = ("lock", "record", "settle", "join", "joined")


class PostgresStore:
    """Workflows in a Postgres database; see `operon.core.store.Store`.

    Args:
        url: as libpq takes it: `postgresql://user:password@host:port/dbname`, several hosts included.
        patience: seconds for which a lost connection, or a server that refuses for now, is tried again.
        lanes: connections over which starts and journal entries are committed together.
    """

    dialect: Literal["postgres", "sqlite", "memory"] = "postgres"
    writer: Writer | None = None

    def __init__(self, url: str, *, patience: float = 60.0, lanes: int = 2) -> None:
        self.url = where(url)
        self.queries: Mapping[str, str] = {name: SQL[name] for name in USERS}
        self._patience = Patience(patience)
        self._lanes = Lanes([PostgresLane(url, self.url, self._patience) for _ in range(lanes)])
        self._pool = Pool(Address(url, "engine", {**INDEXED, "lock_timeout": f"{patience}s"}), CONNECTIONS)
        self._heart = Pool(Address(url, "heartbeat"), 1)
        self._notices = Notices(url)
        self.listen = self._notices.listen
        self.shout = self._notices.shout
        self._closed = False
        self._threads = ThreadPoolExecutor(CONNECTIONS + 1, "operon-store")

    def open(self, *, migrate: bool = True, adopt: bool = False) -> None:
        """Connect and bring the schema up to date; see `Store.open`."""
        self._persist(
            self._pool,
            lambda session: schema.prepare(session, self.url, migrate=migrate, adopt=adopt),
            seconds=min(OPENING, self._patience.seconds),
        )

    def ask(self, command: Command[T]) -> T:
        """Answer a command, blocking this thread."""
        if self._closed:
            raise faults.closed()
        answer: T
        if rides(command):
            answer = self._lanes.ask(command)
        else:
            pool = self._heart if isinstance(command, Beat) else self._pool
            answer = self._persist(pool, lambda session: ANSWERS[type(command)](session, command))
        return answer

    def submit(self, command: Command[T]) -> Future[T]:
        """Answer a command on a thread of the store's."""
        if self._closed:
            raise faults.closed()
        if rides(command):
            return self._lanes.submit(command)
        return self._threads.submit(self.ask, command)

    def close(self) -> None:
        """Finish what was submitted and disconnect."""
        self._patience.end()
        if not self._closed:
            self._notices.close()
        self._threads.shutdown()
        self._lanes.close()
        self._closed = True
        self._pool.close()
        self._heart.close()

    def _persist(self, pool: Pool, attempt: Callable[[Session], T], seconds: float | None = None) -> T:
        """Try until it succeeds, is refused for good, or patience is over."""
        failure: Exception | None = None
        with pool.session() as session:
            for _ in self._patience.tries(seconds):
                try:
                    return attempt(session)
                except (psycopg.Error, ValueError) as error:
                    failure = error
                    fault = faults.fault(error)
                    if fault is Fault.LOST:
                        session.close()
                    elif fault is not Fault.AGAIN:
                        break
        raise faults.explain(failure or TimeoutError(), self.url) from failure


def rides(command: Command[Any]) -> TypeGuard[LaneCommand]:
    """Whether a command goes in a lane; what changes other workflows too is a transaction of its own."""
    if isinstance(command, Advance):
        return not (isinstance(command.end, Outcome) and command.end.shares)
    return isinstance(command, Start) and not command.row.replace


class Pool:
    """A few sessions that are lent, the one used last first, so that the others need not be opened."""

    def __init__(self, address: Address, size: int) -> None:
        self._idle = [Session(address) for _ in range(size)]
        self._permits = BoundedSemaphore(size)

    @contextmanager
    def session(self) -> Generator[Session]:
        """Lend a session."""
        with self._permits:
            session = self._idle.pop()
            try:
                yield session
            finally:
                self._idle.append(session)

    def close(self) -> None:
        """Disconnect those that are not lent."""
        for session in self._idle:
            session.close()
