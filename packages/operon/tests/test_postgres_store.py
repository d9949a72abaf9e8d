"""Opening a database, losing it, and finding it again; what each error means."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from socketserver import StreamRequestHandler, ThreadingTCPServer

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from children import PATIENCE, eventually, joined
from conformance.world import World, step, together
from operon.core.commands import Count, Describe
from operon.core.rows import Filter
from operon.errors import ForeignDatabase, SchemaMismatch, StoreError, StoreUnavailable
from operon.stores.postgres import PostgresStore
from operon.stores.postgres.faults import FAULTS, Fault, explain, fault

FINAL = ["22021", "22P05", "23505", "42501", "42P01", "54000", "XX000"]
COMPLETIONS = {"08": "08006", "53": "53100", "57P": "57P01"}
"""A code for each class in the table."""


@pytest.fixture
def world(postgres_url: str) -> Iterator[World]:
    with closing(PostgresStore(postgres_url, patience=20.0)) as store:
        store.open()
        yield World(store, lambda _: None)


@contextmanager
def standby() -> Generator[int]:
    """Answer on a port as a server does that follows another: it lets everybody in, and says what it is."""
    said = {"server_version": "16.0", "client_encoding": "UTF8", "in_hot_standby": "on"}
    hello = _message(b"R", bytes(4))
    hello += b"".join(_message(b"S", f"{name}\0{value}\0".encode()) for name, value in said.items())
    refusal = b"".join(field + b"\0" for field in (b"SERROR", b"C25006", b"Mread-only", b""))

    class Follower(StreamRequestHandler):
        def handle(self) -> None:
            while (wanted := self._read()) and wanted[:4] != STARTUP:
                self.wfile.write(b"N")  # no encryption
            self.wfile.write(hello + _message(b"Z", b"I"))
            while self.rfile.read(1) not in {b"", b"X"}:
                self._read()
                self.wfile.write(_message(b"E", refusal) + _message(b"Z", b"I"))

        def _read(self) -> bytes:
            return self.rfile.read(int.from_bytes(self.rfile.read(4)) - 4)

    with ThreadingTCPServer(("127.0.0.1", 0), Follower) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            joined(thread)


STARTUP = b"\x00\x03\x00\x00"


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4) + body


def run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


# ── Errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("state", "meaning"), [*FAULTS.items(), *((state, Fault.FINAL) for state in FINAL)])
def test_every_code_means_what_the_table_says(postgres_url: str, state: str, meaning: Fault) -> None:
    """As a real server sends it."""
    code = COMPLETIONS.get(state, state)
    with psycopg.connect(postgres_url) as connection, pytest.raises(psycopg.Error) as raised:
        connection.execute(f"do $$ begin raise exception 'as told' using errcode = '{code}'; end $$".encode())
    assert raised.value.sqlstate == code
    assert fault(raised.value) is meaning
    told = explain(raised.value, "postgresql://here")
    assert isinstance(told, StoreUnavailable) == (meaning is not Fault.FINAL)
    assert "as told" in str(told)


def test_of_several_hosts_the_primary_is_found_wherever_it_stands(postgres_url: str) -> None:
    """The old primary may be back as a standby of the new one, and first in the list: nothing is asked of it."""
    given = conninfo_to_dict(postgres_url)
    with standby() as port:
        hosts = {"host": f"127.0.0.1,{given['host']}", "port": f"{port},{given['port']}"}
        url = make_conninfo(postgres_url, **hosts)
        with closing(PostgresStore(url, patience=PATIENCE)) as store:
            store.open()
            world = World(store, lambda _: None)
            world.run("w")
            assert world.status("w") == "running"


def test_a_standby_alone_is_out_of_reach() -> None:
    with (
        standby() as port,
        closing(PostgresStore(f"postgresql://127.0.0.1:{port}/none", patience=0.1)) as store,
        pytest.raises(StoreUnavailable, match="standby"),
    ):
        store.open()


def test_a_connection_without_a_server_is_lost() -> None:
    with pytest.raises(psycopg.OperationalError) as raised:
        psycopg.connect("postgresql://127.0.0.1:1/none", connect_timeout=2)
    assert fault(raised.value) is Fault.LOST


def test_a_value_that_python_refuses_is_final() -> None:
    assert fault(ValueError("lone surrogate")) is Fault.FINAL


# ── Out of reach ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_unreachable_database_is_named_without_its_password() -> None:
    with closing(PostgresStore("postgresql://ada:secret@127.0.0.1:1/shop", patience=0.1)) as store:
        with pytest.raises(StoreUnavailable) as raised:
            store.open()
        assert store.url == "postgresql://ada@127.0.0.1:1/shop"
    for words in ("postgresql://ada@127.0.0.1:1/shop", "Connection refused", "trying again is safe"):
        assert words in str(raised.value)
    assert "secret" not in str(raised.value)


def test_sessions_that_were_killed_come_back_unnoticed(world: World, postgres_url: str) -> None:
    executor = world.enlist()
    kill = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'operon%'"
    for n in range(3):
        guard = world.run(f"w{n}", executor=executor)
        run(postgres_url, kill)
        assert world.write(guard, step("1")).written
        run(postgres_url, kill)
        assert world.pulse(executor).running == n + 1


def test_a_database_that_went_read_only_is_unavailable_until_it_is_not(postgres_url: str) -> None:
    """As after a failover, when the old primary has become a standby."""
    refuse = """
        create function refuse() returns trigger language plpgsql as $$ begin
            raise 'cannot execute % in a read-only transaction', tg_op using errcode = 'read_only_sql_transaction';
        end $$;
    """
    with closing(PostgresStore(postgres_url, patience=0.3)) as store:
        store.open()
        world = World(store, lambda _: None)
        guard = world.run()
        run(
            postgres_url,
            refuse,
            "create trigger demoted before insert on operon.steps for each statement execute function refuse()",
            "create trigger demoted before insert on operon.executors for each statement execute function refuse()",
        )
        with pytest.raises(StoreUnavailable, match="read-only"):
            world.write(guard, step("1"))
        with pytest.raises(StoreUnavailable, match="read-only"):
            world.enlist()
        run(postgres_url, "drop function refuse cascade")
        assert world.write(guard, step("1")).written
        assert world.positions() == ["1"]


# ── Opening ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_many_may_open_a_new_database_at_once(postgres_url: str) -> None:
    def begin() -> int:
        with closing(PostgresStore(postgres_url)) as store:
            store.open()
            return store.ask(Count(Filter()))

    assert together([begin] * 6) == [0] * 6


def test_older_code_refuses_a_newer_schema(world: World, postgres_url: str) -> None:
    run(postgres_url, "insert into operon.migrations (number, name, checksum) values (9999, 'later', '')")
    with closing(PostgresStore(postgres_url)) as store, pytest.raises(SchemaMismatch, match="9999"):
        store.open()


def test_without_leave_to_migrate_an_empty_database_is_refused(postgres_url: str) -> None:
    with closing(PostgresStore(postgres_url)) as store:
        with pytest.raises(SchemaMismatch, match="operon migrate"):
            store.open(migrate=False)
        with pytest.raises(StoreError, match="does not exist"):
            store.ask(Describe("w"))


def test_a_copied_database_is_refused_until_it_is_adopted(world: World, postgres_url: str) -> None:
    """Else a copy of production, restored for a test, would go on with production's work."""
    run(postgres_url, "update operon.identity set database = 1")
    with closing(PostgresStore(postgres_url)) as store:
        with pytest.raises(ForeignDatabase, match="adopt=True"):
            store.open()
        store.open(adopt=True)
        store.open()
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("select era from operon.identity").fetchall() == [(2,)]


def test_a_role_without_privileges_suffices(postgres_url: str) -> None:
    """It owns a schema, may not create another, and may not ask for the cluster's identifier."""
    role = f"clerk_{conninfo_to_dict(postgres_url)['dbname']}"
    run(
        postgres_url,
        f"create role {role} login password 'pw'",
        f"create schema operon authorization {role}",
        "revoke execute on function pg_control_system() from public",
    )
    try:
        url = make_conninfo(postgres_url, user=role, password="pw")
        with closing(PostgresStore(url)) as store:
            store.open()
            store.open()
            assert World(store, lambda _: None).start("w").created
    finally:
        run(postgres_url, "drop schema operon cascade", f"drop role {role}")


def test_every_session_says_what_it_is_for(world: World, postgres_url: str) -> None:
    executor = world.enlist()
    world.pulse(executor)
    world.run(executor=executor)
    named = """
        select array_agg(distinct application_name order by application_name) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
    """
    expected = (["operon change", "operon heartbeat", "operon lane"],)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        eventually(lambda: connection.execute(named).fetchone() == expected, "those that have left are gone")
