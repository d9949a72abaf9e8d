"""Whose rights the server has: ours, or an unprivileged account's where we are root; it must not know what is run.

Postgres refuses to run as root, so there its files must belong to, and its programs be within reach of, an account
that may do little.  We never open other people's directories to it: what is out of its reach is put elsewhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from operon.embedded.binaries import Binaries

NOBODY = 65534
SHARED = Path("/var/lib/operon")
"""Root's place for what must be within an unprivileged account's reach."""


@dataclass(frozen=True, slots=True)
class Account:
    """The account the server runs under; `None` is our own."""

    uid: int | None = None
    gid: int | None = None

    def own(self, path: Path) -> Path:
        """Give a path to the account."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)
        return path

    def reaches(self, path: Path) -> bool:
        """Tell whether the account may pass through every directory above the path, by their modes."""
        if self.uid is None:
            return True
        return all(self._may_pass(parent) for parent in path.resolve().parents)

    def may_run(self, program: Path) -> bool:
        """Tell whether the account may run a program where it stands."""
        return self.uid is None or (self.reaches(program) and self._may_pass(program))

    def _may_pass(self, path: Path) -> bool:
        found = path.stat()
        if found.st_uid == self.uid:
            return bool(found.st_mode & stat.S_IXUSR)
        if found.st_gid == self.gid:
            return bool(found.st_mode & stat.S_IXGRP)
        return bool(found.st_mode & stat.S_IXOTH)


def server_account() -> Account:
    """Return our own account, or for root that of `postgres`, or else `nobody`'s."""
    if os.geteuid() != 0:
        return Account()
    try:
        entry = pwd.getpwnam("postgres")
    except KeyError:
        return Account(NOBODY, NOBODY)
    return Account(entry.pw_uid, entry.pw_gid)


def home(directory: Path, account: Account) -> Path:
    """Return a directory for the server's files, private to the account and within its reach.

    It is the given one, except for root where that is out of the account's reach (below a home of mode 0700, say):
    then it is a fresh one below `/var/lib/operon`, to which `elsewhere` in the given one points from then on.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if account.reaches(directory):
        place = directory
    else:
        link = directory / "elsewhere"
        if not link.is_dir():
            link.unlink(missing_ok=True)
            link.symlink_to(tempfile.mkdtemp(prefix="postgres-", dir=_shared()))
        place = link.resolve()
    account.own(place).chmod(0o700)
    return place


def within_reach(binaries: Binaries, account: Account) -> Binaries:
    """Return the binaries, or for root a copy of them where the account cannot reach them.

    The copy is named by its contents, so there is one a version, and belongs to root.
    """
    if account.may_run(binaries.directory / "postgres"):
        return binaries
    digest = hashlib.sha256(Path(binaries.program("postgres")).read_bytes()).hexdigest()[:16]
    copy = _shared() / f"binaries-{binaries.version}-{digest}"
    if not copy.is_dir():
        _copy_whole(binaries, copy)
    return replace(binaries, directory=copy / binaries.directory.relative_to(binaries.base))


def _copy_whole(binaries: Binaries, target: Path) -> None:
    """Copy an installation so that the target is there whole or not at all, however many do it at once."""
    building = Path(tempfile.mkdtemp(prefix="copying-", dir=target.parent))
    try:
        for part in binaries.parts:
            copy = building / part.relative_to(binaries.base)
            shutil.copytree(part, copy, ignore=shutil.ignore_patterns("include"))
        for path in [building, *building.rglob("*")]:
            path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        with contextlib.suppress(OSError):  # somebody else was first
            building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _shared() -> Path:
    SHARED.mkdir(parents=True, exist_ok=True, mode=0o755)
    SHARED.chmod(0o755)
    return SHARED
