"""Bring a schema up to date: numbered scripts, forward only, under a lock; it must not know any database.

A script is named `0002_pre_queues.sql`. `pre` scripts only add, so code of the version before still runs beside
them; `post` scripts take away what no running version uses. A script that was released is never edited.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Literal, Protocol, cast

from operon.errors import SchemaMismatch

FILE = re.compile(r"(\d{4})_(pre|post)_(\w+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One script, as it is shipped."""

    number: int
    phase: Literal["pre", "post"]
    name: str
    script: str

    @property
    def title(self) -> str:
        """What it is noted as, so that code that does not know it knows its phase."""
        return f"{self.phase}_{self.name}"

    @property
    def checksum(self) -> str:
        """Tells whether the script that was applied is the one that is shipped."""
        return sha256(self.script.encode()).hexdigest()


class Ledger(Protocol):
    """What a database says of the migrations applied to it."""

    def applied(self) -> Mapping[int, tuple[str, str]]:
        """By number, what each was noted as, and its checksum; empty where there is no schema yet."""
        ...

    def lock(self) -> AbstractContextManager[object]:
        """Enter one transaction that keeps everybody else from migrating."""
        ...

    def apply(self, migration: Migration) -> None:
        """Run a script and note it, within `lock`."""
        ...


@cache
def shipped(package: str) -> tuple[Migration, ...]:
    """The scripts in a package's folder `migrations`, in order."""
    found: list[Migration] = []
    for file in (files(package) / "migrations").iterdir():
        if match := FILE.fullmatch(file.name):
            phase = cast("Literal['pre', 'post']", match[2])
            found.append(Migration(int(match[1]), phase, match[3], file.read_text("utf-8")))
    return tuple(sorted(found, key=lambda migration: migration.number))


def migrate(ledger: Ledger, migrations: tuple[Migration, ...], *, allowed: bool = True) -> None:
    """Apply what is missing; once this returns, the schema is the one this code was written for.

    Safe from many processes at once: one migrates, the others wait and then find nothing to do.

    Raises:
        SchemaMismatch: the schema is newer, and something was taken away; it was made by an edited script; or it is
            older and `allowed` is False.
    """
    missing = pending(ledger.applied(), migrations)
    if not missing:
        return
    if not allowed:
        raise SchemaMismatch(
            f"The database lacks migration {missing[0].number:04} ({missing[0].name}) and this process may not "
            "apply it: run `operon migrate`, then start again."
        )
    with ledger.lock():
        for migration in pending(ledger.applied(), migrations):
            ledger.apply(migration)


def pending(applied: Mapping[int, tuple[str, str]], migrations: tuple[Migration, ...]) -> list[Migration]:
    """The scripts still to apply, having compared those that were; what a newer version has added is no matter."""
    known = {migration.number: migration for migration in migrations}
    for number, (title, checksum) in applied.items():
        if number not in known:
            if title.startswith("pre_"):
                continue
            raise SchemaMismatch(
                f"The database has migration {number:04}, which this version of Operon does not know: "
                "a newer one was here. Upgrade this process to that version."
            )
        if checksum != known[number].checksum:
            raise SchemaMismatch(
                f"Migration {number:04} ({known[number].name}) was applied with another text than this version "
                "ships: install the version of Operon that migrated this database."
            )
    return [migration for migration in migrations if migration.number not in applied]
