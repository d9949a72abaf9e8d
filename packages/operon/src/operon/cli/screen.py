"""The terminal: tables, JSON and complaints. Whatever comes from the database is shown as it is, and obeyed never."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from rich.box import ROUNDED
from rich.console import Console
from rich.table import Table
from rich.text import Text

COLOURS: Final = {
    "queued": "cyan",
    "running": "blue",
    "waiting": "magenta",
    "held": "bold yellow",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "dim",
    "alive": "green",
    "gone": "dim",
}
NARROW: Final = {"status", "created", "took", "lease"}
"""Columns that are never folded."""
WIDE: Final = 240
"""Columns where nobody looks: a pipe must not lose the end of a line."""


def prepare() -> None:
    """Let everything be said on stdout and stderr: escaped where their encoding lacks it, to nobody where closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def console(*, stderr: bool = False) -> Console:
    """Give the terminal as it is now."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else WIDE
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=stderr)


def complain(message: str) -> None:
    """Say on stderr, in one line, what went wrong."""
    line = Text("operon: ", style="bold red")
    line.append(" ".join(visible(message, newlines=True).split("\n")), style="default")
    console(stderr=True).print(line)


def say(message: str, *, style: str = "") -> None:
    """Say one line on stdout."""
    console().print(Text(visible(message), style=style), soft_wrap=True)


def listing(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Show rows as a table; nothing is cut, what is too long is folded."""
    table = Table(box=ROUNDED, border_style="dim", header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=column in NARROW, style="" if number else "bold")
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    if table.row_count:
        console().print(table)
    else:
        say(f"No {title}.", style="dim")


def facts(pairs: Mapping[str, object]) -> None:
    """Show what is known of one thing."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        if value not in (None, "", (), {}):
            table.add_row(name, cell(value))
    console().print(table)


def cell(value: object) -> Text:
    """Show one value; text of others keeps no power over the terminal."""
    if isinstance(value, Text):
        return value
    if value is None:
        return Text("—", style="dim")
    if isinstance(value, datetime):
        return Text(value.astimezone().strftime("%Y-%m-%d %H:%M:%S"))
    if isinstance(value, timedelta):
        return Text(spell(value))
    text = visible(value if isinstance(value, str) else plain(value))
    return Text(text, style=COLOURS.get(text, ""))


def spell(duration: timedelta) -> str:
    """Spell a duration for people."""
    seconds = duration.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.1f} min" if minutes < 60 else f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} d"


def visible(text: str, *, newlines: bool = False) -> str:
    """Escape what a terminal would obey: control characters, changes of direction, lone surrogates."""
    return "".join(
        char if char.isprintable() or (newlines and char == "\n") else char.encode("unicode_escape").decode()
        for char in text
    )


def plain(value: object) -> str:
    """Spell a value as JSON, or as Python does where JSON has no word for it."""
    return json.dumps(jsonable(value), ensure_ascii=False)


def dump(value: object) -> None:
    """Print JSON, for programs."""
    print(json.dumps(jsonable(value), indent=2))


def jsonable(value: object) -> Any:
    """Make of a value what JSON can say."""
    try:
        return msgspec.to_builtins(value, str_keys=True, enc_hook=_unusual)
    except (TypeError, ValueError, msgspec.MsgspecError):
        return repr(value)


def _unusual(value: object) -> object:
    if isinstance(value, BaseException):
        return {"type": type(value).__qualname__, "message": str(value)}
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    return repr(value)
