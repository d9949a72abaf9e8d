# ruff: noqa: S608 - statements of names that stand here
"""What a heartbeat costs while many workflows wait for others that have not ended.

    python benchmarks/heartbeat.py [PARENTS]

On a SQLite file, and on an embedded Postgres: 100,000 parked parents, each awaiting a child that sleeps.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median

import psycopg

from operon.app.stores import store_for
from operon.core.commands import Beat
from operon.embedded import Postgres

BEATS = 20


def statements(numbers: str, prefix: str, never: str, later: str, now: str) -> Iterator[str]:
    """Spell what writes parents and children, and who awaits whom."""
    columns = "id, claim, ready_at, created_at, nonce, status, name, digest, version, input"
    for kind, ready in (("p", never), ("c", later)):
        row = f"'{kind}' || n, 1, {ready}, {now}, 1, 2, 'w', '', '', '{{}}'"
        yield f"insert into {prefix}workflows ({columns}) {numbers} select {row} from numbers"
    yield f"insert into {prefix}awaits {numbers} select 'p' || n, 'c' || n from numbers"


@contextmanager
def databases(parents: int) -> Iterator[list[str]]:
    """Give the URL of each database, filled."""
    numbers = f"with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < {parents})"
    with tempfile.TemporaryDirectory() as directory, Postgres(Path(directory) / "postgres") as server:
        urls = [f"sqlite:///{directory}/bench.db", server.create_database("bench")]
        for url in urls:
            with closing(store_for(url)) as store:
                store.open()
        with closing(sqlite3.connect(f"{directory}/bench.db")) as file, file:
            for statement in statements(numbers, "operon_", "null", str(time.time() + 86400), "1"):
                file.execute(statement)
            file.execute("analyze")
        with psycopg.connect(urls[1], autocommit=True) as connection:
            for statement in statements(numbers, "operon.", "null::timestamptz", "now() + interval '1 day'", "now()"):
                connection.execute(statement.encode())
            connection.execute("vacuum analyze")
        yield urls


def main() -> None:
    """Print one line a database."""
    parents = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with databases(parents) as urls:
        for url in urls:
            with closing(store_for(url)) as store:
                store.open()
                times: list[float] = []
                for _ in range(BEATS):
                    begun = time.perf_counter()
                    store.ask(Beat(0, 0.0))
                    times.append((time.perf_counter() - begun) * 1000)
            name = url.partition(":")[0]
            print(f"{name:10} {parents} wait: p50 {median(times):6.2f} ms, longest {max(times):6.2f} ms")


if __name__ == "__main__":
    main()
