"""`operon executors`: the processes that have launched an app, those that run nothing included."""

from __future__ import annotations

from operon.cli.database import App, Database, choose, connect
from operon.cli.screen import dump, listing
from operon.core.commands import Executors
from operon.core.records import at


def command(*, database: Database = None, app: App = None, json: bool = False) -> None:
    """List the processes that have launched an app, living ones first; a dead one lives until another takes its lease.

    Args:
        json: Print JSON.
    """
    with connect(choose(database, app)) as client:
        peers = client.host.store.ask(Executors())
        now = client.host.now()
    if json:
        dump(
            [
                {
                    "id": p.id,
                    "app": p.app,
                    "host": p.host,
                    "pid": p.pid,
                    "alive": p.alive,
                    "version": p.version,
                    "lease_until": at(p.lease_until),
                }
                for p in peers
            ]
        )
        return
    listing(
        "executors",
        ("id", "app", "status", "host", "pid", "lease", "version"),
        [
            (
                p.id,
                p.app,
                "alive" if p.alive else "gone",
                p.host.partition(":")[0],
                p.pid,
                f"{p.lease_until - now:+.0f} s" if p.alive else None,
                p.version,
            )
            for p in peers
        ],
    )
