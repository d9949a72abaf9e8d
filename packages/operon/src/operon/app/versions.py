"""The version of an app's code: what the user says it is, or a digest of the declared functions' sources."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from typing import Any

from operon.core.function import Function

PYTHON = f"+py{sys.version_info.major}.{sys.version_info.minor}"


def spelled(version: str) -> str:
    """Give a version as rows have it: with a Python version, this one's if it says none."""
    return version if "+py" in version else version + PYTHON


def digest(functions: Iterable[Function]) -> str:
    """Digest the sources of functions: another text, another version."""
    import hashlib

    whole = hashlib.blake2b(digest_size=8)
    for name, function in sorted((it.name, it) for it in functions):
        whole.update(f"{name}\0{_source(function.fn)}\0".encode(errors="replace"))
    return whole.hexdigest()


def _source(fn: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(fn)
    except (OSError, TypeError):
        code = getattr(fn, "__code__", None)
        return type(fn).__qualname__ if code is None else f"{code.co_code!r}{code.co_consts!r}"
