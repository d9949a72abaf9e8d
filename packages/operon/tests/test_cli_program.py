"""Which app a command means, and what it says when that is none; in a process of its own, as a person meets it."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from children import ran
from terminal import Project

APP = "from operon import Operon\n{name} = Operon({title!r})\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def hello(project: Project, module: str = "app", name: str = "app") -> None:
    project.write(f"{module}.py", APP.format(name=name, title=f"{module}-{name}"))


def complaint(project: Project, *arguments: str, code: int, **environment: str) -> str:
    """The one line that a command says when it refuses."""
    ended = project.operon(*arguments, **environment)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ended.stderr.startswith("operon: ")
    assert ended.stderr.count("\n") == 1
    return ended.stderr


def test_version(project: Project) -> None:
    ended = project.operon("--version")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("operon 0.")


def test_no_arguments_show_the_commands(project: Project) -> None:
    ended = project.operon()
    assert ended.returncode == 0
    assert all(name in ended.stdout for name in ("new", "dev", "run", "migrate", "workflows", "executors", "postgres"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["run", "--bogus"],
        ["run", "--port", "x"],
        ["workflows", "show"],
        ["workflows", "list", "--status", "x"],
    ],
)
def test_wrong_usage_is_one_line_and_2(project: Project, arguments: list[str]) -> None:
    hello(project)
    assert "--help" in complaint(project, *arguments, code=2)


def test_app_is_found_where_it_usually_is(project: Project) -> None:
    hello(project, "main", "shop")
    assert project.operon("migrate").stdout == "sqlite:///main-shop.db is up to date.\n"


def test_flag_beats_environment_beats_pyproject_beats_the_usual(project: Project) -> None:
    for module in ("app", "one", "two", "three"):
        hello(project, module)
    assert "app-app" in project.operon("migrate").stdout
    project.write("pyproject.toml", '[tool.operon]\napp = "one"\n')
    assert "one-app" in project.operon("migrate").stdout
    assert "two-app" in project.operon("migrate", OPERON_APP="two:app").stdout
    assert "three-app" in project.operon("migrate", "three:app", OPERON_APP="two:app").stdout


def test_database_of_flag_environment_and_pyproject(project: Project) -> None:
    hello(project)
    project.write("pyproject.toml", '[tool.operon]\ndatabase = "sqlite:///toml.db"\n')
    assert "toml.db" in project.operon("migrate").stdout
    assert "env.db" in project.operon("migrate", OPERON_DATABASE_URL="sqlite:///env.db").stdout
    flag = project.operon("migrate", "--database", "sqlite:///flag.db", OPERON_DATABASE_URL="sqlite:///env.db")
    assert "flag.db" in flag.stdout


@pytest.mark.parametrize(
    ("files", "arguments", "says"),
    [
        ({}, [], "no app.py or main.py here"),
        ({"app.py": "x = 1"}, [], "no Operon app in it"),
        ({"app.py": "from operon import Operon\na = Operon('a')\nb = Operon('b')"}, [], "app:a, app:b"),
        ({"app.py": "from operon import Operon\na = Operon('a')"}, ["app:b"], "app:b is not there"),
        ({"app.py": "from operon import Operon\na = Operon('a')\nb = 3"}, ["app:b"], "b is a int"),
        ({}, ["nowhere:app"], "no module 'nowhere'"),
        ({}, ["no such:app"], "module:app"),
    ],
)
def test_missing_app_is_explained(project: Project, files: dict[str, str], arguments: list[str], says: str) -> None:
    for name, text in files.items():
        project.write(name, text)
    assert says in complaint(project, "migrate", *arguments, code=2)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import nosuchthing", "No module named 'nosuchthing' (app.py, line 1)"),
        ("\n1 / 0", "ZeroDivisionError: division by zero (app.py, line 2)"),
        ("def (", "SyntaxError"),
    ],
)
def test_broken_app_is_one_line_with_its_place(project: Project, source: str, says: str) -> None:
    project.write("app.py", source)
    assert says in complaint(project, "migrate", code=1)


def test_unreachable_database_is_one_line(project: Project) -> None:
    hello(project)
    assert "out of reach" in complaint(project, "migrate", code=1, DATABASE_URL="postgresql://127.0.0.1:1/none")


def test_broken_pyproject_is_one_line(project: Project) -> None:
    hello(project)
    project.write("pyproject.toml", "[tool")
    assert "pyproject.toml" in complaint(project, "migrate", code=2)


def test_migrate_refuses_a_copied_database_until_told(project: Project) -> None:
    """A copy of a database holds another's work: only a person may say that it goes on here."""
    hello(project)
    assert project.operon("migrate").returncode == 0
    with closing(sqlite3.connect(project.directory / "app-app.db")) as source:
        source.execute(f"vacuum into '{project.directory / 'copy.db'}'")
    copy = ("--database", "sqlite:///copy.db")
    assert "operon migrate --adopt" in complaint(project, "migrate", *copy, code=1)
    assert project.operon("migrate", *copy, "--adopt").returncode == 0
    assert project.operon("migrate", *copy).returncode == 0


def test_migrate_works_on_postgres(project: Project, postgres_url: str) -> None:
    hello(project)
    ended = project.operon("migrate", DATABASE_URL=postgres_url)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert postgres_url.rpartition("@")[2] in ended.stdout
    assert postgres_url.partition("@")[0] not in ended.stdout, "the password is nobody's business"


@pytest.mark.parametrize("odd", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONUTF8": "0", "LC_ALL": "POSIX"}], ids=str)
def test_a_terminal_that_lacks_a_character_is_shown_its_number(project: Project, odd: dict[str, str]) -> None:
    """Whatever the locale, a command says what it has to say, and serves; a character that is missing is escaped."""
    project.write(
        "app.py",
        "from operon import Operon\napp = Operon('app')\n\n"
        "@app.workflow\ndef greet(name: str) -> str:\n    return 'Gr\\u00fc\\u00dfe'\n",
    )
    with project.start("run", "--no-http", **odd) as server:
        assert "\\u25cf app" in server.until(" app ")
        started = project.operon("workflows", "start", "greet", "name=Ada", "--wait", "60", **odd)
    assert (started.returncode, started.stdout.splitlines()[-1]) == (0, '"Gr\\xfc\\xdfe"')
    assert "Gr\\xfc\\xdfe" in project.operon("workflows", "list", **odd).stdout


def test_a_command_whose_output_is_closed_does_its_work(project: Project) -> None:
    """`>&-`, as a service manager or a cron job may have it."""
    hello(project)
    assert project.operon("migrate").returncode == 0
    for command in ("workflows list", "executors", "workflows show none"):
        line = f"exec {sys.executable} -m operon {command} >&- 2>&-"
        ended = ran("/bin/sh", "-c", line, cwd=project.directory, env=project.environment)
        assert ended.returncode == (command == "workflows show none")
