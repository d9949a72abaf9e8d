"""Named statements are found, spelled for each driver, and mean the same in each."""

from __future__ import annotations

from pathlib import Path

import pytest

from operon.stores import queries

TEXT = """
-- An essay, with a 'quote: and no name.
-- park: leave the executor
update t set a = :ready_at::text, b = 'it''s :not', "c:d" = $q$ :nor $q$  -- nor :this
where id = :id and ready_at = :ready_at and c like 'a%' and n % 2 = 0;

-- wake: come back
select 1;
"""


def test_a_file_is_split_by_name_and_comments_are_left_out() -> None:
    names = dict(queries.split(TEXT))
    assert list(names) == ["park", "wake"]
    assert "essay" not in names["park"]
    assert "nor :this" not in names["park"]
    assert names["wake"] == "select 1"


def test_parameters_are_found_outside_strings_casts_and_comments_only() -> None:
    park = dict(queries.split(TEXT))["park"]
    assert queries.parameters(park) == ("ready_at", "id")
    assert queries.numbered(park) == (
        "update t set a = $1::text, b = 'it''s :not', \"c:d\" = $q$ :nor $q$\n"
        "where id = $2 and ready_at = $1 and c like 'a%' and n % 2 = 0"
    )


def test_psycopg_spelling_doubles_percent_signs() -> None:
    park = dict(queries.split(TEXT))["park"]
    assert "a = %(ready_at)s::text" in queries.pyformat(park)
    assert "like 'a%%' and n %% 2" in queries.pyformat(park)


def test_a_name_twice_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text("-- one: x\nselect 1;\n-- one: y\nselect 2;\n")

    def files(_package: str) -> Path:
        return tmp_path

    monkeypatch.setattr(queries, "files", files)
    with pytest.raises(ValueError, match="twice"):
        queries.load("twice")


@pytest.mark.parametrize(("store", "beat"), [("postgres", "beat"), ("sqlite", "pulse")])
def test_a_heartbeat_looks_at_nobody_who_waits(store: str, beat: str) -> None:
    """There may be 100,000 of them; who ended while somebody awaited it is noted, and few are."""
    statement = queries.load(f"operon.stores.{store}")[beat]
    assert "wakes" in statement
    assert "awaits" not in statement
