"""Whether a file of the program has changed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

SUFFIXES: Final = (".py", ".sql", ".html", ".toml")
SKIPPED: Final = {"__pycache__", "node_modules", "site-packages"}


class Files:
    """The sources below a directory, as they were when last looked at."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen = self._look()

    def changed(self) -> Path | None:
        """One that was written, made or removed since the last call."""
        before, self._seen = self._seen, self._look()
        changed = before.items() ^ self._seen.items()
        return min((path for path, _ in changed), default=None)

    def _look(self) -> dict[Path, int]:
        found: dict[Path, int] = {}
        for root, directories, names in os.walk(self._directory):
            directories[:] = [each for each in directories if each not in SKIPPED and not each.startswith(".")]
            for name in names:
                if name.endswith(SUFFIXES):
                    path = Path(root, name)
                    with suppress(FileNotFoundError):  # it went while we looked
                        found[path] = path.stat().st_mtime_ns
        return found
