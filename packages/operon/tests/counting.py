"""What the work costs on Postgres: statements and transactions from the server's own log, round trips on the wire."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from children import eventually
from operon.core import sql
from operon.stores.postgres.session import CONFIGURE, SQL
from relaying import Relay

if TYPE_CHECKING:
    from collections.abc import Callable

    from operon.embedded import Postgres

SETTINGS: Final = {
    "log_statement": "all",
    "log_line_prefix": "%c %v ",
    "autovacuum": "off",
    "wal_level": "replica",
}
"""The log names the session and the transaction of each statement, and is written as it happens, on every version: the
statistics of the server come late. Nothing works in the background, and the WAL is what a server writes as it comes."""
LINE: Final = re.compile(r"^(\S+ \S+) LOG:\s+(?:statement|execute [^:]*): (.*)", re.MULTILINE)
UNSEEN: Final = "/* not counted */"


def plain(text: str) -> str:
    """Spell a statement on one line."""
    return re.sub(r"\s+", " ", text).strip()


NAMES: Final = {
    **{plain(sql.numbered(text)): name for name, text in SQL.items()},
    plain(CONFIGURE.replace("%s", "$1")): "configure",
}
"""The store's statements, as a server logs them."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a server was asked for: a statement of the store by its name, another by its text."""

    statements: tuple[str, ...]
    trips: int
    """How often somebody waited for the server."""
    commits: int
    """Transactions, each statement outside of one included."""
    writes: int
    """Those of them that wrote something, and so waited for the disk."""

    @property
    def counts(self) -> Counter[str]:
        """How often each statement was executed."""
        return Counter(self.statements)

    @property
    def sums(self) -> tuple[int, int, int, int]:
        """Statements, round trips, commits, and those that wrote."""
        return len(self.statements), self.trips, self.commits, self.writes


class Till:
    """Counts what is done in one database of a server that logs everything."""

    def __init__(self, server: Postgres, database: str) -> None:
        self._server = server
        self._direct = server.create_database(database)
        self._relay = Relay(self._direct)
        here, there = (f":{conninfo_to_dict(url)['port']}/" for url in (self._relay.url, self._direct))
        self.url = self._direct.replace(there, here)
        """The database, by way of a relay that counts."""
        self._session = psycopg.connect(self._direct, autocommit=True)

    def cost(self, act: Callable[[], object]) -> Cost:
        """Do something, and count what it costs."""
        start, trips, numbers = self._log(), self._relay.trips, self._numbers()
        act()
        trips, numbers = self._relay.trips - trips, self._numbers() - numbers
        text = self._log()[len(start) :].replace("\n\t", " ")
        lines = [(found[1], plain(found[2])) for found in LINE.finditer(text) if UNSEEN not in found[2]]
        statements = tuple(NAMES.get(statement, statement.lower()) for _, statement in lines)
        return Cost(statements, trips, len({transaction for transaction, _ in lines}), numbers)

    def least(self, act: Callable[[], object], enough: int, times: int = 20) -> Cost:
        """Count the same until it takes no more statements and round trips than that, and give the cheapest.

        A connection that is new prepares a statement; on a busy machine, a record may miss its company, or what a
        launch does comes in between.
        """
        costs: list[Cost] = []
        while len(costs) < times and not (costs and max(costs[-1].sums) <= enough):
            costs.append(self.cost(act))
        return min(costs, key=lambda cost: cost.sums)

    def ended(self, workflow_id: str) -> None:
        """Wait until a workflow has ended, uncounted."""
        query = "select from operon.workflows where id = %s and status > 3"
        eventually(lambda: self.ask(query, workflow_id) is not None, f"{workflow_id} ends")

    def ask(self, query: str, *parameters: object) -> Any:
        """Ask for one row, uncounted."""
        return self._session.execute(f"{UNSEEN} {query}".encode(), parameters).fetchone()

    def wal(self) -> int:
        """How many bytes of WAL the server has written."""
        return int(self.ask("select pg_current_wal_insert_lsn() - '0/0'")[0])

    def close(self) -> None:
        """Close the relay."""
        self._session.close()
        self._relay.close()

    def _numbers(self) -> int:
        """How many transactions have been given a number, which those get that write."""
        return int(self.ask("select pg_snapshot_xmax(pg_current_snapshot())::text")[0])

    def _log(self) -> str:
        return self._server.log.read_text("utf-8")
