"""One connection of the group commit: tries, tries again, and keeps a bad command from failing its neighbours."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from operon.stores.postgres import faults, writes
from operon.stores.postgres.faults import Fault
from operon.stores.postgres.session import INDEXED, Address, Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operon.stores.postgres.lanes import Settle, Ticket
    from operon.stores.postgres.patience import Patience

LOCK_TIMEOUT, LOCK_TIMEOUT_APART = "100ms", "3ms"
"""How long a batch waits for a row that is locked elsewhere; and its parts, when one has been met."""
PARTS = 16
"""A batch that fails is split into so many, and so on: a bad command among 256 costs some 30 more statements."""
SETTINGS = {
    **INDEXED,
    "lock_timeout": LOCK_TIMEOUT,
    "plan_cache_mode": "force_generic_plan",
}
"""A batch of a few commands looks cheaper than what a plan for all batches takes into account, so the server would plan
each anew, which takes longer than to carry it out; and every plan is the same, by the index."""


class PostgresLane:
    """A connection, and how tickets are carried on it."""

    def __init__(self, conninfo: str, where: str, patience: Patience) -> None:
        self.where = where
        self.patience = patience
        self.session = Session(Address(conninfo, "lane", SETTINGS))

    def carry(self, tickets: Sequence[Ticket], settle: Settle) -> Sequence[Ticket]:
        """Settle tickets, all in one commit if possible; give back those that met a lock and were alone with it."""
        error = self._try(self.session, tickets, settle)
        if error is None:
            return ()
        fault = faults.fault(error)
        if fault in (Fault.LOST, Fault.AGAIN) or len(tickets) == 1:
            return self._refuse(tickets, error, settle)
        self.session.configure("lock_timeout", LOCK_TIMEOUT_APART)
        locked = self._carry_apart(tickets, settle)
        self.session.configure("lock_timeout", LOCK_TIMEOUT)
        return locked

    def carry_patiently(self, ticket: Ticket, settle: Settle) -> None:
        """Settle a ticket on a connection of its own, however long a lock is held."""
        settings = {**SETTINGS, "lock_timeout": f"{self.patience.seconds}s"}
        address = replace(self.session.address, purpose="patient", settings=settings)
        with closing(Session(address)) as session:
            if error := self._try(session, [ticket], settle):
                settle([ticket], [faults.explain(error, self.where)])

    def close(self) -> None:
        """Disconnect."""
        self.session.close()

    def _carry_apart(self, tickets: Sequence[Ticket], settle: Settle) -> Sequence[Ticket]:
        """Carry parts of a batch, and parts of those that fail."""
        size = -(-len(tickets) // PARTS)
        locked: list[Ticket] = []
        for start in range(0, len(tickets), size):
            part = tickets[start : start + size]
            if error := self._try(self.session, part, settle):
                alone = len(part) == 1
                locked += self._refuse(part, error, settle) if alone else self._carry_apart(part, settle)
        return locked

    def _refuse(self, tickets: Sequence[Ticket], error: Exception, settle: Settle) -> Sequence[Ticket]:
        """Settle with an error; but what met a lock is given back."""
        if faults.fault(error) is Fault.LOCKED:
            return tickets
        settle(tickets, [faults.explain(error, self.where) for _ in tickets])
        return ()

    def _try(self, session: Session, tickets: Sequence[Ticket], settle: Settle) -> Exception | None:
        """Carry out tickets in one commit and settle them; give the error that no trying again has helped."""
        failure: Exception | None = None
        commands = [ticket.command for ticket in tickets]
        for _ in self.patience.tries():
            try:
                again = [ticket for ticket in tickets if ticket.again]
                answers = writes.perform(session, commands, again=bool(again))
            except Exception as error:
                failure = error
                fault = faults.fault(error)
                if fault is Fault.LOST:
                    session.close()
                    for ticket in tickets:
                        ticket.again = True
                elif fault is not Fault.AGAIN:
                    return failure
            else:
                settle(tickets, answers)
                return None
        return failure
