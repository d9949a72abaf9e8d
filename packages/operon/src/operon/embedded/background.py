"""A Postgres server that is left running when we end: `operon postgres start | stop | url`.

It must not know the command line.  Nothing is remembered but the cluster's own files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from operon.embedded.binaries import Binaries, EmbeddedPostgresError
from operon.embedded.child import run
from operon.embedded.cluster import (
    Cluster,
    choose_port,
    last_words,
    lock,
    open_cluster,
    prepare,
    settings_of,
    try_lock,
)

PATIENCE = "60"


def start_in_background(directory: str | Path, *, port: int | None = None, binaries: Binaries | None = None) -> str:
    """Start the server on a directory unless it runs, leave it running, and return its URL.

    Once this returns it accepts connections, and goes on when we end.
    Raises `EmbeddedPostgresError` when it cannot be started.
    """
    cluster = open_cluster(Path(directory), binaries)
    if url := _url(cluster):
        return url
    descriptor = lock(cluster)
    try:
        chosen = port or choose_port(cluster)
        prepare(cluster, port=chosen, settings=settings_of(chosen, fsync=True, more={}), durable=True)
        _pg_ctl(cluster, "start", "-l", str(cluster.log), inherit=[descriptor])
    finally:
        os.close(descriptor)
    return cluster.url(chosen)


def stop_in_background(directory: str | Path) -> bool:
    """Stop the server on a directory in an orderly way; False if none was running."""
    cluster = _existing(directory)
    if cluster is None or _url(cluster) is None:
        return False
    _pg_ctl(cluster, "stop", "-m", "fast")
    return True


def running_url(directory: str | Path) -> str | None:
    """Return the URL of the server that runs on a directory, or None."""
    cluster = _existing(directory)
    return None if cluster is None else _url(cluster)


def _existing(directory: str | Path) -> Cluster | None:
    return open_cluster(Path(directory), None) if Path(directory).is_dir() else None


def _url(cluster: Cluster) -> str | None:
    """Return the URL if a server lives, which is when its lock is held."""
    port = cluster.listening()
    if port is None:
        return None
    descriptor = try_lock(cluster)
    if descriptor is None:
        return cluster.url(port)
    os.close(descriptor)
    return None


def _pg_ctl(cluster: Cluster, verb: str, *more: str, inherit: Sequence[int] = ()) -> None:
    argv = [cluster.binaries.program("pg_ctl"), verb, "-D", str(cluster.data), "-w", "-t", PATIENCE, *more]
    said = run(argv, account=cluster.account, cwd=cluster.home, inherit=inherit)
    if said.returncode != 0:
        raise EmbeddedPostgresError(
            f"{cluster.binaries} did not {verb} on {cluster.data}: {said.stderr.strip()}\n"
            f"The end of its log, {cluster.log}:\n{last_words(cluster)}"
        )
