"""`operon new`: what it makes works, and it overwrites nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from children import ran
from terminal import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_made_project_passes_its_own_test(project: Project) -> None:
    ended = project.operon("new", "hello-2")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "cd hello-2 && operon dev" in ended.stdout
    made = project.directory / "hello-2"
    names = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    assert names == {"app.py", "pyproject.toml", "README.md", ".gitignore", "tests/test_app.py"}
    assert not any("$" in (made / name).read_text() for name in names)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    tested = ran(*command, cwd=made, env=project.environment)
    assert tested.returncode == 0, tested.stdout


def test_nothing_is_overwritten(project: Project) -> None:
    mine = project.write("hello/app.py", "mine")
    ended = project.operon("new", "hello")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "there already" in ended.stderr
    assert mine.read_text() == "mine"
    assert [*mine.parent.iterdir()] == [mine]


@pytest.mark.parametrize("name", ["", "a b", "../up", "1st", "x" * 80, "é", "a\x1b[31m"])
def test_name_must_be_usable(project: Project, name: str) -> None:
    ended = project.operon("new", name)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "\x1b" not in ended.stderr
    assert [*project.directory.iterdir()] == []
