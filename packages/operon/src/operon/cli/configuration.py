"""What the project says of itself: `[tool.operon]` in the nearest pyproject.toml."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from operon.cli.complaint import Complaint


def prepare() -> None:
    """Let the app find the database that pyproject.toml names, unless the environment names one."""
    if (database := settings().get("database")) and not os.environ.get("OPERON_DATABASE_URL"):
        os.environ["OPERON_DATABASE_URL"] = str(database)


def project() -> Path | None:
    """The nearest directory, from here upwards, that has a pyproject.toml."""
    here = Path.cwd()
    return next((each for each in (here, *here.parents) if (each / "pyproject.toml").is_file()), None)


def settings() -> dict[str, Any]:
    """What `[tool.operon]` says in the project's pyproject.toml."""
    root = project()
    if root is None:
        return {}
    try:
        found = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    except ValueError as error:
        raise Complaint(f"{root / 'pyproject.toml'} cannot be read: {error}.") from None
    table = found.get("tool", {}).get("operon", {})
    return dict(table)
