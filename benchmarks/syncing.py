"""A disk whose every sync takes the same time, so that runs can be repeated; the real one is the default.

A library is compiled where there is a C compiler, and preloaded into the database and all that is measured; the files
are in memory. What is linked statically, or makes its system calls itself as Go's programs do, is not reached by it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
MEMORY = Path("/dev/shm")  # noqa: S108 - a file system in memory is what is wanted


@contextmanager
def simulated(microseconds: int | None) -> Generator[None]:
    """Let each sync of the programs that are started meanwhile take so long; None leaves the disk as it is."""
    if microseconds is None:
        yield
        return
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        sys.exit("A simulated disk needs Linux and a C compiler (cc): leave FSYNC_US out, or install one.")
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)  # the server may run as another user
        library = str(Path(directory) / "syncing.so")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, str(SOURCE)], check=True, timeout=60)
        before = os.environ.copy()
        os.environ |= {"LD_PRELOAD": library, "FSYNC_US": str(microseconds)}
        try:
            yield
        finally:
            os.environ.clear()
            os.environ |= before


def reaches(pid: int) -> bool:
    """Tell whether the library is in a process; a server under another account may not have been able to load it."""
    return SOURCE.stem in Path(f"/proc/{pid}/maps").read_text("utf-8")
