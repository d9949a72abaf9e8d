"""What is told of the machine: what figures depend on, and nothing that says whose it is."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import psycopg

from operon import embedded

SYNCS = 200


def facts(server: embedded.Postgres, directory: Path) -> dict[str, str | int | float]:
    """Measure and ask."""
    with psycopg.connect(server.url) as connection:
        version = connection.info.server_version // 10_000
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "postgres": version,
        "sqlite": sqlite3.sqlite_version,
        "psycopg": psycopg.__version__,
        "libpq": psycopg.pq.__impl__,
        "fsync_us": round(fsync(directory), 1),
        "load": round(os.getloadavg()[0], 2),
    }


def fsync(directory: Path) -> float:
    """Give the median microseconds of writing 8 kB and having the disk keep them."""
    took: list[float] = []
    sync = getattr(os, "fdatasync", os.fsync)
    path = directory / "fsync"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for _ in range(SYNCS):
            begun = time.perf_counter()
            os.pwrite(descriptor, b"x" * 8192, 0)
            sync(descriptor)
            took.append((time.perf_counter() - begun) * 1e6)
    finally:
        os.close(descriptor)
        path.unlink()
    return median(took)
