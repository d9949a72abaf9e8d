"""Databases on a real Postgres for tests that want one with the schema: emptied and lent again, which costs a tenth."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import count
from typing import Any, Final, Self

import psycopg
from psycopg import sql

from children import eventually
from operon.embedded import Postgres
from operon.stores.postgres import PostgresStore

KEPT: Final = 2
TEMPLATE: Final = "with_schema"
NAMES: Final = (f"test_{number}" for number in count(1))
"""Each test's database has a name of its own, so that what a test has left behind finds it no more."""

CONNECTED: Final = "select from pg_stat_activity where datname = %s and backend_type = 'client backend'"
TABLES: Final = """
select relname, pg_relation_size(oid) > 65536 from pg_class
where relnamespace = 'operon'::regnamespace and relkind = 'r' and relname not in ('migrations', 'identity')
"""
REWIND: Final = """
select setval(c.oid, 1, false) from pg_class c where c.relkind = 'S' and c.relnamespace = 'operon'::regnamespace
"""
AS_IT_WAS: Final = """
with ours as (select oid, relnatts, relkind from pg_class where relnamespace = 'operon'::regnamespace)
select
    (select (count(*), max(oid), sum(relnatts)) from ours)::text,
    (select (count(*), max(oid)) from pg_proc where pronamespace = 'operon'::regnamespace)::text,
    (select (count(*), max(oid)) from pg_constraint where connamespace = 'operon'::regnamespace)::text,
    (select (count(*), max(oid)) from pg_trigger where tgrelid in (select oid from ours))::text,
    (select array_agg(nspname order by nspname) from pg_namespace where nspname not like 'pg%temp%')::text,
    (select count(*) from pg_extension),
    (select count(*) from pg_db_role_setting),
    (select count(*) from operon.identity where era > 1),
    (select count(*) from operon.migrations)
"""
"""What tells whether a database still has the schema that it had."""
PUBLIC: Final = "drop schema public cascade; create schema public; grant usage on schema public to public"


def delete_all(connection: psycopg.Connection[Any]) -> None:
    """Delete every row, and let the numbers begin again: where there are few, much cheaper than truncate."""
    statements = [
        sql.SQL("truncate {}" if large else "delete from {}").format(sql.Identifier("operon", table))
        for table, large in connection.execute(TABLES)
    ]
    connection.execute(sql.SQL(";").join(statements))
    connection.execute(REWIND)


class Databases:
    """The databases of one server's tests.

    Those that tests have done with are kept for a while: the server ends sessions some time after their clients have
    left, and would wait a tenth of a second for them.
    """

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._done: deque[str] = deque()
        self._spare: deque[str] = deque()
        self._as_it_was: Any = None

    def __enter__(self) -> Self:
        self._session = psycopg.connect(self._server.url, autocommit=True)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._session.close()

    @contextmanager
    def fresh(self) -> Generator[str]:
        """Give a test a database without anything in it."""
        name = next(NAMES)
        yield self._server.create_database(name)
        self._done.append(name)
        if len(self._done) > KEPT:
            self._server.drop_database(self._done.popleft())

    @contextmanager
    def ready(self) -> Generator[str]:
        """Give a test a database that has the schema, and no rows."""
        name = next(NAMES)
        if len(self._spare) <= KEPT or not self._renewed(self._spare.popleft(), name):
            self._make(name)
        yield self._server.database_url(name)
        self._spare.append(name)

    def _make(self, name: str) -> None:
        if self._as_it_was is None:
            with closing(PostgresStore(self._server.create_database(TEMPLATE))) as store:
                store.open()
            with self._connected(TEMPLATE) as connection:
                connection.execute("delete from operon.identity")  # a copy says which database it is when it is opened
                self._as_it_was = connection.execute(AS_IT_WAS).fetchone()
        eventually(lambda: not self._session.execute(CONNECTED, [TEMPLATE]).fetchall(), "nobody is in what is copied")
        self._server.create_database(name, template=TEMPLATE)

    def _renewed(self, old: str, name: str) -> bool:
        """Empty a database, unless its last test has changed the schema."""
        quoted = sql.Identifier(old), sql.Identifier(name)
        self._session.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s", [old])
        try:
            self._session.execute(sql.SQL("alter database {} rename to {}").format(*quoted))
            with self._connected(name) as connection:
                delete_all(connection)
                connection.execute(PUBLIC)
                if connection.execute(AS_IT_WAS).fetchone() == self._as_it_was:
                    return True
        except psycopg.Error:
            pass
        for left in (old, name):
            self._server.drop_database(left)
        return False

    def _connected(self, name: str) -> AbstractContextManager[psycopg.Connection[Any]]:
        return psycopg.connect(self._server.database_url(name))
