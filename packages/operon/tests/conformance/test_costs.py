"""What a claim reads, counted: others who are ready, or in line, do not make it dearer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from conformance.world import World, claim
from operon.core import sql
from operon.core.commands import Claim, Seed
from operon.core.rows import Limits
from operon.stores.postgres.session import SQL as POSTGRES
from operon.stores.sqlite import SqliteStore
from operon.stores.sqlite.answers import answer

if TYPE_CHECKING:
    from operon.stores.postgres import PostgresStore

MANY = 30000
FEW = 10
LINE = """
insert into operon.workflows (id, status, name, digest, version, input, nonce, queue, rank, ready_at, partition)
select %(id)s || g, 0, 'greet', 'd', 'v1', '[]', g, %(queue)s, now(),
    case when %(queue)s::text is null then '2020-01-01'::timestamptz end, 'p' || g %% 3
from generate_series(1, %(count)s) g
"""
LINE_SQLITE = """
with recursive g (n) as (select 1 union all select n + 1 from g where n < :count)
insert into operon_workflows (
  id, status, name, digest, version, input, nonce, queue, rank, ready_at, created_at, partition
)
select :id || n, 0, 'greet', 'd', 'v1', '[]', n, :queue, 1.0, iif(:queue is null, 5.0, null), 1.0, 'p' || n % 3 from g
"""


class Meter:
    """Puts rows into a store, and says what a claim costs there, in what its database counts; nothing is claimed."""

    def __init__(self, world: World) -> None:
        self._store: Any = world.store
        self.executor = world.enlist()
        for name in ("short", "long"):
            world.ask(Seed(name, Limits(), "shop"))

    def line(self, queue: str | None, count: int) -> None:
        values = {"id": f"{queue}-{count}-", "queue": queue, "count": count}
        if isinstance(self._store, SqliteStore):
            with self._store._opened().writing():
                self._store._opened().execute(LINE_SQLITE, values)
            return
        with self._store._services.session() as session:
            session.connection.execute(LINE, values)

    def cost(self, queue: str | None) -> int:
        command = claim(self.executor, FEW // 2, queues=((queue, FEW // 2),) if queue else ())
        if isinstance(self._store, SqliteStore):
            return _instructions(self._store, command)
        return _pages(self._store, command)


def _instructions(store: SqliteStore, command: Claim) -> int:
    """Count the instructions of SQLite's machine, in tens."""
    counted = 0
    connection = store._opened()

    def tick() -> int:
        nonlocal counted
        counted += 1
        return 0

    connection.set_progress_handler(tick, 10)
    try:
        connection.execute("begin immediate")
        assert answer(connection, command, store.clock())
    finally:
        connection.execute("rollback")
        connection.set_progress_handler(None, 0)
    return counted


def _pages(store: PostgresStore, command: Claim) -> int:
    """Count the pages that Postgres looks at, with the settings of the store's own session."""
    names, places = zip(*command.queues or (("none", 1),), strict=True)
    values: dict[str, Any] = {
        "executor": command.executor,
        "limit": command.limit,
        "names": list(command.names),
        "instances": list(command.instances),
        "version": command.version,
    }
    statement = "admit" if command.queues else "claim"
    if command.queues:
        values |= {"queues": list(names), "places": list(places)}
    with store._services.session() as session, session.connection.transaction(force_rollback=True):
        explained = f"explain (analyze, buffers, format json) {sql.pyformat(POSTGRES[statement])}".encode()
        (row,) = session.connection.execute(explained, values).fetchall()
    plan: Any = row["QUERY PLAN"][0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


@pytest.fixture
def meter(durable: World) -> Meter:
    return Meter(durable)


def test_a_claim_from_a_long_line_reads_no_more_than_one_from_a_short_line(meter: Meter) -> None:
    """Nor does what stands in other queues count."""
    meter.line("short", FEW)
    alone = meter.cost("short")
    meter.line("long", MANY)
    assert meter.cost("short") < 2 * alone
    assert meter.cost("long") < 2 * alone


def test_a_claim_from_a_herd_reads_no_more_than_one_from_a_few(meter: Meter) -> None:
    """All are due at the same instant: the first are taken as they come, and not searched for."""
    meter.line(None, FEW)
    alone = meter.cost(None)
    meter.line(None, MANY)
    assert meter.cost(None) < 2 * alone


def test_a_claim_reads_nothing_of_what_stands_in_line(meter: Meter) -> None:
    """Who has no queue is found without a look at those who have one."""
    meter.line(None, FEW)
    alone = meter.cost(None)
    meter.line("long", MANY)
    assert meter.cost(None) < 2 * alone
