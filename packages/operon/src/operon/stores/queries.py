"""Statements by name, from the `.sql` files of a package; it must not know any database.

A file holds one noun's statements. Each begins with a line `-- name: what it is for`, at the margin, and takes
`:name` parameters; comments above that line are for the reader.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from operon.core.sql import TOKEN, numbered, parameters, pyformat, rewrite

__all__ = ["HEADER", "bare", "load", "numbered", "parameters", "pyformat", "rewrite", "split"]

HEADER = re.compile(r"^-- ([a-z_]+): \S.*\n", re.MULTILINE)


@cache
def load(package: str) -> Mapping[str, str]:
    """Read every statement of a package's `.sql` files, without its comments.

    Raises:
        ValueError: two statements of one name, or a name without a statement.
    """
    statements: dict[str, str] = {}
    for file in sorted(files(package).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            for name, statement in split(file.read_text("utf-8")):
                if name in statements or not statement:
                    raise ValueError(f"{package}/{file.name}: {name!r} is there twice, or empty")
                statements[name] = statement
    return statements


def split(text: str) -> list[tuple[str, str]]:
    """Split a file into its names and statements."""
    parts = HEADER.split(text)[1:]
    return [(name, bare(body)) for name, body in zip(parts[::2], parts[1::2], strict=True)]


def bare(text: str) -> str:
    """Strip comments, empty lines and the closing semicolon."""
    code = TOKEN.sub(lambda token: "" if token["comment"] else token[0], text)
    return "\n".join(line.rstrip() for line in code.splitlines() if line.strip()).removesuffix(";")
