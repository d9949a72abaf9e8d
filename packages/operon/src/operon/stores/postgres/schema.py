"""The schema and the identity of a database: what `open` sees to. Must not know what the tables are for."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from operon.errors import ForeignDatabase
from operon.stores import migrations

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from operon.stores.migrations import Migration
    from operon.stores.postgres.session import Session

PACKAGE = "operon.stores.postgres"
WATCHED = 8.0
"""Seconds in which a process that is alive is seen to beat, with any lease that is not much longer than ours."""


class Ledger:
    """The migrations applied to a database, as `operon.stores.migrations` wants them told."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def applied(self) -> Mapping[int, tuple[str, str]]:
        """By number, name and checksum of each."""
        if not self._session.rows("ledger")[0]["present"]:
            return {}
        return {row["number"]: (row["name"], row["checksum"]) for row in self._session.rows("applied")}

    @contextmanager
    def lock(self) -> Generator[None]:
        """Enter a transaction that waits for others who migrate."""
        with self._session.connection.transaction():
            self._session.rows("exclude")
            yield

    def apply(self, migration: Migration) -> None:
        """Run a script and note it."""
        self._session.connection.execute(migration.script.encode())
        self._session.rows("note_migration", number=migration.number, name=migration.title, checksum=migration.checksum)


def prepare(session: Session, where: str, *, migrate: bool, adopt: bool) -> None:
    """Bring the schema up to date, and make sure that this is the database it was made in.

    Raises:
        ForeignDatabase: it is a copy, a restore, or a standby that was promoted while nobody was there to see it.
    """
    migrations.migrate(Ledger(session), migrations.shipped(PACKAGE), allowed=migrate)
    system, place = _asked(session, "may_identify", "system"), _asked(session, "may_locate", "place")
    (here,) = session.rows("here")
    if here["era"] is None:
        session.rows("identify", system=system, database=here["database"], place=place)
        return
    if _same(system, here["known_system"]) and here["database"] == here["known_database"]:
        known = here["known_place"]
        if _same(place, known) or (not adopt and _beats(session)):
            if place is not None and place != known:
                session.rows("settle_here", place=place)
            return
    if not adopt:
        raise ForeignDatabase(
            f"The database at {where} is a copy or a restore of another one: it says that it lives in database "
            f"{here['known_database']} of cluster {here['known_system']}{_made(here['known_place'])}, and is "
            f"{here['database']} of {system}{_made(place)}. Nothing runs, so that no work of the original is done "
            "twice. If the original is gone, adopt this one: `operon migrate --adopt`, or app.launch(adopt=True)."
        )
    session.rows("adopt", system=system, database=here["database"], place=place)


def _asked(session: Session, allowed: str, query: str) -> str | None:
    """Ask what not every role may ask for."""
    if not session.rows(allowed)[0]["allowed"]:
        return None
    (answer,) = session.rows(query)[0].values()
    return None if answer is None else str(answer)


def _same(one: str | None, other: str | None) -> bool:
    return None in (one, other) or one == other


def _beats(session: Session) -> bool:
    """Whether a process that was here before is here still: it came along when a standby took over."""
    ends = time.monotonic() + WATCHED
    seen = session.rows("beats")
    while seen and time.monotonic() < ends:
        time.sleep(0.1)
        if session.rows("beats") != seen:
            return True
    return False


def _made(place: str | None) -> str:
    if place is None:
        return ""
    return f", whose files were made at {datetime.fromtimestamp(float(place), UTC):%Y-%m-%d %H:%M:%S} UTC"
