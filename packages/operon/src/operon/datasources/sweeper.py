"""Deletes, from other databases than the journal's, the records of transactions whose workflow has none any more.

A database that is away is looked at again later, and nothing is noted meanwhile: what is to go is what the journal does
not have, so nothing gets lost, whoever deleted it and whenever. Records of other journals in the same database are left
alone. Must not know why a workflow's record went.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from operon.core.commands import Op, Standing
from operon.core.ledger import Work
from operon.core.rows import before_claims
from operon.datasources.call import block
from operon.datasources.foreign import SWEEPING, absent

if TYPE_CHECKING:
    from operon.core.store import Store
    from operon.datasources.datasource import Datasource

log = logging.getLogger("operon")
PAGE = 500
"""Records that are looked at, and deleted, at a time."""
PAUSE = 10.0
"""Seconds between two rounds."""
SHARE = 20
"""A round is followed by so many times its own length, at least: many records cost a twentieth of a core."""
PATIENCE = 5.0
"""Seconds that closing waits for the page at hand."""
Key = tuple[str, str]


class Sweeper:
    """Goes round the datasources of an app, on a thread of its own."""

    def __init__(self, sources: Mapping[str, Datasource], store: Store, journal: str) -> None:
        self._sources = sources
        self._standing: Callable[[tuple[str, ...]], Mapping[str, int]] = lambda ids: store.ask(Standing(ids))
        self._journal = journal
        self._away: set[str] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="operon-sweeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, after the page at hand."""
        self._closed.set()
        self._thread.join(PATIENCE)

    def round(self) -> int:
        """Look at every record of this journal, in every database that answers; says how many went."""
        return sum(self._sweep(name, source) for name, source in self._sources.items())

    def _run(self) -> None:
        pause = PAUSE
        while not self._closed.wait(pause):
            began = time.monotonic()
            self.round()
            pause = max(PAUSE, SHARE * (time.monotonic() - began))

    def _sweep(self, name: str, source: Datasource) -> int:
        gone = 0
        try:
            after: Key | None = ("", "")
            while after is not None and not self._closed.is_set():
                count, after = block(self._page(source, after))
                gone += count
        except Exception as error:  # whatever its driver says: it is tried again
            if not absent(error) and name not in self._away:
                self._away.add(name)
                log.warning("Old records in the datasource %s cannot be deleted now, but later: %s", name, error)
        else:
            self._away.discard(name)
        return gone

    def _page(self, source: Datasource, after: Key) -> Op[tuple[int, Key | None]]:
        """Look at a page behind a key; answers how many went, and where to go on."""
        adapter, queries = source.own, SWEEPING[source.dialect]
        place = {"journal": self._journal, "workflow_id": after[0], "position": after[1], "limit": PAGE}
        page: list[Key] = [(row[0], row[1]) for row in (yield from adapter.glance(queries["page"], place))]
        standing = self._standing(tuple({key for key, _ in page}))
        dead = [key for key in page if not _stands(key, standing)]
        if dead:
            work = Work("delete old records", lambda _: None, lambda _: ("", None), str, isolation="read committed")
            tx = yield from adapter.begin(work)
            try:
                for workflow_id, position in dead:
                    key = {"journal": self._journal, "workflow_id": workflow_id, "position": position}
                    yield from tx.rows(queries["delete"], key)
                yield from tx.commit()
            except BaseException:
                yield from tx.rollback()
                raise
        return len(dead), page[-1] if len(page) == PAGE else None


def _stands(key: Key, standing: Mapping[str, int]) -> bool:
    """Whether the workflow that a record belongs to has its own: this one, and not another of the same id."""
    workflow_id, position = key
    nonce = standing.get(workflow_id)
    _, marked, generation = position.rpartition("@")
    return nonce is not None and (not marked or generation == str(before_claims(nonce)))
