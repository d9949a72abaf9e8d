"""A store in Postgres: who answers which command, over which connection. Must not know what any command does."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, TypeVar

import psycopg

from operon.core import commands as c
from operon.core.commands import Advance, Command, LaneCommand, Start
from operon.core.rows import Outcome
from operon.promises import called
from operon.stores.postgres import faults, schema
from operon.stores.postgres.answers import ANSWERS
from operon.stores.postgres.faults import Fault
from operon.stores.postgres.lane import PostgresLane
from operon.stores.postgres.lanes import Lanes
from operon.stores.postgres.notices import Notices
from operon.stores.postgres.patience import Patience
from operon.stores.postgres.pool import Pool
from operon.stores.postgres.session import INDEXED, SQL, Address, where

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from operon.core.store import Lock as Writer
    from operon.stores.postgres.session import Session

T = TypeVar("T")

CONNECTIONS = 2
"""For each kind of command that does not ride in a lane, nor is a heartbeat."""
MOMENT = "200ms"
"""How long a statement waits for a row that is locked elsewhere. What a person waits for is tried again, and keeps no
connection meanwhile; a service leaves it for later."""
SERVICE = 5.0
"""Seconds that a service tries again: it will be asked for anew."""
OPENING = 5.0
"""Seconds to find the database at launch: somebody is looking at the screen."""
SERVICES: frozenset[type[Command[Any]]] = frozenset({
    c.Bury, c.Claim, c.Cleaned, c.CleanUp, c.Due, c.Executors, c.Fire, c.HandBack, c.Opening, c.Prune, c.Retire,
    c.Ripen, c.Running, c.Strip, c.Sweep, c.TakeOver, c.Wake,
})  # fmt: skip
"""What processes ask for themselves, again and again."""
CHANGES: frozenset[type[Command[Any]]] = frozenset({
    c.Advance, c.Cancel, c.Delete, c.Enlist, c.Form, c.ForgetSchedule, c.KeepSchedule, c.Seed, c.SetQueue, c.Start,
    c.StartMany,
})  # fmt: skip
"""What somebody waits for, and may lock rows."""
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
        settings = {**INDEXED, "lock_timeout": MOMENT}
        self._heartbeat = Pool(Address(url, "heartbeat", {"lock_timeout": MOMENT}), 1)
        self._reads = Pool(Address(url, "reading", settings), CONNECTIONS)
        self._services = Pool(Address(url, "service", settings), CONNECTIONS)
        self._changes = Pool(Address(url, "change", settings), CONNECTIONS)
        self._notices = Notices(url)
        self.listen = self._notices.listen
        self.shout = self._notices.shout
        self._closed = False

    def open(self, *, migrate: bool = True, adopt: bool = False) -> None:
        """Connect and bring the schema up to date; see `Store.open`."""
        self._persist(
            self._changes,
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
            pool = self._pool(command)
            seconds = SERVICE if pool is self._services else None
            answer = self._persist(pool, lambda session: ANSWERS[type(command)](session, command), seconds)
        return answer

    def submit(self, command: Command[T], then: Callable[[Future[T]], object] | None = None) -> Future[T]:
        """Answer a command on a thread of the store's."""
        if self._closed:
            raise faults.closed()
        if rides(command):
            return self._lanes.submit(command, then)
        return called(self._pool(command).threads.call(self.ask, command), then)

    def submit_many(self, commands: Sequence[Command[Any]]) -> Sequence[Future[Any]]:
        """Submit what has come up at once: at half of what it costs one by one, and in one commit where it may be."""
        if self._closed:
            raise faults.closed()
        riding = [command for command in commands if rides(command)]
        if len(riding) == len(commands):
            return self._lanes.submit_many(riding)
        return [self.submit(command) for command in commands]

    def close(self) -> None:
        """Finish what was submitted and disconnect."""
        self._patience.end()
        if not self._closed:
            self._notices.close()
        pools = (self._heartbeat, self._reads, self._services, self._changes)
        for pool in pools:
            pool.threads.finish()
        self._lanes.close()
        self._closed = True
        for pool in pools:
            pool.close()

    def _pool(self, command: Command[Any]) -> Pool:
        """Choose whose connections a command takes: what waits for a lock keeps nobody of another kind waiting."""
        if isinstance(command, c.Beat):
            return self._heartbeat
        if type(command) in SERVICES:
            return self._services
        return self._changes if type(command) in CHANGES else self._reads

    def _persist(self, pool: Pool, attempt: Callable[[Session], T], seconds: float | None = None) -> T:
        """Try until it succeeds, is refused for good, or patience is over; a service does not try a lock again."""
        failure: Exception | None = None
        ends = time.monotonic() + (self._patience.seconds if seconds is None else seconds)
        for _ in self._patience.tries():
            with pool.session() as session:
                try:
                    return attempt(session)
                except (psycopg.Error, ValueError) as error:
                    failure = error
                    fault = faults.fault(error)
                    if fault is Fault.LOST:
                        session.close()
            if fault is Fault.FINAL or (fault is Fault.LOCKED and pool is self._services):
                break
            if fault is not Fault.LOCKED and time.monotonic() >= ends:
                break
        raise faults.explain(failure or TimeoutError(), self.url) from failure


def rides(command: Command[Any]) -> TypeGuard[LaneCommand]:
    """Whether a command goes in a lane; what changes other workflows too is a transaction of its own."""
    if isinstance(command, Advance):
        return not (isinstance(command.end, Outcome) and command.end.shares)
    return isinstance(command, Start) and not command.row.replace
