"""The ledger outside the engine: a file to which every effect appends a line, whatever the engine makes of it.

Only processes are killed here, never the machine, so what one `write` has given to the kernel is as good as on disk.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec


@dataclass(frozen=True, slots=True)
class Effect:
    """One line: something was done outside, by one process, under one claim."""

    kind: str
    """`step`, `move`: the body of a step or transaction ended; `seen`: later code was given these tokens; `claim`: a
    workflow was taken."""
    workflow: str
    claim: int
    position: str = ""
    attempt: int = 1
    token: str = ""
    """What this execution made, unlike any other execution."""
    key: str = ""
    """The idempotency key that the step was given."""
    seen: tuple[str, ...] = ()
    executor: int = 0
    pid: int = 0
    at: float = 0.0
    """By the machine's monotonic clock, which all its processes share."""


class Effects:
    """The file, for those who write and for the one who checks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, effect: Effect) -> None:
        """Write one line, at once and whole."""
        line = replace(effect, pid=os.getpid(), at=time.monotonic())
        os.write(self._file, msgspec.json.encode(line) + b"\n")

    def read(self) -> list[Effect]:
        """Read all that was written so far, in the order in which it was."""
        return [msgspec.json.decode(line, type=Effect) for line in self.path.read_bytes().splitlines()]

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)
