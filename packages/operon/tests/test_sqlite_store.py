"""What is SQLite's own: one file, one writer, other processes, and errors that say what to do."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
import threading
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from children import PATIENCE, Child, started
from conformance.world import SUCCESS, World, start, step
from operon.core.commands import Count, Find, Load
from operon.core.rows import (
    Entry,
    Filter,
    Guard,
    Kind,
    NewWorkflow,
    Outcome,
    record_parameters,
    workflow_parameters,
)
from operon.core.states import Status
from operon.errors import DeclarationError, ForeignDatabase, SchemaMismatch, StoreError, StoreUnavailable
from operon.stores.postgres import PostgresStore
from operon.stores.sqlite import SqliteStore
from operon.stores.sqlite.connection import Connection, connect_reader
from operon.stores.sqlite.faults import FAULTS, explain
from operon.stores.sqlite.file import locate

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

IMPATIENT = 0.02


@contextmanager
def opened(path: Path, **options: Any) -> Generator[World]:
    with closing(SqliteStore(f"sqlite:///{path}", **options)) as store:
        store.open()
        yield World(store, lambda _: None)


@pytest.fixture
def world(sqlite_path: Path) -> Iterator[World]:
    with opened(sqlite_path) as made:
        yield made


@pytest.fixture
def user(world: World, sqlite_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of the user's, on which nothing is committed by itself."""
    with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as connection:
        yield connection


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///shop.db", "shop.db"),
        ("sqlite:///data/shop.db", "data/shop.db"),
        ("sqlite:////var/shop.db", "/var/shop.db"),
        ("sqlite+aiosqlite:////var/shop.db?timeout=5", "/var/shop.db"),
        ("shop.db", "shop.db"),
        ("/var/shop.db", "/var/shop.db"),
        ("./sqlite:odd.db", "./sqlite:odd.db"),
    ],
)
def test_a_url_names_a_file(url: str, path: str) -> None:
    assert locate(url) == path


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", ":memory:", "file:x?mode=memory", ""])
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(DeclarationError, match="in memory"):
        SqliteStore(url)


def test_what_was_answered_is_there_when_the_file_is_opened_again(sqlite_path: Path) -> None:
    for expected in (True, False):
        with opened(sqlite_path) as world:
            assert world.start("w").created is expected


def test_rows_of_one_instant_are_paged_by_id(sqlite_path: Path) -> None:
    with opened(sqlite_path, clock=lambda: 1e9) as world:
        for n in range(5):
            world.start(f"w{n}")
        pages = [world.ask(Find(Filter(limit=2, after=after))) for after in (None, (1e9, "w3"), (1e9, "w1"))]
        assert [[row.id for row in page] for page in pages] == [["w4", "w3"], ["w2", "w1"], ["w0"]]


def test_commits_are_on_the_disk_before_they_are_answered(world: World) -> None:
    connection = writing(world)
    assert connection.execute("pragma journal_mode").fetchone()[0] == "wal"
    assert connection.execute("pragma synchronous").fetchone()[0] == 2


def test_a_process_that_may_not_migrate_says_what_is_missing(sqlite_path: Path) -> None:
    with pytest.raises(SchemaMismatch, match="operon migrate"):
        SqliteStore(str(sqlite_path)).open(migrate=False)
    with opened(sqlite_path):
        pass
    with closing(SqliteStore(str(sqlite_path))) as store:
        store.open(migrate=False)


def test_a_copy_does_not_go_on_with_the_originals_work(sqlite_path: Path) -> None:
    """Until a person says so, and then it is a database of its own."""
    with opened(sqlite_path) as world:
        world.start("w")
    copy = sqlite_path.with_name("copy.db")
    shutil.copy(sqlite_path, copy)
    with pytest.raises(ForeignDatabase, match="adopt"):
        SqliteStore(str(copy)).open()
    with closing(SqliteStore(str(copy))) as store:
        store.open(adopt=True)
    for path in (copy, sqlite_path):
        with opened(path) as world:
            assert world.status("w") == "queued"


def test_a_file_that_was_renamed_is_the_same(sqlite_path: Path) -> None:
    with opened(sqlite_path):
        pass
    with opened(sqlite_path.rename(sqlite_path.with_name("renamed.db"))) as world:
        assert world.start("w").created


# ── Errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", FAULTS)
def test_every_fault_is_explained_and_told_apart(code: int) -> None:
    """By the primary code, whichever extended one came."""
    error = sqlite3.OperationalError("as SQLite says")
    error.sqlite_errorcode = code | 3 << 8
    fault = explain(error, "sqlite:///x.db")
    assert (type(fault), fault.transient) == (FAULTS[code][0], FAULTS[code][0] is StoreUnavailable)
    assert all(part in str(fault) for part in ("sqlite:///x.db", FAULTS[code][1], "as SQLite says"))


def test_the_codes_that_pass_are_those_that_pass() -> None:
    passing = {code for code, (kind, _) in FAULTS.items() if kind is StoreUnavailable}
    assert passing == {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_FULL,
    }


def test_no_file_can_be_made_in_no_directory(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="create its directory"):
        SqliteStore(f"sqlite:///{tmp_path}/missing/x.db").open()


def test_what_is_no_database_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Ada, " * 1000)
    with pytest.raises(StoreError, match="no SQLite database"):
        SqliteStore(str(path)).open()
    assert path.read_text().startswith("Dear Ada")


def test_a_damaged_file_says_so_and_is_not_tried_again(sqlite_path: Path) -> None:
    with opened(sqlite_path) as world:
        for n in range(200):
            world.start(f"w{n}", input='"' + "x" * 1000 + '"')
    half = sqlite_path.stat().st_size // 8192
    with sqlite_path.open("r+b") as file:
        file.seek(4096 * half)
        file.write(b"\xa5" * 4096 * (half // 2))
    with opened(sqlite_path) as world, pytest.raises(StoreError, match="damaged"):
        world.ask(Find(Filter(limit=1000)))


def test_a_connection_for_reading_cannot_write(world: World, sqlite_path: Path) -> None:
    with closing(connect_reader(str(sqlite_path))) as reader, pytest.raises(sqlite3.OperationalError) as caught:
        reader.execute("delete from operon_workflows")
    assert "read-only" in str(explain(caught.value, ""))


def test_a_full_disk_is_waited_out_and_nothing_is_lost(sqlite_path: Path) -> None:
    with opened(sqlite_path, patience=IMPATIENT) as world:
        connection = writing(world)
        pages = connection.execute("pragma page_count").fetchone()[0]
        connection.execute(f"pragma max_page_count = {pages + 3}")
        with pytest.raises(StoreUnavailable, match="full"):
            world.start("large", input='"' + "x" * 100_000 + '"')
        connection.execute("pragma max_page_count = 1000000")
        assert world.start("large", input='"' + "x" * 100_000 + '"').created


# ── Writers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_another_process_that_writes_is_waited_for(world: World, user: sqlite3.Connection) -> None:
    user.execute("begin immediate")
    future = world.store.submit(start("w"))
    assert world.ask(Count(Filter())) == 0  # reading goes on
    user.execute("rollback")
    assert future.result(PATIENCE).created


def test_patience_ends_and_the_write_has_not_happened(sqlite_path: Path) -> None:
    with opened(sqlite_path, patience=IMPATIENT) as world, closing(sqlite3.connect(sqlite_path)) as other:
        other.execute("begin immediate")
        with pytest.raises(StoreUnavailable, match="locked"):
            world.start("w")
        other.rollback()
        assert world.ask(Count(Filter())) == 0
        assert world.start("w").created


def test_a_file_has_one_writers_lock_by_whatever_path_it_is_named(sqlite_path: Path) -> None:
    sqlite_path.touch()
    link = sqlite_path.with_name("link.db")
    link.symlink_to(sqlite_path)
    relative = os.path.relpath(sqlite_path)
    one, *others = [SqliteStore(str(path)) for path in (sqlite_path, link, relative, f"{sqlite_path.parent}/./test.db")]
    assert all(other.writer is one.writer for other in others)
    assert SqliteStore(str(sqlite_path.with_name("other.db"))).writer is not one.writer


def test_the_users_transaction_and_the_store_take_turns(sqlite_path: Path) -> None:
    """Without the lock between them, SQLite's own would let one of them starve."""
    with opened(sqlite_path, patience=IMPATIENT) as world:
        writer = world.store.writer
        assert writer is not None
        assert writer.acquire(timeout=PATIENCE)
        with pytest.raises(StoreUnavailable, match="transaction of this process"):
            world.start("w")
        assert world.ask(Count(Filter())) == 0
        writer.release()
        assert world.start("w").created


def writing(world: World) -> Connection:
    """Give the connection that the store writes on."""
    assert isinstance(world.store, SqliteStore)
    return world.store._opened()


def traced(world: World) -> list[str]:
    """Note every statement from now on."""
    seen = list[str]()
    writing(world).set_trace_callback(seen.append)
    return seen


def test_what_arrives_during_a_commit_rides_in_the_next(world: World) -> None:
    seen, writer = traced(world), world.store.writer
    assert writer is not None
    assert writer.acquire(timeout=PATIENCE)
    futures = [world.store.submit(start(f"w{n}")) for n in range(500)]
    writer.release()
    assert all(future.result(PATIENCE).created for future in futures)
    assert seen.count("commit") <= 3  # the first that was taken, then 256 and the rest


def test_alone_a_caller_commits_by_itself(world: World) -> None:
    """No other thread is involved, so none is started."""
    before, seen = {*threading.enumerate()}, traced(world)
    guard = world.run("w")
    assert world.write(guard, step("1"), end=SUCCESS).written
    assert {*threading.enumerate()} <= before  # what an earlier test has left may end meanwhile
    assert seen.count("begin immediate") == 3  # a writer that begins as a reader may have to give up half-way
    assert seen.count("commit") == 3  # the executor, the start, the step with the outcome


PROGRAM = """
import sys
from operon.core.commands import Start
from operon.core.rows import NewWorkflow
from operon.stores.sqlite import SqliteStore

store = SqliteStore(sys.argv[1])
store.open()
for n in range(int(sys.argv[2])):
    if store.ask(Start(NewWorkflow(f"w{n}", "greet", "[]", "d", nonce=int(sys.argv[3])))).created:
        print(n, flush=True)
"""


def program(path: Path, starts: int, nonce: int) -> AbstractContextManager[Child]:
    return started(sys.executable, "-c", PROGRAM, str(path), str(starts), str(nonce))


def test_processes_that_start_the_same_keys_create_each_once(sqlite_path: Path) -> None:
    """Also the file, and its schema, which all of them find missing."""
    with ExitStack() as running:
        processes = [running.enter_context(program(sqlite_path, 100, nonce)) for nonce in range(3)]
        created = [int(line) for process in processes for line in process.rest()]
        assert [process.ends() for process in processes] == [0, 0, 0]
    assert sorted(created) == list(range(100))


def test_what_was_acknowledged_outlives_a_killed_process(sqlite_path: Path) -> None:
    with program(sqlite_path, 1_000_000, nonce=1) as process:
        acknowledged = [process.says() for _ in range(50)]
        process.ends(signal.SIGKILL)
        acknowledged += process.rest()
    with opened(sqlite_path) as world:
        assert world.ask(Count(Filter())) >= len(acknowledged)


# ── What runs in the user's transactions ─────────────────────────────────────────────────────────────────────────────

TRANSACTION = Entry("1", 1, Kind.TRANSACTION, "debit", "d", "42", elapsed=0.5, version="v1", isolation="serializable")


def execute(user: sqlite3.Connection, world: World, name: str, parameters: dict[str, Any]) -> list[Any]:
    return user.execute(world.store.queries[name], parameters).fetchall()


def transact(user: sqlite3.Connection, world: World, guard: Guard, entry: Entry) -> list[Any]:
    user.execute("begin immediate")
    rows = execute(user, world, "record", dict(record_parameters(guard, entry)))
    user.execute("commit")
    return rows


def test_both_dialects_define_the_same_statements_for_the_user(world: World) -> None:
    """But here whoever writes has the whole database, and no statement writes to two tables."""
    theirs = PostgresStore("postgresql://nowhere/x").queries.keys()
    assert world.store.queries.keys() ^ theirs == {"lock", "settle_step"}


def test_a_record_commits_with_the_users_rows_or_not_at_all(world: World, user: sqlite3.Connection) -> None:
    guard = world.run("w")
    user.execute("begin immediate")
    assert len(execute(user, world, "record", dict(record_parameters(guard, TRANSACTION)))) == 1
    user.execute("rollback")
    assert world.positions("w") == []
    before = world.now()
    assert len(transact(user, world, guard, TRANSACTION)) == 1
    after = world.now()
    (read,) = world.ask(Load("w"))
    assert (read.position, read.kind, read.output, read.isolation) == ("1", Kind.TRANSACTION, "42", "serializable")
    assert read.ended_at - read.started_at == pytest.approx(0.5, abs=0.01)
    assert before - 0.01 <= read.ended_at <= after + 0.01


def test_a_record_is_refused_to_who_lost_the_claim(world: World, user: sqlite3.Connection) -> None:
    world.run("w")
    assert transact(user, world, Guard("w", 2), TRANSACTION) == []
    world.end(Guard("w", 1), Outcome(Status.QUEUED))
    assert transact(user, world, Guard("w", 1), TRANSACTION) == []
    assert world.positions("w") == []


def test_a_second_record_of_a_position_fails(world: World, user: sqlite3.Connection) -> None:
    guard = world.run("w")
    transact(user, world, guard, TRANSACTION)
    with pytest.raises(sqlite3.IntegrityError):
        transact(user, world, guard, TRANSACTION)


def numbers(user: sqlite3.Connection) -> list[int | None]:
    return [number for (number,) in user.execute("select xid from operon_steps order by ordinal")]


def test_the_users_transactions_are_numbered_in_the_order_of_their_commits(
    world: World, user: sqlite3.Connection
) -> None:
    guard = world.run("w")
    world.write(guard, step("1"))
    for ordinal in (2, 3):
        transact(user, world, guard, Entry(str(ordinal), ordinal, Kind.TRANSACTION, "debit"))
    user.execute("begin immediate")
    execute(user, world, "record", dict(record_parameters(guard, Entry("9", 9, Kind.TRANSACTION, "debit"))))
    user.execute("rollback")
    transact(user, world, guard, Entry("4", 4, Kind.TRANSACTION, "debit"))
    assert numbers(user) == [None, 1, 2, 3]


NEW = NewWorkflow("w", "debit", "[7]", "d", nonce=5, timeout=60, roles=("clerk",), attributes='{"a": 1}')


def test_a_one_transaction_workflow_is_there_ended_with_its_step(world: World, user: sqlite3.Connection) -> None:
    settled = {"claim": 1, "status": Status.SUCCEEDED.code, "output": "42", "error": None, "elapsed": 0.5}
    user.execute("begin immediate")
    assert len(execute(user, world, "settle", workflow_parameters(NEW) | settled)) == 1
    assert len(execute(user, world, "settle_step", dict(record_parameters(Guard("w", 1), TRANSACTION)))) == 1
    user.execute("commit")
    row = world.row("w")
    assert (row.status, row.output, row.nonce, row.roles) == ("succeeded", "42", 5, ("clerk",))
    assert (row.ended_at or 0) - (row.started_at or 0) == pytest.approx(0.5, abs=0.01)
    assert (world.positions("w"), numbers(user)) == (["1"], [1])
    with pytest.raises(sqlite3.IntegrityError):
        execute(user, world, "settle", workflow_parameters(NEW) | settled)


def test_a_start_joins_the_users_transaction(world: World, user: sqlite3.Connection) -> None:
    for ending, expected in (("rollback", 0), ("commit", 1)):
        user.execute("begin immediate")
        assert len(execute(user, world, "join", dict(workflow_parameters(NEW)))) == 1
        user.execute(ending)
        assert world.ask(Count(Filter())) == expected
    assert execute(user, world, "join", dict(workflow_parameters(NEW))) == []
    assert execute(user, world, "joined", {"id": "w", "dedupe": None}) == [("debit", "d", 0, "w", None)]
    row = world.row("w")
    assert (row.deadline or 0) - row.created_at == pytest.approx(60)
    assert world.claim(world.enlist(), names=("debit",)) == ["w"]
