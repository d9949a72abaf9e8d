"""Where the journal is, and whether a connection of the caller is there too; it must not know any driver."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakSet

from operon.errors import WrongDatabase

if TYPE_CHECKING:
    from operon.core.commands import Op
    from operon.datasources.opened import Opened, Parameters, Rows

Execute: TypeAlias = "Callable[[str, Parameters], Op[Rows]]"

SQLITE = "pragma database_list"
POSTGRES = """
    select oid::text, datname::text, has_function_privilege('pg_catalog.pg_control_system()', 'execute') as may_ask
    from pg_catalog.pg_database where datname = current_database()
"""
CLUSTER = "select system_identifier::text from pg_catalog.pg_control_system()"


class Place:
    """Tells one database from another, asking each connection of Postgres once."""

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self._identity: tuple[object, ...] | None = None
        self._known: WeakSet[object] = WeakSet()

    def confirm(self, opened: Opened, glance: Execute) -> Op[None]:
        """Compare where a transaction is with where the journal is, which a glance there tells.

        Raises:
            WrongDatabase: they are two.
        """
        connection = yield from opened.raw()
        if self.dialect == "postgres" and connection in self._known:
            return
        here = yield from self._identify(opened.rows)
        self._identity = self._identity or (yield from self._identify(glance))
        if here != self._identity:
            raise WrongDatabase(
                f"within= was given a connection to {here[0]}, and the journal is in {self._identity[0]}: "
                "one commit cannot hold both. Start without within=, or connect to the app's database."
            )
        if self.dialect == "postgres":
            self._known.add(connection)

    def _identify(self, execute: Execute) -> Op[tuple[object, ...]]:
        if self.dialect == "sqlite":
            rows = yield from execute(SQLITE, {})
            return (os.path.realpath(next(file for _, name, file in rows if name == "main")),)
        oid, name, may_ask = (yield from execute(POSTGRES, {}))[0]
        cluster = (yield from execute(CLUSTER, {}))[0][0] if may_ask else None
        return name, oid, cluster
