"""The README is true: every code block of it is executed, in order, as a newcomer would."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from children import PATIENCE, Child, eventually, ran, started
from terminal import clean, free_port

ROOT: Final = Path(__file__).parents[3]
BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
README: Final = (ROOT / "README.md").read_text("utf-8")
PYTHON: Final = [code for language, code in BLOCK.findall(README) if language == "python"]
BASH: Final = shutil.which("bash") or "/bin/bash"
CURL: Final = f"""#!{sys.executable}
import sys
from http.client import HTTPConnection
from urllib.parse import urlsplit
arguments = iter(sys.argv[1:])
method, headers, url = "GET", {{}}, ""
for each in arguments:
    if each == "-X": method = next(arguments)
    elif each == "-H": name, _, value = next(arguments).partition(": "); headers[name] = value
    elif each != "-s": url = urlsplit("http://" + each)
connection = HTTPConnection(url.netloc)
connection.request(method, f"{{url.path}}?{{url.query}}", headers=headers)
print(connection.getresponse().read().decode(), end="")
"""
"""What the README uses of curl, for machines without it."""


class Shell:
    """One bash, told the README's commands one by one, heard for what the README says they say."""

    def __init__(self, bash: Child, heard: Path) -> None:
        self._bash = bash.process
        self._heard = heard
        self._number = 0

    def type(self, command: str, expected: list[str]) -> None:
        """Type a command, and wait until it has ended and everything expected was said."""
        self._number += 1
        before = len(self._heard.read_text())
        done = f"\n--- {self._number} ---\n"
        assert self._bash.stdin is not None
        self._bash.stdin.write(f"{command}\nprintf '\\n--- %s ---\\n' {self._number}\n")
        self._bash.stdin.flush()
        patterns = [".*".join(re.escape(part) for part in line.split("…")) for line in expected]

        def said() -> bool:
            text = self._heard.read_text()[before:]
            assert self._bash.poll() is None, f"bash ended: {text}"
            return done in text and all(re.search(pattern, text) for pattern in patterns)

        try:
            eventually(said, f"bash answered to {command}")
        except AssertionError:
            pytest.fail(f"$ {command}\nwas to say {expected}, and said:\n{self._heard.read_text()[before:]}")


@contextmanager
def shell(directory: Path, environment: dict[str, str]) -> Generator[Shell]:
    heard = directory / "heard"
    where: dict[str, Any] = {"cwd": directory, "env": environment, "stdin": subprocess.PIPE}
    with heard.open("w") as output, started(BASH, "--norc", **where, stdout=output, stderr=output) as bash:
        yield Shell(bash, heard)


def is_free(port: int) -> bool:
    """Whether nobody listens on a port."""
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False


def asleep(database: Path) -> bool:
    """Whether the workflow that is to be killed sleeps, so that all before it is recorded."""
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as file:
        sleeps = "select 1 from operon_steps where kind = 'sleep' and workflow_id like '%monday'"
        return file.execute(sleeps).fetchone() is not None


def commands(block: str) -> list[tuple[str, list[str]]]:
    """Split a console block into commands, each with the lines it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line.rstrip())
    return found


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "operon").write_text(f'#!/bin/sh\nexec {sys.executable} -m operon "$@"\n')
    (programs / "operon").chmod(0o755)
    if shutil.which("curl") is None:
        (programs / "curl").write_text(CURL)
        (programs / "curl").chmod(0o755)
    return clean() | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "160"}


def test_tour(tmp_path: Path, environment: dict[str, str]) -> None:
    """Every console block says what the README says that it says; on a port of the test's own."""
    port = str(free_port())
    with shell(tmp_path, environment | {"PORT": port}) as bash:
        for language, block in BLOCK.findall(README):
            for command, expected in commands(block) if language == "console" else ():
                if command.startswith("kill -9"):  # whoever reads is slower than the record of a step
                    eventually(lambda: asleep(tmp_path / "hello" / "hello.db"), "the workflow sleeps")
                bash.type(command.replace(":8000", f":{port}"), [it.replace(":8000", f":{port}") for it in expected])
                if command.startswith("kill -9"):
                    eventually(lambda: is_free(int(port)), "what was killed is gone, and has let go of its port")
        said = (tmp_path / "heard").read_text()
        assert said.count("Looking up user 2 ...") == 1, "a recorded step is not repeated"


def test_app_is_the_one_that_new_makes(tmp_path: Path, environment: dict[str, str]) -> None:
    ran(sys.executable, "-m", "operon", "new", "hello", cwd=tmp_path, env=environment, check=True)
    written = (tmp_path / "hello" / "app.py").read_text()
    assert PYTHON[0] in written.partition("\n\n")[2]


@pytest.mark.parametrize("code", PYTHON[1:], ids=lambda code: re.search(r'Operon\("(\w+)"', code)[1])  # type: ignore[index]
def test_program_runs(code: str, tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "program.py").write_text(code)
    ended = ran(sys.executable, "-W", "error", "program.py", cwd=tmp_path, env=environment)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("code", PYTHON[1:], ids=lambda code: re.search(r'Operon\("(\w+)"', code)[1])  # type: ignore[index]
def test_program_runs_in_memory(code: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """A newcomer's first test has no database: waiting ends, and transactions commit."""
    code = code.replace("sqlite:///bank.db", "memory:")
    test_program_runs(code, tmp_path, environment | {"OPERON_DATABASE_URL": "memory:"})
    assert [it.name for it in tmp_path.iterdir() if it.suffix == ".db"] == []


def test_links_lead_somewhere() -> None:
    for name in ("README.md", "ARCHITECTURE.md", "docs/reference.md", "CONTRIBUTING.md", "examples/shop/README.md"):
        page = ROOT / name
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
            assert "://" in link or (page.parent / link).exists(), f"{name} links to {link}, which is not there"
