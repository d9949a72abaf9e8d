"""A cluster on disk: its files, its password, its lock; it must not know how a server is started on it.

    <home>/data        the data directory
    <home>/password    the superuser's, made at random
    <home>/port        the port it last listened on, kept so that its URL stays the same
    <home>/lock        locked by the supervisor and, inherited, by every process of the server
    <home>/log         what the server has said since its last start

The lock is what tells whether a server lives: the kernel drops it when the last of the server's processes is gone,
so no process id has to be believed.
"""

from __future__ import annotations

import fcntl
import os
import random
import secrets
import shutil
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from operon.embedded.account import Account, home, server_account, within_reach
from operon.embedded.binaries import Binaries, EmbeddedPostgresError, resolve
from operon.embedded.child import run

if TYPE_CHECKING:
    from collections.abc import Mapping

USER = "postgres"
PORTS = range(20000, 32000)
"""Below the range from which the kernel takes ports for outgoing connections, so that a restart finds its port free."""
GOING_PATIENCE = 20.0
"""Seconds to wait for a server that is on its way out."""
READY_PATIENCE = 2.0
"""Seconds to wait for one that says it is ready: it may have been killed, and its last processes are just ending."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The files of one server, and the account and the programs it is run with."""

    home: Path
    account: Account
    binaries: Binaries

    @property
    def data(self) -> Path:
        """The data directory; it exists once the cluster has been made."""
        return self.home / "data"

    @property
    def log(self) -> Path:
        """What the server has said since it was last started; `log.before` is what it said the time before."""
        return self.home / "log"

    def url(self, port: int, database: str = USER) -> str:
        """Return the URL under which the cluster is reached on that port."""
        password = (self.home / "password").read_text()
        return f"postgresql://{USER}:{password}@127.0.0.1:{port}/{quote(database, safe='')}"

    def listening(self) -> int | None:
        """Return the port of the server that lives on these files and is ready, or None."""
        status = self.status()
        return int(status[3]) if len(status) > 7 and status[7].strip() == "ready" else None

    def status(self) -> list[str]:
        """Return the lines the server keeps about itself: pid, data directory, start, port, …, "ready"."""
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []


def open_cluster(directory: Path, binaries: Binaries | Path | None) -> Cluster:
    """Return the cluster in a directory, whether or not it has been made yet."""
    account = server_account()
    found = within_reach(resolve(binaries), account)
    return Cluster(home(directory.absolute(), account), account, found)


def lock(cluster: Cluster) -> int:
    """Lock the cluster and return the lock's descriptor; whoever holds it, or inherited it, keeps others out.

    Once this returns, no process of an earlier server is left: one that is on its way out is waited for.
    Raises `EmbeddedPostgresError` when another server lives here.
    """
    began = time.monotonic()
    while (descriptor := try_lock(cluster)) is None:
        if time.monotonic() - began > (READY_PATIENCE if cluster.listening() else GOING_PATIENCE):
            raise EmbeddedPostgresError(
                f"A Postgres already runs on {cluster.home}: use it, stop it, or choose another directory."
            )
        time.sleep(0.005)
    return descriptor


def try_lock(cluster: Cluster) -> int | None:
    """Lock the cluster if nobody has, and return the lock's descriptor."""
    descriptor = os.open(cluster.home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def prepare(cluster: Cluster, *, port: int, settings: Mapping[str, str], durable: bool) -> None:
    """Make the cluster unless it is there, and write its settings; the caller holds its lock.

    Raises `EmbeddedPostgresError` when the data are another major version's.
    """
    if not cluster.data.exists():
        _initialise(cluster, durable=durable)
    major = int((cluster.data / "PG_VERSION").read_text())
    if major != cluster.binaries.major:
        raise EmbeddedPostgresError(
            f"{cluster.data} was made by Postgres {major}, and these programs are {cluster.binaries}: "
            f"name those of {major} in OPERON_PG_BIN, upgrade the data with pg_upgrade, or delete the directory."
        )
    # We hold the lock, so no server of ours lives: what is left of one is stale, even if its pid is in use again.
    if _answers(cluster):
        raise EmbeddedPostgresError(f"A Postgres that somebody else started runs on {cluster.data}: stop it first.")
    (cluster.data / "postmaster.pid").unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        cluster.log.rename(cluster.log.with_name("log.before"))
    lines = [f"{name} = '{_quoted(value)}'\n" for name, value in settings.items()]
    _write(cluster, cluster.data / "operon.conf", "".join(lines))
    _write(cluster, cluster.home / "port", str(port))


def settings_of(port: int, *, fsync: bool, more: Mapping[str, str]) -> dict[str, str]:
    """Return the server's settings: loopback only, logical decoding possible, durable unless told otherwise."""
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "wal_level": "logical",
        "max_connections": "200",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "fsync": "on" if fsync else "off",
        "full_page_writes": "on" if fsync else "off",
    }
    return settings | dict(more)


def choose_port(cluster: Cluster) -> int:
    """Return the port the cluster had before if it is free, else a free one."""
    with suppress(FileNotFoundError, ValueError):
        if _is_free(before := int((cluster.home / "port").read_text())):
            return before
    for port in random.SystemRandom().sample(PORTS, 200):
        if _is_free(port):
            return port
    raise EmbeddedPostgresError(f"No free port was found between {PORTS.start} and {PORTS.stop}.")


def last_words(cluster: Cluster, lines: int = 12) -> str:
    """Return the end of the server's log, for an error message."""
    try:
        return "\n".join(cluster.log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def _initialise(cluster: Cluster, *, durable: bool) -> None:
    """Run initdb beside the final place and move the result there, so that a crash leaves nothing half made."""
    building = cluster.home / "data.new"
    shutil.rmtree(building, ignore_errors=True)
    password = cluster.home / "password"
    _write(cluster, password, secrets.token_urlsafe(24))
    argv = [cluster.binaries.program("initdb"), "--pgdata", str(building), "--username", USER]
    argv += ["--auth", "scram-sha-256", "--pwfile", str(password), "--encoding", "UTF8", "--no-locale"]
    said = run(argv if durable else [*argv, "--no-sync"], account=cluster.account, cwd=cluster.home)
    if said.returncode != 0:
        raise EmbeddedPostgresError(f"initdb failed in {cluster.home}:\n{said.stdout}{said.stderr}")
    with (building / "postgresql.conf").open("a") as conf:
        conf.write("\ninclude_if_exists 'operon.conf'\n")
    building.rename(cluster.data)


def _answers(cluster: Cluster) -> bool:
    """Tell whether a server on these very files answers at the address left behind in them."""
    status = cluster.status()
    if len(status) < 4 or not status[3].isdigit():
        return False
    import psycopg

    try:
        with psycopg.connect(cluster.url(int(status[3])), connect_timeout=2) as connection:
            row = connection.execute("show data_directory").fetchone()
    except psycopg.OperationalError:
        return False
    return row is not None and Path(str(row[0])).resolve() == cluster.data.resolve()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _write(cluster: Cluster, path: Path, text: str) -> None:
    """Write a file that is the account's alone, whole or not at all."""
    building = path.with_name(path.name + ".new")
    building.unlink(missing_ok=True)
    building.touch(0o600, exist_ok=False)
    building.write_text(text)
    cluster.account.own(building)
    building.rename(path)


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
