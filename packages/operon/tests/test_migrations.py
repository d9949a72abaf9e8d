"""Scripts are applied once each, in order, under the lock; a schema of another version is refused."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

import pytest

from operon.errors import SchemaMismatch
from operon.stores.migrations import Migration, migrate

ONE = Migration(1, "pre", "one", "create table one()")
TWO = Migration(2, "pre", "two", "create table two()")


class Book:
    """A ledger in memory; `rival` runs just before the lock is granted."""

    def __init__(self, *applied: Migration, rival: Callable[[Book], object] | None = None) -> None:
        self.notes = {migration.number: (migration.title, migration.checksum) for migration in applied}
        self.ran: list[int] = []
        self.rival = rival

    def applied(self) -> Mapping[int, tuple[str, str]]:
        return dict(self.notes)

    @contextmanager
    def lock(self) -> Generator[None]:
        if self.rival:
            self.rival(self)
        yield

    def apply(self, migration: Migration) -> None:
        self.ran.append(migration.number)
        self.notes[migration.number] = migration.title, migration.checksum


def test_only_what_is_missing_is_applied_in_order() -> None:
    book = Book(ONE)
    migrate(book, (ONE, TWO))
    assert book.ran == [2]
    migrate(book, (ONE, TWO))
    assert book.ran == [2]


def test_who_waited_for_the_lock_looks_again() -> None:
    book = Book(rival=lambda book: book.notes.update({1: (ONE.title, ONE.checksum)}))
    migrate(book, (ONE,))
    assert book.ran == []


def test_older_code_works_with_what_a_newer_version_added() -> None:
    """During a rolling deploy, and after it was taken back."""
    book = Book(ONE, TWO)
    migrate(book, (ONE,))
    assert book.ran == []


@pytest.mark.parametrize("later", [Migration(2, "post", "two", ""), Migration(2, "pre", "two", "")])
def test_older_code_refuses_a_schema_from_which_something_was_taken(later: Migration) -> None:
    """As does code that cannot know, because it was noted before phases were."""
    book = Book(ONE, later)
    if later.phase == "pre":
        book.notes[2] = later.name, later.checksum
    with pytest.raises(SchemaMismatch, match="newer one was here"):
        migrate(book, (ONE,))


def test_an_edited_script_is_refused() -> None:
    with pytest.raises(SchemaMismatch, match="another text"):
        migrate(Book(ONE), (Migration(1, "pre", "one", "create table uno()"),))


def test_without_permission_to_migrate_an_older_schema_is_refused() -> None:
    book = Book()
    with pytest.raises(SchemaMismatch, match="operon migrate"):
        migrate(book, (ONE,), allowed=False)
    assert book.ran == []
