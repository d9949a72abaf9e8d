"""The runs of this process: what is about to begin, what goes on, and which claims were revoked; not how they run."""

from __future__ import annotations

import threading

from operon.core.journal import Run
from operon.core.rows import Guard, WorkflowRow
from operon.engine.places import Places

REMEMBERED = 100_000
"""Claims that were revoked, and may belong to what is about to begin here."""


class Runs:
    """Which workflows run here, and by which claim.

    Args:
        places: the places that they were given; what is counted there and here changes together.
        lock: keeps it together.
    """

    def __init__(self, places: Places, lock: threading.RLock) -> None:
        self._places = places
        self._lock = lock
        self._runs: dict[str, Run] = {}
        self._claims: dict[str, int] = {}
        """The claims that are run here, or will be as soon as a thread or the loop is free."""
        self._revoked: dict[str, int] = {}
        """The claims that were cancelled last, by id: neither they nor those before them begin any more."""
        self.changed = threading.Condition(lock)
        """Notified whenever one has left."""

    def __bool__(self) -> bool:
        """Whether anything runs here, or will."""
        return bool(self._claims)

    def __contains__(self, workflow_id: str) -> bool:
        """Whether it has begun here, and not left."""
        return workflow_id in self._runs

    def __getitem__(self, workflow_id: str) -> Run:
        """Give the run of a workflow that has begun here."""
        return self._runs[workflow_id]

    def get(self, workflow_id: str) -> Run | None:
        """Give the run of a workflow, if it has begun here."""
        return self._runs.get(workflow_id)

    def all(self) -> tuple[Run, ...]:
        """Give all that have begun."""
        return tuple(self._runs.values())

    def claims(self) -> frozenset[tuple[str, int]]:
        """Give the ids and claims of what runs here, or will."""
        with self._lock:
            return frozenset(self._claims.items())

    def executes(self, workflow_id: str) -> bool:
        """Whether it runs here, and has not ended otherwise meanwhile: then whoever waits for it is told of its end."""
        run = self._runs.get(workflow_id)
        return workflow_id in self._claims and (run is None or (run.dead is None and run.beyond is None))

    def expect(self, row: WorkflowRow) -> None:
        """Note that a claim will be run here."""
        with self._lock:
            self._claims[row.id] = row.claim
            self._places.starting.discard(row.nonce)

    def enter(self, run: Run) -> tuple[Run, ...] | None:
        """Let a run begin, and give those of the same workflow that it comes after; None if its claim was revoked."""
        with self._lock:
            if run.guard.fenced_by(self._revoked.get(run.id)):
                return None
            before = self._runs.get(run.id)
            self._runs[run.id] = run
        return () if before is None else (before,)

    def leave(self, row: WorkflowRow, run: Run | None) -> None:
        """Note that a claim is run here no more; it may never have begun."""
        with self.changed:
            if run is not None and self._runs.get(row.id) is run:
                del self._runs[row.id]
            if self._claims.get(row.id) == row.claim:
                del self._claims[row.id]
            self.changed.notify_all()

    def revoke(self, guard: Guard) -> Run | None:
        """Let a claim begin no more, nor any before it; gives the run by one of them, if there is one."""
        with self._lock:
            self._revoked[guard.workflow_id] = guard.claim
            while len(self._revoked) > REMEMBERED:
                del self._revoked[next(iter(self._revoked))]
            run = self._runs.get(guard.workflow_id)
        return run if run is not None and run.guard.fenced_by(guard.claim) else None
