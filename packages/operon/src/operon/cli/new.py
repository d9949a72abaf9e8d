"""`operon new`: make a project from templates."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Final

from operon.cli.complaint import Complaint
from operon.cli.screen import say

NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
SUFFIX: Final = ".template"
"""Keeps a template from being taken for what it becomes."""


def command(name: str, /) -> None:
    """Make a directory with an app in it: a crash-proof endpoint on SQLite, and a test of it.

    Args:
        name: Of the app and the directory: letters, digits, - and _.
    """
    if not NAME.fullmatch(name):
        raise Complaint(f"{name!r} cannot name a project: use letters, digits, - and _, a letter first.")
    target = Path(name)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Complaint(f"{target} is there already, and nothing in it was touched: choose another name.", 1)
    _write(files("operon.cli") / "templates", target, name)
    say(f"Made {name}. Now:")
    say(f"  cd {name} && operon dev", style="bold")


def _write(source: Traversable, target: Path, name: str) -> None:
    target.mkdir(exist_ok=True)
    for each in source.iterdir():
        if each.is_dir():
            _write(each, target / each.name, name)
        elif each.name.endswith(SUFFIX):
            written = target / each.name.removesuffix(SUFFIX).replace("dot-", ".")
            written.write_text(Template(each.read_text("utf-8")).substitute(name=name), "utf-8")
