"""A Postgres server as a child of this process; it must not know where its programs come from.

`with Postgres(directory) as server: connect(server.url)` is all there is to it.
"""

from __future__ import annotations

import atexit
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, LiteralString, Self

from operon.embedded.binaries import Binaries, EmbeddedPostgresError
from operon.embedded.child import Child, descendants
from operon.embedded.cluster import (
    Cluster,
    choose_port,
    last_words,
    lock,
    open_cluster,
    prepare,
    settings_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

Mode = Literal["smart", "fast", "immediate"]
STOP_SIGNALS: Final[dict[Mode, int]] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
START_PATIENCE = 60.0
STOP_PATIENCE = 30.0
PORT_TRIES = 5


class Postgres:
    """A real Postgres on a directory of its own, gone when this process is gone, however that ends.

    It listens on loopback only, with a random password; `url` holds both.  The directory keeps its data, its password
    and its port, so that the next `Postgres` on it continues where this one stopped.

    `directory`: made if missing.  `port`: else the one it had before, or a free one.  `binaries`: one of `discover()`,
    or a directory of programs.  `settings`: more server settings, by name.  `fsync=False`: faster and not safe against
    the *machine's* crash (that of the server alone loses nothing), for tests.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        port: int | None = None,
        binaries: Binaries | Path | None = None,
        settings: Mapping[str, str] | None = None,
        fsync: bool = True,
    ) -> None:
        self._cluster: Cluster = open_cluster(Path(directory), binaries)
        self._wanted_port = port
        self._settings = dict(settings or {})
        self._fsync = fsync
        self._port: int | None = port
        self._child: Child | None = None
        self._owner = os.getpid()

    @property
    def binaries(self) -> Binaries:
        """The programs this server is run with."""
        return self._cluster.binaries

    @property
    def url(self) -> str:
        """The URL of the superuser and the database `postgres`, known from the first start on."""
        return self.database_url("postgres")

    @property
    def log(self) -> Path:
        """The file that the server writes what it has to say to."""
        return self._cluster.log

    @property
    def pid(self) -> int:
        """The process id of the running server's first process."""
        return self._running().pid

    def database_url(self, name: str) -> str:
        """Return the URL of a database of this server."""
        if self._port is None:
            raise EmbeddedPostgresError("This Postgres has not been started: call start(), or enter it with `with`.")
        return self._cluster.url(self._port, name)

    def start(self) -> str:
        """Start the server, and return its URL once it accepts connections; a running one is left alone.

        The first start on a directory makes the cluster (under a second).
        Raises `EmbeddedPostgresError`, with the end of the server's log, when it cannot be started.
        """
        if self._child is not None and not self._child.ended:
            return self.url
        descriptor = lock(self._cluster)
        try:
            self._child = self._start_locked(descriptor)
        finally:
            os.close(descriptor)  # from here on the server's own processes hold the lock
        atexit.register(self._at_exit)
        return self.url

    def stop(self, mode: Mode = "fast") -> None:
        """Stop the server; once this returns, none of its processes is left.  A stopped one is left alone.

        "fast" ends connections and writes everything down, "smart" waits for connections to end by themselves,
        "immediate" leaves the next start to recover, as after a crash.
        """
        child, self._child = self._child, None
        atexit.unregister(self._at_exit)
        if child is None:
            return
        child.signal(STOP_SIGNALS[mode])
        try:
            child.wait(None if mode == "smart" else STOP_PATIENCE)
        except TimeoutError:
            _kill_tree(child)
        self._until_gone()

    def kill(self) -> None:
        """Kill every process of the server at once with SIGKILL, as a machine's crash would; for tests.

        Once this returns, none of them runs.  `start` then recovers from the write-ahead log.
        """
        child = self._running()
        self._child = None
        atexit.unregister(self._at_exit)
        _kill_tree(child)
        self._until_gone()

    def restart(self) -> str:
        """Stop the server in an orderly way and start it on the same port; return its URL."""
        self.stop()
        return self.start()

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create an empty database, or a copy of another one that nobody is connected to, and return its URL."""
        if self._fsync:
            self._administer("create database {} template {}", name, template)
        else:  # copying files takes two checkpoints, which cost little here, and half the processor time
            self._administer("create database {} template {} strategy file_copy", name, template)
        return self.database_url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, ending the connections to it."""
        self._administer("drop database if exists {} with (force)", name)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _running(self) -> Child:
        if self._child is None:
            raise EmbeddedPostgresError("This Postgres is not running: call start(), or enter it with `with`.")
        return self._child

    def _start_locked(self, descriptor: int) -> Child:
        for attempt in range(PORT_TRIES):
            port = self._port or choose_port(self._cluster)
            settings = settings_of(port, fsync=self._fsync, more=self._settings)
            prepare(self._cluster, port=port, settings=settings, durable=self._fsync)
            child = Child(
                [self.binaries.program("postgres"), "-D", str(self._cluster.data)],
                account=self._cluster.account,
                log=self._cluster.log,
                inherit=descriptor,
                cwd=self._cluster.data,
            )
            if self._until_ready(child):
                self._port = port
                return child
            taken = "could not bind" in last_words(self._cluster)
            if self._port is not None or not taken or attempt == PORT_TRIES - 1:
                break
        raise EmbeddedPostgresError(
            f"{self.binaries} did not start on {self._cluster.data}. "
            f"The end of its log, {self._cluster.log}:\n{last_words(self._cluster)}"
        )

    def _until_ready(self, child: Child) -> bool:
        """Wait until the server says in its pid file that it is ready; False if it ended instead."""
        deadline = time.monotonic() + START_PATIENCE
        while not child.ended:
            status = self._cluster.status()
            if status and status[0] == str(child.pid) and self._cluster.listening():
                return True
            if time.monotonic() > deadline:
                _kill_tree(child)
                return False
            with suppress(TimeoutError):
                child.wait(0.005)
        return False

    def _until_gone(self) -> None:
        """Wait until the last of the server's processes is gone, and with it the lock."""
        os.close(lock(self._cluster))

    def _administer(self, statement: LiteralString, *names: str) -> None:
        import psycopg
        from psycopg import sql

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def _at_exit(self) -> None:
        if os.getpid() == self._owner:  # not in a fork of the process that started it
            self.stop()


def _kill_tree(child: Child) -> None:
    """Kill the server's first process and all below it; those it forks meanwhile end by themselves when it is gone."""
    child.signal(signal.SIGSTOP)
    below = [] if child.ended else descendants(child.pid)
    for pid in below:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    child.signal(signal.SIGKILL)
    child.wait(STOP_PATIENCE)
