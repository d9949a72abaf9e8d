"""A program that measures: it is given a task as JSON, and prints findings as lines of JSON; standard library only."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.figures import Finding
from benchmarks.sizes import Size, size_of


@dataclass(frozen=True, slots=True)
class Task:
    """One workload on one database."""

    workload: str
    database: str
    """`postgres`, `sqlite`, or `none`."""
    url: str
    size: Size
    directory: str
    """A place for files, on the disk that is measured."""
    log: str = ""
    """What the Postgres server writes; of some workloads, each statement."""

    def written(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self))


Measure = Callable[[Task], Iterable[Finding]]


def read(text: str) -> Task:
    """Read a task."""
    fields: dict[str, Any] = json.loads(text)
    fields["size"] = size_of(fields["size"])
    return Task(**fields)


def main(measures: Mapping[str, Measure], **roles: Callable[..., None]) -> None:
    """Measure what the first argument asks for; or play a role beside a program that measures."""
    name, *arguments = sys.argv[1:]
    if name in roles:
        roles[name](*arguments)
        return
    task = read(name)
    for finding in measures[task.workload](task):
        print(finding.line(), flush=True)


def until_told(ready: str = "up") -> None:
    """Say that a role is under way, and go on until the input ends."""
    print(ready, flush=True)
    sys.stdin.read()
