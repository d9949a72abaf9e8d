"""The schema and the identity of a database: what `open` sees to. Must not know what the tables are for."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from operon.errors import ForeignDatabase
from operon.stores import migrations

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from operon.stores.migrations import Migration
    from operon.stores.postgres.session import Session

PACKAGE = "operon.stores.postgres"


class Ledger:
    """The migrations applied to a database, as `operon.stores.migrations` wants them told."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def applied(self) -> Mapping[int, str]:
        """Number and checksum of each."""
        if not self._session.rows("ledger")[0]["present"]:
            return {}
        return {row["number"]: row["checksum"] for row in self._session.rows("applied")}

    @contextmanager
    def lock(self) -> Generator[None]:
        """Enter a transaction that waits for others who migrate."""
        with self._session.connection.transaction():
            self._session.rows("exclude")
            yield

    def apply(self, migration: Migration) -> None:
        """Run a script and note it."""
        self._session.connection.execute(migration.script.encode())
        self._session.rows("note_migration", number=migration.number, name=migration.name, checksum=migration.checksum)


def prepare(session: Session, where: str, *, migrate: bool, adopt: bool) -> None:
    """Bring the schema up to date, and make sure that this is the database it was made in."""
    migrations.migrate(Ledger(session), migrations.shipped(PACKAGE), allowed=migrate)
    may_ask = session.rows("may_identify")[0]["allowed"]
    system = session.rows("system")[0]["system"] if may_ask else None
    (here,) = session.rows("here")
    if here["era"] is None:
        session.rows("identify", system=system, database=here["database"])
        return
    same_system = None in (system, here["known_system"]) or system == here["known_system"]
    if same_system and here["database"] == here["known_database"]:
        return
    if not adopt:
        raise ForeignDatabase(
            f"The database at {where} is a copy or a restore of another one: it says that it lives in database "
            f"{here['known_database']} of cluster {here['known_system']}, and is {here['database']} of {system}. "
            "Nothing runs, so that no work of the original is done twice. If the original is gone, adopt this one: "
            "`operon migrate --adopt`, or app.launch(adopt=True)."
        )
    session.rows("adopt", system=system, database=here["database"])
