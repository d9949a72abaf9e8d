"""Which process this is, and whether another one of this machine is provably gone."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

from operon.core.rows import Peer


@cache
def host() -> str:
    """Name this machine, until it boots again, and what of its processes can be seen from here."""
    return f"{socket.gethostname()}:{_read('/proc/sys/kernel/random/boot_id')}:{_link('/proc/self/ns/pid')}"


def identity() -> tuple[str, int, str]:
    """Name this process: host, pid, and when it was born."""
    pid = os.getpid()
    return host(), pid, born(pid)


def born(pid: int) -> str:
    """When a process began, in the kernel's ticks: tells it from a later one of the same pid; empty if unknown."""
    stat = _read(f"/proc/{pid}/stat")
    state, _, rest = stat.rpartition(")")[2].strip().partition(" ")
    return "" if not stat or state in "ZX" else rest.split()[18]


def gone(peer: Peer) -> bool:
    """Whether a peer's process is provably no more; of other machines, nothing can be proved from here."""
    if peer.host != host() or not peer.born or not born(os.getpid()):
        return False
    return born(peer.pid) != peer.born


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", errors="replace").strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""
