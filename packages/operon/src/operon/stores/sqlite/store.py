"""The store in a SQLite file: who writes when, and what is tried again; it must not know any statement of a command."""

from __future__ import annotations

import random
import time
from collections import deque
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from operon.errors import ForeignDatabase, StoreError, StoreUnavailable
from operon.promises import called
from operon.stores.migrations import migrate, shipped
from operon.stores.sqlite.answers import READS, Undone, answer
from operon.stores.sqlite.combiner import Combiner, Job
from operon.stores.sqlite.connection import SQL, Connection, connect_reader, connect_writer
from operon.stores.sqlite.faults import explain, is_transient
from operon.stores.sqlite.file import fingerprint, locate, writer_of
from operon.stores.sqlite.ledger import SqliteLedger
from operon.stores.sqlite.listener import Listener
from operon.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from operon.core.commands import Command
    from operon.core.store import Lock

T = TypeVar("T")
PACKAGE = "operon.stores.sqlite"
CLOSING = 0.5
"""Seconds that a lock held elsewhere is waited for while the store closes."""
GUESTS = ("record", "settle", "settle_step", "join", "joined")
"""The statements that run on connections of the user's."""


class SqliteStore:
    """Answers writes by group commit under the process's one writer lock, and reads beside it."""

    def __init__(self, url: str, *, patience: float = 60.0, clock: Callable[[], float] = time.time) -> None:
        self.path = locate(url)
        self.url = f"sqlite:///{self.path}"
        self.dialect: Literal["postgres", "sqlite", "memory"] = "sqlite"
        self.queries: Mapping[str, str] = {name: SQL[name] for name in GUESTS}
        self._writer = writer_of(self.path)
        self.writer: Lock | None = self._writer
        self.clock: Callable[[], float] = lambda: round(clock(), 6)
        """To the microsecond, as a datetime has it: a page of `find` begins exactly where the last one ended."""
        self._patience = patience
        self._combiner = Combiner(self._flush, f"operon-writer {self.path}")
        self._connection: Connection | None = None
        self._readers: deque[Connection] = deque()
        self._listener = Listener(self.path, self.clock)
        self._closing = False
        self._reading = Threads(2, f"operon-reader {self.path}")

    def open(self, *, migrate: bool = True, adopt: bool = False) -> None:
        """Create the file if there is none, and bring its schema up to date.

        Raises:
            StoreError: the file cannot be used, and why.
            StoreUnavailable: another process kept it locked all the time.
            SchemaMismatch: the schema is newer than this code, or older and may not be migrated.
            ForeignDatabase: the file is a copy of another one.
        """
        self._patiently(lambda: self._prepare(may_migrate=migrate, adopt=adopt))

    def ask(self, command: Command[T]) -> T:
        """Answer a command; a write is on the disk once this returns."""
        if type(command) in READS:
            answer: T = self._patiently(lambda: self._read(command))
            return answer
        return self._combiner.ask(command)

    def submit(self, command: Command[T], then: Callable[[Future[T]], object] | None = None) -> Future[T]:
        """Answer a command on another thread; a write is on the disk once the future is done."""
        if type(command) in READS:
            return called(self._reading.call(self.ask, command), then)
        return self._combiner.submit(command, then)

    def listen(self, heard: Callable[[str], None]) -> None:
        """Say `ready` after another connection's commit, if something is to be claimed."""
        self._listener.listen(heard)

    def shout(self, word: str) -> None:
        """Do nothing: every commit is heard."""

    def close(self) -> None:
        """Finish what was submitted and close the file, with little patience; closing twice is harmless."""
        self._closing = True
        self._listener.close()
        self._combiner.close()
        self._reading.finish()
        while self._readers:
            self._readers.pop().close()
        connection, self._connection = self._connection, None
        if connection:
            connection.close()

    def _prepare(self, *, may_migrate: bool, adopt: bool) -> None:
        """Connect, migrate, and compare the file with the one it was."""
        with self._locked():
            connection = connect_writer(self.path)
            try:
                migrate(SqliteLedger(connection, self.clock()), shipped(PACKAGE), allowed=may_migrate)
                self._identify(connection, adopt=adopt)
            except BaseException:
                connection.close()
                raise
            self._connection = connection

    def _identify(self, connection: Connection, *, adopt: bool) -> None:
        here, known = fingerprint(self.path), connection.one("identity")
        if known is not None and known[0] == here:
            return
        if known is not None and not adopt:
            raise ForeignDatabase(
                f"{self.url} is a copy of another database, or was restored or moved here. If it is to go on with that "
                "database's work, and nothing else will, adopt it: `operon migrate --adopt`, or "
                "app.launch(adopt=True); else start from an empty file."
            )
        with connection.writing():
            connection.run("identify" if known is None else "adopt", file=here)

    def _flush(self, jobs: Sequence[Job]) -> None:
        """Answer a batch in one commit; what goes wrong with the commit goes wrong for all."""
        try:
            answers = self._patiently(lambda: self._commit(jobs))
        except StoreError as error:
            answers = [(None, error)] * len(jobs)
        for job, (value, fault) in zip(jobs, answers, strict=True):
            if fault:
                job.future.set_exception(fault)
            else:
                job.future.set_result(value)

    def _commit(self, jobs: Sequence[Job]) -> list[tuple[Any, StoreError | None]]:
        with self._locked(), self._opened().writing():
            return [self._answer(self._opened(), job.command) for job in jobs]

    def _answer(self, db: Connection, command: Command[Any]) -> tuple[Any, StoreError | None]:
        """Answer one command of a batch; if it fails, its neighbours do not notice."""
        try:
            with db.savepoint():
                return answer(db, command, self.clock()), None
        except Undone as undone:
            return undone.answer, None
        except Exception as error:
            if not db.in_transaction or is_transient(error):
                raise
            return None, explain(error, self.url)

    def _read(self, command: Command[T]) -> T:
        """Answer from the last commit, on a connection of this moment's own."""
        self._opened()
        try:
            reader = self._readers.pop()
        except IndexError:
            reader = connect_reader(self.path)
        try:
            value: T = answer(reader, command, 0.0)
        except BaseException:
            reader.close()
            raise
        self._readers.append(reader)
        return value

    def _opened(self) -> Connection:
        if self._connection is None:
            raise StoreError(f"{self.url} is not open: call open() first, and nothing after close().")
        return self._connection

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Hold the writer's lock, which the user's transactions in this process hold too."""
        if not self._writer.acquire(timeout=self._patience):
            raise StoreUnavailable(
                f"{self.url}: a transaction of this process has been writing for {self._patience:g} seconds; "
                "make it shorter, and call no verb in it but start, enqueue and send."
            )
        try:
            yield
        finally:
            self._writer.release()

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Try until it works, fails for good, or patience ends; nothing is held between two tries."""
        began, pause = time.monotonic(), 0.001
        while True:
            try:
                return attempt()
            except Exception as error:
                fault = explain(error, self.url)
                patience = min(CLOSING, self._patience) if self._closing else self._patience
                if not fault.transient or time.monotonic() >= began + patience:
                    raise fault from error
            time.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - it only keeps processes apart
            pause = min(pause * 2, 0.1)
