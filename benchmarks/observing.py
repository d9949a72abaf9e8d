"""What a process costs that does nothing: seen from outside, through Linux's /proc; standard library only."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from benchmarks.children import Child
from benchmarks.figures import FLOOR, OURS, Figure
from benchmarks.program import Task

PAGE = os.sysconf("SC_PAGE_SIZE")
IMPORTS = 5
SETTLE = 2.0
"""Seconds after which a process has done what it does once."""


def imports(task: Task, statement: str, subject: str = OURS) -> Iterator[Figure]:
    """Import in new interpreters, what is imported being compiled: CPU of the import alone, memory of the process."""
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(Path(task.directory) / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    program = (
        "import os, time; begun = time.process_time()\n"
        f"{statement}\n"
        "print(time.process_time() - begun, open('/proc/self/statm').read().split()[1])"
    )
    took = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, env=environment
        )
        .stdout.splitlines()[-1]
        .split()
        for _ in range(IMPORTS + 1)
    ][1:]  # the first one compiles
    if subject != FLOOR:
        yield Figure("import, CPU", "s", median(float(cpu) for cpu, _ in took), subject)
    yield Figure("import, memory", "MB", median(int(pages) * PAGE / 1e6 for _, pages in took), subject)


def idle(task: Task, command: Sequence[str], case: str, subject: str = OURS) -> Iterator[Figure]:
    """Start a program, and watch it once it has said that it is up: statements, CPU, memory."""
    child = Child([sys.executable, "-m", *command])
    try:
        while child.line() not in {"up", None}:
            pass  # what a library prints
        yield from watched(task, child.process.pid, case, subject)
    finally:
        child.close()


def watched(task: Task, pid: int, case: str, subject: str = OURS) -> Iterator[Figure]:
    """Watch a process for some seconds."""
    time.sleep(SETTLE)
    statements, cpu, begun = logged(task.log), spent(pid), time.perf_counter()
    time.sleep(task.size.seconds)
    took = time.perf_counter() - begun
    if task.database == "postgres":
        yield Figure(f"{case}, statements", "a second", (logged(task.log) - statements) / took, subject)
    yield Figure(f"{case}, CPU", "%", (spent(pid) - cpu) / took * 100, subject)
    yield Figure(f"{case}, memory", "MB", resident(pid), subject)


def logged(log: str) -> int:
    """Count the statements in a server's log."""
    text = Path(log).read_text("utf-8", errors="replace")
    return text.count("LOG:  execute") + text.count("LOG:  statement")


def family(pid: int) -> list[int]:
    """Give a process and those that it has started."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, children.read_text("ascii").split())
    return found


def spent(pid: int) -> float:
    """Give the seconds of CPU of all threads of a process and its children."""
    threads = (path for each in family(pid) for path in Path(f"/proc/{each}/task").glob("*/schedstat"))
    return sum(int(path.read_text("ascii").split()[0]) for path in threads) / 1e9


def resident(pid: int) -> float:
    """Give the memory of a process and its children, in MB."""
    return sum(int(Path(f"/proc/{each}/statm").read_text("ascii").split()[1]) for each in family(pid)) * PAGE / 1e6
