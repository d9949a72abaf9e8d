"""Statements by name, from the `.sql` files of a package; it must not know any database.

A file holds one noun's statements. Each begins with a line `-- name: what it is for`, at the margin, and takes
`:name` parameters; comments above that line are for the reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files

HEADER = re.compile(r"^-- ([a-z_]+): \S.*\n", re.MULTILINE)
TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?\*/)
      | (?P<literal>'(?:[^']|'')*'|"(?:[^"]|"")*"|(?P<quote>\$\w*\$).*?(?P=quote)|::|:=)
      | :(?P<name>[A-Za-z_]\w*)
      | (?P<percent>%)""",
    re.VERBOSE | re.DOTALL,
)


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


@cache
def parameters(text: str) -> tuple[str, ...]:
    """The names of a statement's parameters, each once, as they first appear."""
    return tuple(dict.fromkeys(token["name"] for token in TOKEN.finditer(text) if token["name"]))


@cache
def numbered(text: str) -> str:
    """Spell the parameters `$1`, `$2` …, in the order of `parameters`: libpq and asyncpg."""
    number = {name: index for index, name in enumerate(parameters(text), 1)}
    return rewrite(text, lambda name: f"${number[name]}")


@cache
def pyformat(text: str) -> str:
    """Spell the parameters `%(name)s`, and a percent sign twice: psycopg."""
    return rewrite(text, lambda name: f"%({name})s", percent="%%")


def rewrite(text: str, spell: Callable[[str], str], percent: str = "%") -> str:
    """Put each parameter's new spelling where it stands; strings, casts and comments keep theirs."""
    return TOKEN.sub(lambda token: spell(token["name"]) if token["name"] else token[0].replace("%", percent), text)
