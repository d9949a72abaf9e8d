"""`operon workflows` and `operon executors`: what they show is what the database holds, and it cannot bite."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from operon import Operon, start
from operon.cli import main
from terminal import Project

HOSTILE = "\x1b]0;owned\x07 [bold red]x[/] \u202e ok"
Says = Callable[..., str]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'listed.db'}"


@pytest.fixture
def app(url: str) -> Iterator[Operon]:
    app = Operon("listed", database=url)

    @app.step
    def double(number: int) -> int:
        return 2 * number

    @app.workflow(name="add")
    def add(number: int, more: int = 0) -> int:
        return double(number) + more

    @app.workflow(name="fail")
    def fail(text: str) -> None:
        raise ValueError(text)

    with app:
        add.using(key="one", user="ada", attributes={"tenant": "x"})(1)
        add.using(key="two")(2, more=5)
        with pytest.raises(ValueError, match="owned"):
            fail.using(key="bad")(HOSTILE)
        start(add.using(key="later", delay=3600), 3)
        yield app


@pytest.fixture
def says(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Says:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("COLUMNS", raising=False)

    def says(*arguments: str, code: int = 0) -> str:
        assert main([*arguments, "--database", url]) == code
        said = capsys.readouterr()
        assert (said.out if code else said.err) == ""
        return said.err if code else said.out

    return says


def ids(text: str) -> list[str]:
    rows: list[dict[str, Any]] = json.loads(text)
    return [row["id"] for row in rows]


def test_list_filters(app: Operon, says: Says) -> None:
    listing = ("workflows", "list", "--json")
    assert ids(says(*listing)) == ["later", "bad", "two", "one"]
    assert ids(says(*listing, "--limit", "2")) == ["later", "bad"]
    assert ids(says(*listing, "--name", "fail")) == ["bad"]
    assert ids(says(*listing, "--status", "failed", "--status", "queued")) == ["later", "bad"]
    assert ids(says(*listing, "--user", "ada")) == ["one"]
    assert ids(says(*listing, "--attribute", "tenant=x")) == ["one"]
    assert ids(says(*listing, "--since", "1h")) == ["later", "bad", "two", "one"]
    assert ids(says(*listing, "--until", "2020-01-01T00:00")) == []
    assert "90s, 2h or 1d" in says(*listing, "--since", "yesterday", code=2)


def test_table_has_every_row(app: Operon, says: Says) -> None:
    lines = says("workflows", "list").splitlines()
    assert [line.split()[1] for line in lines[3:-1]] == ["later", "bad", "two", "one"]
    assert "succeeded" in lines[-2]
    assert "No workflows." in says("workflows", "list", "--name", "nobody")


def test_show_tells_the_steps(app: Operon, says: Says) -> None:
    shown = says("workflows", "show", "two")
    assert '{"number": 2, "more": 5}' in shown
    assert "double" in shown
    record = json.loads(says("workflows", "show", "two", "--json"))
    assert (record["status"], record["output"], [step["output"] for step in record["steps"]]) == ("succeeded", 9, [4])
    assert record["steps"][0]["name"].endswith("double")
    assert "no workflow has the id 'nobody'" in says("workflows", "show", "nobody", code=1).lower()


def test_hostile_text_is_shown_and_not_obeyed(app: Operon, says: Says) -> None:
    """Control characters and changes of direction are escaped, and markup is text, in every view."""
    for view in (("workflows", "list"), ("workflows", "show", "bad"), ("workflows", "show", "bad", "--json")):
        said = says(*view)
        assert not {"\x1b", "\x07", "\u202e"} & set(said)
        assert "[bold red]x[/]" in said
    assert "\\x1b" in says("workflows", "show", HOSTILE, code=1)


def test_start_waits_for_the_result(app: Operon, says: Says) -> None:
    assert says("workflows", "start", "add", "number=4", "more=1", "--key", "new", "--wait", "30") == "9\n"
    assert says("workflows", "start", "add", '{"number": 4, "more": 1}', "--key", "new") == "new\n"
    assert "other arguments" in says("workflows", "start", "add", "number=5", "--key", "new", code=1)
    assert "ValueError: no" in says("workflows", "start", "fail", "text=no", "--wait", "30", code=1)
    assert "name=value" in says("workflows", "start", "add", "4", code=2)
    assert "goes on" in says("workflows", "start", "nobody", "--wait", "0", code=1)


def test_cancel_tells_what_became_of_it(app: Operon, says: Says) -> None:
    assert says("workflows", "cancel", "later", "one") == "later is cancelled.\none is succeeded.\n"
    assert "nobody" in says("workflows", "cancel", "nobody", code=1)


def test_delete_deletes_what_has_ended(app: Operon, says: Says) -> None:
    assert says("workflows", "delete", "one", "two") == "one is deleted.\ntwo is deleted.\n"
    assert "cancel it first" in says("workflows", "delete", "later", code=1)
    assert "nobody" in says("workflows", "delete", "nobody", code=1)
    assert "one" not in says("workflows", "list", "--json")


def test_executors_lists_this_process(app: Operon, says: Says) -> None:
    (executor,) = json.loads(says("executors", "--json"))
    assert (executor["app"], executor["alive"]) == ("listed", True)
    assert "alive" in says("executors")


def test_absent_database_is_not_made(says: Says, url: str, tmp_path: Path) -> None:
    if url.startswith("sqlite"):
        assert "no database" in says("workflows", "list", code=1)
        assert [*tmp_path.iterdir()] == []
    else:
        assert "operon migrate" in says("workflows", "list", code=1)


def test_start_checks_arguments_against_the_app(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write(
        "app.py",
        "from datetime import date\nfrom operon import Operon\napp = Operon('typed')\n"
        "@app.workflow\ndef age(born: date) -> int: return born.year\n",
    )
    assert project.operon("migrate").returncode == 0
    started = project.operon("workflows", "start", "age", "born=1999-12-31", "--key", "k")
    assert (started.stdout, started.stderr) == ("k\n", "")
    wrong = project.operon("workflows", "start", "age", "born=never")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    unknown = project.operon("workflows", "start", "age", "borne=1999-12-31")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "takes no 'borne'" in unknown.stderr
    assert "needs born=" in project.operon("workflows", "start", "age").stderr
    assert "there is age" in project.operon("workflows", "start", "agee", "born=never").stderr
