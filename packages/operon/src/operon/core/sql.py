"""Spell a statement's `:name` parameters as a driver wants them; it must not know any driver or database."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?\*/)
      | (?P<literal>'(?:[^']|'')*'|"(?:[^"]|"")*"|(?P<quote>\$\w*\$).*?(?P=quote)|::|:=)
      | :(?P<name>[A-Za-z_]\w*)
      | (?P<percent>%)""",
    re.VERBOSE | re.DOTALL,
)


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
