"""A real Postgres for development and tests, as a child of this process or left running in the background.

It finds a server's programs, makes a cluster, and sees to it that the server never outlives whoever wanted it.
It must not know what the database is used for.
"""

from operon.embedded.background import running_url, start_in_background, stop_in_background
from operon.embedded.binaries import Binaries, EmbeddedPostgresError, discover
from operon.embedded.postgres import Postgres

__all__ = [
    "Binaries",
    "EmbeddedPostgresError",
    "Postgres",
    "discover",
    "running_url",
    "start_in_background",
    "stop_in_background",
]
