"""What a role or a database has set changes nothing of what Operon writes and reads."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

import operon
from children import PATIENCE
from operon import Operon, describe, find, sleep, start

SETTINGS = {
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kathmandu",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "synchronous_commit": "off",
    "search_path": "nowhere",
    "client_encoding": "latin1",
    "lc_numeric": "C",
    "xmloption": "document",
    "client_min_messages": "debug1",
    "plan_cache_mode": "force_generic_plan",
    "row_security": "off",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "escape_string_warning": "on",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "work_mem": "64kB",
    "force_parallel_mode": "on",
}


def configure(url: str, settings: Mapping[str, str | None]) -> None:
    """Set what a server of this version knows for all who connect to a database from now on; None resets it."""
    with psycopg.connect(url, autocommit=True, options="-c default_transaction_read_only=off") as connection:
        known = {row[0] for row in connection.execute("select lower(name) from pg_settings")}
        name = sql.Identifier(connection.info.dbname)
        for key, value in settings.items():
            if key in known:
                change = sql.SQL("reset {}") if value is None else sql.SQL("set {} = {}")
                parts = (sql.Identifier(key),) if value is None else (sql.Identifier(key), sql.Literal(value))
                connection.execute(sql.SQL("alter database {} ").format(name) + change.format(*parts))


GROUPS = {"all": SETTINGS, **{f"every fifth from {n}": dict([*SETTINGS.items()][n::5]) for n in range(5)}}
"""So that what one setting does is not hidden by another in all of the runs."""


@pytest.mark.parametrize("group", GROUPS)
def test_what_a_database_has_set_changes_nothing(postgres_url: str, group: str) -> None:
    """A sleep takes its time, a schedule is shown and triggered, a delay is kept, a transaction commits its record."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("create schema if not exists nowhere; create table public.notes (text text)")
    configure(postgres_url, GROUPS[group])
    app = Operon("app", database=postgres_url, grace=0.0)
    queue = app.queue("q", rate=(5, 3600.0))
    slept: list[timedelta] = []

    @app.transaction(read_only=True)
    def look(tx: psycopg.Connection[Any]) -> int:
        return len(tx.execute("select 1").fetchall())

    @app.transaction
    def note(tx: psycopg.Connection[Any], text: str) -> int:
        return len(tx.execute("insert into public.notes values (%s) returning text", (text,)).fetchall())

    @app.workflow(name="flow")
    def flow() -> tuple[int, int]:
        began = operon.now()
        sleep(0.25)
        slept.append(operon.now() - began)
        return look(), note("it's")

    app.schedule("0 0 1 1 *", name="yearly", tz="Europe/Lisbon")(flow)
    began = datetime.now(UTC)
    with app:
        handles = [start(flow), operon.enqueue(queue, flow.using(delay=0.05)), operon.schedules.trigger("yearly")]
        for handle in handles:
            assert handle.result(PATIENCE) == (1, 1)
            assert began <= describe(handle.id).created_at <= datetime.now(UTC)
        assert len(find(status="succeeded")) == 3
        (planned,) = operon.schedules.list()
        assert planned.next_at is not None
        assert (planned.next_at.month, planned.next_at.day) == (1, 1)
    assert all(timedelta(seconds=0.2) <= each < timedelta(seconds=PATIENCE) for each in slept)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        rows = connection.execute("select text from public.notes").fetchall()
    assert rows == [("it's",)] * 3


def test_an_address_that_names_an_encoding_loses_no_letter(ready_postgres_url: str) -> None:
    mark = "&" if "?" in ready_postgres_url else "?"
    app = Operon("app", database=f"{ready_postgres_url}{mark}client_encoding=latin1")

    @app.workflow
    def spell(text: str) -> str:
        return text

    with app:
        assert start(spell, "\u20ac \U0001f600").result(PATIENCE) == "\u20ac \U0001f600"
