"""How many versions of its rows a life leaves behind for Postgres to clear away, and whether indexes grow by them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from conformance.world import SUCCESS, claim, process, start, step
from operon.core import commands as c
from operon.core.rows import Limits, Park
from operon.stores.postgres import PostgresStore, writes
from operon.stores.postgres.answers import ANSWERS
from operon.stores.postgres.session import INDEXED, Address, Session

if TYPE_CHECKING:
    from collections.abc import Generator

Versions = dict[str, tuple[int, int, int]]
"""Of each table, how many rows were inserted, and how many updated: in all, and without a word to any index."""
TOLD = """
select relname, n_tup_ins, n_tup_upd, n_tup_hot_upd from pg_stat_xact_user_tables
where schemaname = 'operon' and n_tup_ins + n_tup_upd > 0
"""


@pytest.fixture
def session(ready_postgres_url: str) -> Iterator[Session]:
    """One session of a store's, in a transaction: what Postgres counts in it is known at once, on every version."""
    with closing(PostgresStore(ready_postgres_url)) as store:
        store.open()
    with (
        closing(Session(Address(ready_postgres_url, "test", INDEXED))) as made,
        made.connection.transaction(force_rollback=True),
    ):
        yield made


def ask(session: Session, command: c.Command[Any]) -> Any:
    """Answer a command within the transaction."""
    if isinstance(command, c.Start | c.Advance):
        (answer,) = writes.perform(session, [command])
        return answer
    return ANSWERS[type(command)](session, command)


@contextmanager
def counted(session: Session) -> Generator[Versions]:
    """Count what becomes of rows within."""
    found: Versions = {}
    before = versions(session)
    yield found
    for table, counts in versions(session).items():
        earlier = before.get(table, (0, 0, 0))
        found[table] = (counts[0] - earlier[0], counts[1] - earlier[1], counts[2] - earlier[2])


def versions(session: Session) -> Versions:
    rows = session.connection.execute(TOLD).fetchall()
    return {row["relname"]: (row["n_tup_ins"], row["n_tup_upd"], row["n_tup_hot_upd"]) for row in rows}


def test_a_workflow_leaves_one_dead_version(session: Session) -> None:
    """It is inserted as running, and updated once, when it has ended; nothing of its journal ever changes.

    The update is none within the page alone (HOT): the state is in the condition of nearly every index.
    """
    executor = ask(session, c.Enlist(process()))
    with counted(session) as found:
        assert ask(session, start(executor=executor)).created
        assert ask(session, c.Advance("w", 1, (step("1"),))).written
        assert ask(session, c.Advance("w", 1, (step("2"),), SUCCESS)).written
    assert found["workflows"] == (1, 1, 0)
    assert found["steps"] == (2, 0, 0)


def test_a_sleeper_leaves_two_more(session: Session) -> None:
    """Parked, and claimed."""
    executor = ask(session, c.Enlist(process()))
    with counted(session) as found:
        assert ask(session, start(executor=executor)).created
        assert ask(session, c.Advance("w", 1, (step("1"),), Park(1.0))).parked
        assert [it.row.id for it in ask(session, claim(executor))] == ["w"]
        assert ask(session, c.Advance("w", 2, (), SUCCESS)).written
    assert found["workflows"] == (1, 3, 0)


def test_an_item_of_a_queue_leaves_one_more(session: Session) -> None:
    """Admitted. Its queue's row changes within its page."""
    executor = ask(session, c.Enlist(process()))
    assert ask(session, c.Seed("line", Limits(concurrency=5), "shop")) is None
    with counted(session) as found:
        assert ask(session, start(queue="line", partition="p")).created
        assert [it.row.id for it in ask(session, claim(executor, queues=(("line", 5),)))] == ["w"]
        assert ask(session, c.Advance("w", 1, (), SUCCESS)).written
    assert found["workflows"] == (1, 2, 0)
    assert found["queues"] == (0, 1, 1)


def test_a_heartbeat_changes_no_index(session: Session) -> None:
    """Twenty a minute and process: each is an update within the page, which its next reader clears away."""
    executor = ask(session, c.Enlist(process()))
    with counted(session) as found:
        for _ in range(5):
            assert ask(session, c.Beat(executor, 15.0)).alive
    assert found["executors"] == (0, 5, 5)
