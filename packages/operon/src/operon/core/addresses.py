"""A database's address as somebody wrote it; one with a slip in it is refused without repeating its password."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from operon.errors import BadValue

POSTGRES = re.compile(r"postgres(?:ql)?(?:\+(?:psycopg|asyncpg))?://")
SQLITE = re.compile(r"sqlite(?:\+(?:pysqlite|aiosqlite))?:")
NETWORK: Mapping[str, int] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""What libpq is told of the network: after ten seconds in which it swallows what is sent, a connection is lost, as
after a broken one."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_PLACE = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::\d*)?")
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def address(database: object) -> object:
    """Give a path as a URL, check a URL, and leave alone what is neither: an engine, a pool, a store.

    Raises:
        BadValue: it is no URL of a database that is known here, or one that is read in another way than was meant.
    """
    if hasattr(database, "__fspath__"):
        return f"sqlite:///{database}"
    if isinstance(database, str) and database != "memory:" and not SQLITE.match(database):
        if not (postgres := POSTGRES.match(database)):
            scheme = _SCHEME.match(database)
            said = f"begins with {scheme[1]!r}" if scheme else "is no URL"
            raise BadValue(f"database= {said}; write postgresql://…, sqlite:///file.db or memory:.")
        if slip := _slip(database[postgres.end() :]):
            raise BadValue(
                f"database= cannot be read: {slip}. Write postgresql://user:password@host:5432/name, and in the user "
                "and the password %40 for @, %2F for /, %3F for ? and %25 for %; urllib.parse.quote(password, safe='') "
                "does."
            )
    return database


def rendered(url: Any) -> str:
    """Give SQLAlchemy's own kind of URL as libpq reads it, to which a space is %20, and a plus is a plus."""
    text = str(url.render_as_string(hide_password=False))
    if SQLITE.match(text):
        return text
    place, mark, parameters = text.partition("?")
    return f"{place.replace(' ', '%20')}{mark}{parameters.replace('+', '%20')}"


def _slip(rest: str) -> str | None:
    """Find what libpq would read otherwise than it was meant, and repeat in its errors: a part of the password."""
    authority, _, behind = rest.partition("/")
    authority, _, parameters = authority.partition("?")
    name = "" if parameters else behind.partition("?")[0]
    if authority.count("@") > 1:
        return "there are two @ before the host"
    if "@" in name:
        return "there is an @ behind the first /"
    if _PERCENT.search(rest):
        return "there is a % that begins no code"
    if not all(_PLACE.fullmatch(place) for place in authority.rpartition("@")[2].split(",")):
        return "its host or port cannot be one"
    return None
