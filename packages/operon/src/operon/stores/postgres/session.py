"""One connection to Postgres, which comes back after a loss; it must not know what it is used for."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from selectors import EVENT_READ, DefaultSelector
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.rows import dict_row
from psycopg.types.datetime import TimestamptzLoader

from operon.core import sql
from operon.core.addresses import NETWORK
from operon.errors import BadValue
from operon.stores import queries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg.pq.abc import PGconn, PGresult

Row: TypeAlias = "dict[str, Any]"
"""What a query answers, by column."""
Values: TypeAlias = "Sequence[bytes]"
"""A prepared statement's parameters; an item may be None, though the client library's types forget to say so."""

SQL = queries.load("operon.stores.postgres")
QUOTED = re.compile(r'"[^"]*[^\w"][^"]*"')
"""What libpq quotes in an error of an address, unless it is a keyword: it may be a part of the password."""
BINARY = (1,)
DONE = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)
CONNECTION: dict[str, str | int] = {"target_session_attrs": "primary", **NETWORK}
"""Of several hosts the primary, wherever it stands in the list: a standby answers, but with what was, and writes
nothing."""
OURS = {"client_encoding": "utf8"}
"""What an address cannot choose."""
SETTINGS = {
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "idle_in_transaction_session_timeout": "15s",
    "statement_timeout": "0",
    "jit": "off",
}
"""What a role or a database may have set otherwise, and our statements count on."""
CONFIGURE = """
select set_config(key, value, false) from json_each_text(%s)
union all
select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'
"""
"""What is answered is on the disk: whoever waits for a standby in another way than `on`, goes on to."""
INDEXED = {"enable_seqscan": "off", "enable_bitmapscan": "off"}
"""For plans made while a table was small, or before anybody counted it: to claim the first of 100,000 that are ready
at the same instant takes 1 ms in the order of the index, and 50 after a sort."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the database is, and how a session there behaves."""

    conninfo: str = field(repr=False)
    purpose: str
    settings: Mapping[str, str] = field(default_factory=dict[str, str])

    def connect(self) -> psycopg.Connection[Row]:
        """Connect, and say who we are."""
        given = conninfo_to_dict(self.conninfo)
        application = f"{given.get('application_name') or 'operon'} {self.purpose}"
        conninfo = make_conninfo(self.conninfo, **{**CONNECTION, **given, **OURS, "application_name": application})
        connection = psycopg.Connection[Row].connect(conninfo, autocommit=True, row_factory=dict_row)
        connection.adapters.register_loader("timestamptz", Instant)
        return connection


class Instant(TimestamptzLoader):
    """Reads what a datetime cannot hold, `infinity` or the year 10,000, as an endless number of seconds."""

    def load(self, data: Any) -> Any:
        """Give a datetime, or a float."""
        try:
            return super().load(data)
        except psycopg.DataError:
            return float("-inf") if bytes(data).endswith(b"BC") or bytes(data).startswith(b"-") else float("inf")


class Session:
    """A connection that is opened when it is needed; one thread at a time uses it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._connection: psycopg.Connection[Row] | None = None
        self._prepared: set[str] = set()
        self._settings = {**SETTINGS, **address.settings}
        self._stale = True

    @property
    def connection(self) -> psycopg.Connection[Row]:
        """The connection, opened now if there is none."""
        if self._connection is None:
            self._connection = self.address.connect()
        if self._stale:
            self._connection.execute(CONFIGURE, [json.dumps(self._settings)])
            self._stale = False
        return self._connection

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        connection, self._connection = self._connection, None
        self._prepared.clear()
        self._stale = True
        if connection is not None:
            connection.close()

    def rows(self, name: str, /, **parameters: object) -> list[Row]:
        """Run a statement by its name, and fetch all that it answers."""
        cursor = self.connection.execute(sql.pyformat(SQL[name]).encode(), parameters)
        return cursor.fetchall() if cursor.description else []

    def run(self, name: str, values: Values, formats: Sequence[int]) -> PGresult:
        """Run a prepared statement in one round trip, at a third of what a cursor costs.

        The values are in the order of `sql.parameters`; the answer is in Postgres' text format.
        """
        connection = self.connection.pgconn
        self._prepare(connection, name)
        return checked(connection.exec_prepared(name.encode(), values, formats))

    def run_both(self, first: tuple[str, Values], second: tuple[str, Values]) -> PGresult:
        """Run two statements in one transaction and one round trip, and give what the second answers.

        Each has a snapshot of its own, so the second sees what others committed before the first got its locks.
        """
        connection = self.connection.pgconn
        for name, _ in (first, second):
            self._prepare(connection, name)
        connection.enter_pipeline_mode()
        for name, values in (first, second):
            connection.send_query_prepared(name.encode(), values, BINARY * len(values))
        connection.pipeline_sync()
        # Each result is followed by a None, and both by the mark of the sync, which is the commit.
        answers = [arrival(connection) for _ in range(5)]
        if connection.status == ConnStatus.OK:
            connection.exit_pipeline_mode()
        checked(answers[0])
        return checked(answers[2])

    def configure(self, name: str, value: str) -> None:
        """Change a setting, from the next statement on."""
        self._settings[name] = value
        self._stale = True

    def _prepare(self, connection: PGconn, name: str) -> None:
        if name not in self._prepared:
            checked(connection.prepare(name.encode(), sql.numbered(SQL[name]).encode()))
            self._prepared.add(name)


def checked(result: PGresult | None) -> PGresult:
    """Raise what the server said, or that it is gone."""
    if result is None:
        raise psycopg.OperationalError("the connection was lost")
    if result.status not in DONE:
        error = error_from_result(result)
        # Without a code it was not the server that spoke, but the client library, having lost it.
        raise error if error.sqlstate else psycopg.OperationalError(str(error))
    return result


def arrival(connection: PGconn) -> PGresult | None:
    """Wait for a pipeline's next result without keeping other threads waiting, as `get_result` alone would."""
    with DefaultSelector() as selector:
        selector.register(connection.socket, EVENT_READ)
        while connection.flush():
            connection.consume_input()
        while connection.is_busy():
            selector.select()
            connection.consume_input()
    return connection.get_result()


def where(conninfo: str) -> str:
    """Spell an address for people: as a URL, without its password.

    Raises:
        BadValue: it cannot be read, and why; what the client library quotes of it is left out.
    """
    given, why = None, ""
    try:
        given = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError as error:
        why = QUOTED.sub('"…"', str(error).strip())
    if given is None:
        raise BadValue(f"database= cannot be read: {why}.")  # here, so that nothing is chained to it
    user = f"{given['user']}@" if given.get("user") else ""
    host, port = given.get("host") or "localhost", given.get("port") or "5432"
    return f"postgresql://{user}{host}:{port}/{given.get('dbname') or given.get('user') or ''}"
