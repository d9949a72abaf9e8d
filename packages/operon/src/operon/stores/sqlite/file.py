"""Where the database is: its file and the lock of those who write to it in this process."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from operon.errors import DeclarationError

if TYPE_CHECKING:
    from operon.core.store import Lock

URL = re.compile(r"sqlite(?:\+\w+)?:(?://)?/?(?P<path>[^?]*)")
_writers: WeakValueDictionary[str, Lock] = WeakValueDictionary()
_registering = threading.Lock()


def locate(url: str) -> str:
    """Read a path from `sqlite:///relative.db`, `sqlite:////absolute.db` or a plain path.

    Raises:
        DeclarationError: the database would be in memory, and gone with its connection.
    """
    match = URL.match(url)
    path = match["path"] if match else url
    if not path or ":memory:" in url or "mode=memory" in url:
        raise DeclarationError(
            f"{url!r} is a database in memory, which no other connection sees and no crash survives: "
            "name a file, as in 'sqlite:///app.db'. For tests, write 'memory:', which keeps everything in the process."
        )
    return path


def writer_of(path: str) -> Lock:
    """Give the lock of a file's writers: the same one to all in this process, by whatever path they came."""
    with _registering:
        return _writers.setdefault(os.path.realpath(path), threading.Lock())


def fingerprint(path: str) -> str:
    """Tell a file from its copies."""
    return str(Path(path).stat().st_ino)
