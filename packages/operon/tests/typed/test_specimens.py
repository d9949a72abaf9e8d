"""Both type checkers accept the contract's examples and reject every mistake that is planted in them (`# E`)."""

from __future__ import annotations

import inspect
import json
import re
import sys
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import pytest

import operon
from children import PATIENCE, ran
from operon import aio

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[3]
SPECIMENS: Final = sorted((HERE / "specimens").glob("*.py"))
Places = dict[tuple[str, int], str]


def planted() -> set[tuple[str, int]]:
    return {
        (path.name, number)
        for path in SPECIMENS
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.endswith("# E")
    }


def mypy() -> Places:
    options = ["--config-file", "pyproject.toml", "--cache-dir", ".mypy_cache/specimens", "--no-error-summary"]
    files = [str(path.relative_to(ROOT)) for path in SPECIMENS]
    said = run(sys.executable, "-m", "mypy", *options, "--output", "json", *files)
    found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert found, said
    return {(Path(it["file"]).name, it["line"]): it["message"] for it in found if it["severity"] == "error"}


def pyright() -> Places:
    said = run(sys.executable, "-m", "pyright", "-p", str(HERE), "--pythonpath", sys.executable, "--outputjson")
    found: list[dict[str, Any]] = json.loads(said)["generalDiagnostics"]
    return {
        (Path(it["file"]).name, it["range"]["start"]["line"] + 1): it["message"]
        for it in found
        if it["severity"] == "error"
    }


def run(*command: str) -> str:
    return ran(*command, cwd=ROOT, patience=2 * PATIENCE).stdout


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_specimens_mean_to_a_checker_what_they_say(checker: Any) -> None:
    found, wanted = checker(), planted()
    wrong = {f"{name}:{line}: {message}" for (name, line), message in found.items() if (name, line) not in wanted}
    missed = sorted(wanted - found.keys())
    assert not wrong, "\n".join(sorted(wrong))
    assert not missed, f"accepted: {missed}"


def test_every_public_name_has_a_specimen() -> None:
    text = "\n".join(path.read_text() for path in SPECIMENS)
    names = [*operon.__all__, *(f"aio.{name}" for name in aio.__all__)]
    names += [f"{module}.{name}" for module in ("schedules", "aio.schedules") for name in operon.schedules.__all__]
    assert [name for name in names if not re.search(rf"\b{re.escape(name)}\b", text)] == []


def test_aio_has_every_verb() -> None:
    """`aio` has what `operon` has, to be awaited, and `call` besides; only nouns and declarations are `operon`'s."""
    nouns = {name for name in operon.__all__ if name[0].isupper()} | {"aio", "remote"}
    assert set(aio.__all__) == set(operon.__all__) - nouns | {"call"}
    assert aio.schedules.__all__ == operon.schedules.__all__


VERBS: Final = [name for name in aio.__all__ if name not in {"call", "context", "schedules"}]
OF_SCHEDULES: Final = [f"schedules.{name}" for name in operon.schedules.__all__]


@pytest.mark.parametrize("name", [*VERBS, *OF_SCHEDULES])
def test_help_shows_what_the_caller_passes(name: str) -> None:
    """Both colours alike, and nothing that the library fills in."""
    blocking, awaited = (inspect.signature(attrgetter(name)(module)) for module in (operon, aio))
    assert blocking == awaited
    assert "host" not in blocking.parameters
    assert inspect.iscoroutinefunction(attrgetter(name)(aio))
