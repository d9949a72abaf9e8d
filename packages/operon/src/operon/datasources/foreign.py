"""The record of a transaction in another database than the journal's; it must not know any driver.

The journal's own entry is a second commit. Between the two a process may die; whoever runs the workflow next finds
this record and adopts it, so the user's rows are written once. The look-up is a transaction of its own: inside a
SERIALIZABLE one it would make others fail for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from operon.core.ledger import Adopted, Ledger, Statement, Work
from operon.datasources.faults import sqlstate
from operon.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from operon.core.commands import Op
    from operon.datasources.opened import Adapter

QUERIES: Mapping[str, Mapping[str, str]] = {
    "postgres": {
        "record": """
            insert into operon.transactions (workflow_id, position, journal, output)
            values (:workflow_id::text, :position::text, :journal::text, :output::text) returning position
        """,
        "recorded": """
            select output, journal from operon.transactions
            where workflow_id = :workflow_id::text and position = :position::text
        """,
    },
    "sqlite": {
        "record": """
            insert into operon_transactions (workflow_id, position, journal, output)
            values (:workflow_id, :position, :journal, :output) returning position
        """,
        "recorded": """
            select output, journal from operon_transactions where workflow_id = :workflow_id and position = :position
        """,
    },
}
TABLES = {
    "postgres": (
        """
        do $$ begin
            if to_regnamespace('operon') is null then create schema operon; end if;
        end $$
        """,
        """
        create table if not exists operon.transactions (
            workflow_id text collate "C" not null,
            position text collate "C" not null,
            created_at timestamptz not null default clock_timestamp(),
            output text not null,
            primary key (workflow_id, position)
        )
        """,
        "alter table operon.transactions add column if not exists journal text",
    ),
    "sqlite": (
        """
        create table if not exists operon_transactions (
            workflow_id text not null,
            position text not null,
            created_at real not null default ((julianday('now') - 2440587.5) * 86400.0),
            output text not null,
            primary key (workflow_id, position)
        ) without rowid
        """,
        "alter table operon_transactions add column journal text",
    ),
}
SWEEPING: Mapping[str, Mapping[str, str]] = {
    "postgres": {
        "page": """
            select workflow_id, position from operon.transactions
            where journal = :journal::text
                and (workflow_id, position) > (:workflow_id::text collate "C", :position::text collate "C")
            order by workflow_id, position limit :limit::int
        """,
        "delete": """
            delete from operon.transactions
            where journal = :journal::text and workflow_id = :workflow_id::text and position = :position::text
        """,
    },
    "sqlite": {
        "page": """
            select workflow_id, position from operon_transactions
            where journal = :journal and (workflow_id, position) > (:workflow_id, :position)
            order by workflow_id, position limit :limit
        """,
        "delete": """
            delete from operon_transactions
            where journal = :journal and workflow_id = :workflow_id and position = :position
        """,
    },
}
"""What whoever deletes old records asks; by the primary key, a page at a time."""
UNDEFINED = {"42P01", "3F000", "42703"}
RACED = {"23505", "42701", "42710", "42P06", "42P07"}
"""Another has just made the schema, the table, its type or its column."""


class Foreign:
    """Keeps the record beside the user's rows, in their database, under the journal's key."""

    def __init__(self, ledger: Ledger, adapter: Adapter, dialect: str, journal: str) -> None:
        self.ledger = ledger
        self.journal = journal
        self.adapter = adapter
        self.dialect = dialect
        self.key = ledger.key

    def check(self) -> None:
        """Raise what has ended the run."""
        self.ledger.check()

    def opening(self) -> tuple[Statement, ...]:
        """What the journal's ledger has to say; what is recorded was looked up before."""
        return self.ledger.opening()

    def closing(self, output: str) -> tuple[Statement, ...]:
        """Record; the primary key keeps a second one out, whoever its writer. A run that is over records nothing."""
        self.ledger.check()
        return (Statement("record", {**self._parameters(), "journal": self.journal, "output": output}, _unwritten),)

    def adopt(self) -> Op[Adopted | None]:
        """Ask the journal whether we may still run."""
        return (yield from self.ledger.adopt())

    def recorded(self) -> Op[Adopted | None]:
        """Look for the record; makes the table at the first time."""
        try:
            rows = yield from self.adapter.glance(QUERIES[self.dialect]["recorded"], self._parameters())
        except Exception as error:
            if not absent(error):
                raise
        else:
            return Adopted(rows[0][0]) if rows else None
        # What fails now did not fail because of that: it is tried again by its own code.
        yield from _create(self.adapter, self.dialect)
        return None

    def _parameters(self) -> dict[str, str]:
        workflow_id, position = self.key
        return {"workflow_id": workflow_id, "position": position}


def absent(error: Exception) -> bool:
    """Whether an error says that the table of records is not there, or is that of an earlier version."""
    return sqlstate(error) in UNDEFINED or any(what in str(error) for what in ("no such table", "no such column"))


def _unwritten() -> StoreError:
    return StoreError("The record of the transaction could not be written; is there a rule or trigger on its table?")


def _create(adapter: Adapter, dialect: str) -> Op[None]:
    """Create the table of records; several may do so at once."""
    work = Work("create the table of records", lambda _tx: None, lambda _: ("", None), decode=str)
    for statement in TABLES[dialect]:
        tx = yield from adapter.begin(work)
        try:
            yield from tx.rows(statement, {})
            yield from tx.commit()
        except Exception as error:
            yield from tx.rollback()
            if sqlstate(error) == "42501":
                script = ";".join(TABLES[dialect])
                raise StoreError(f"This role may not create the table of records; do it yourself: {script}") from error
            if sqlstate(error) not in RACED and "duplicate column" not in str(error):
                raise
