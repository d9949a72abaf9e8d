"""Group commit: what arrives while a commit is under way rides in the next one, over two connections.

Whoever finds a lane free works it himself, for all who wait, so that a caller alone pays for no thread; it must not
know what the commands do, beyond whose workflow they change.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Condition, Lock, Thread
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from operon.core.commands import LaneCommand, Start
from operon.errors import StoreError
from operon.promises import Promise
from operon.stores.postgres import faults
from operon.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from operon.stores.postgres.writes import Answer

Settle: TypeAlias = "Callable[[Sequence[Ticket], Sequence[Answer | StoreError]], object]"
"""How a lane says what came of tickets; each part of a batch once, as soon as it is committed."""
LARGEST = 256
"""Commands a commit: more would keep the others waiting."""
INBOX = 4096
"""Commands waiting; whoever brings more is kept waiting himself."""
PATIENTS = 8
"""Commands that wait for locked rows at the same time, each on a connection of its own."""


class Ticket(Promise[Any]):
    """A command that waits for its answer, and the future of that."""

    again = False
    """It may have been committed by a connection that was lost."""
    leading = False
    """Its thread works a lane or has been handed one, or is gone; it is to be handed no other."""
    under_way = False

    def __init__(
        self,
        command: LaneCommand,
        mail: SimpleQueue[Lane | None] | None = None,
        then: Callable[[Future[Any]], object] | None = None,
    ) -> None:
        super().__init__(then)
        self.command = command
        self.key = command.row.id if isinstance(command, Start) else command.workflow_id
        self.mail = mail
        """For a thread that waits: a lane to work, or None once there is an answer."""

    def settle(self, answer: Answer | StoreError) -> None:
        """Give the answer to whoever waits for it."""
        if isinstance(answer, StoreError):
            self.set_exception(answer)
        else:
            self.set_result(answer)
        if self.mail is not None:
            self.mail.put(None)


def written(command: LaneCommand) -> set[str] | None:
    """The positions that a command writes; None unless it does nothing else."""
    if isinstance(command, Start) or command.end or not command.entries:
        return None
    positions = {entry.position for entry in command.entries}
    return positions if len(positions) == len(command.entries) else None


class Lane(Protocol):
    """One connection, and how to carry out commands on it."""

    def carry(self, tickets: Sequence[Ticket], settle: Settle) -> Sequence[Ticket]:
        """Settle tickets; give back those that meet a lock, to be carried by `Lanes` where they hold up nobody."""
        ...

    def carry_patiently(self, ticket: Ticket, settle: Settle) -> None:
        """Settle a ticket on a connection of its own, however long a lock is held."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


class Lanes:
    """The inbox before the lanes; never two commands of one workflow at once, and each workflow's in their order."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes
        self._free = list(lanes)
        self._waiting: deque[Ticket] = deque()
        self._busy: dict[str, int] = {}
        """How many commands of a workflow are under way."""
        self._mutex = Lock()
        self._changed = Condition(self._mutex)
        self._watchers = 0
        """How many threads wait for a change: for most there are none, and a notification costs ten calls."""
        self._work: SimpleQueue[Lane | None] = SimpleQueue()
        self._workers: list[Thread] = []
        self._patients = Threads(PATIENTS, "operon-patient")
        self._closed = False

    def ask(self, command: LaneCommand) -> Any:
        """Answer a command, working a lane while one is free or handed to this thread."""
        mail: SimpleQueue[Lane | None] = SimpleQueue()
        ticket = Ticket(command, mail)
        lane = self._enter((ticket,))
        while not ticket.done():
            if lane := lane or mail.get():
                self._lead(lane, ticket)
                lane = None
        return ticket.result()

    def submit(self, command: LaneCommand, then: Callable[[Future[Any]], object] | None = None) -> Future[Any]:
        """Answer a command on a thread of ours, and call this first."""
        ticket = Ticket(command, then=then)
        if lane := self._enter((ticket,)):
            self._put_to_work(lane)
        return ticket

    def submit_many(self, commands: Iterable[LaneCommand]) -> Sequence[Future[Any]]:
        """Answer commands on a thread of ours, in one commit where they may go together."""
        tickets = [Ticket(command) for command in commands]
        if lane := self._enter(tickets):
            self._put_to_work(lane)
        return tickets

    @property
    def waiting(self) -> int:
        """How many commands wait for a lane."""
        return len(self._waiting)

    def close(self) -> None:
        """Settle what has entered, and disconnect."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            while self._waiting or self._busy or len(self._free) < len(self._lanes):
                self._watch()
        for _ in self._workers:
            self._work.put(None)
        for worker in self._workers:
            worker.join()
        self._patients.finish()
        for lane in self._lanes:
            lane.close()

    def _enter(self, tickets: Sequence[Ticket]) -> Lane | None:
        """Get in line; give a free lane to be worked, unless who is under way keeps these waiting."""
        with self._mutex:
            while len(self._waiting) >= INBOX and not self._closed:
                self._watch()
            if self._closed:
                raise faults.closed()
            self._waiting.extend(tickets)
            if not self._free or not [ticket for ticket in tickets if ticket.key not in self._busy]:
                return None
            tickets[0].leading = True
            return self._free.pop()

    def _watch(self) -> None:
        """Wait for a change; the mutex is held."""
        self._watchers += 1
        self._changed.wait()
        self._watchers -= 1

    def _tell(self) -> None:
        """Have those look again who wait for a change; the mutex is held."""
        if self._watchers:
            self._changed.notify_all()

    def _lead(self, lane: Lane, own: Ticket | None) -> None:
        """Work a lane until my own ticket is settled, or nothing is left."""
        while batch := self._take(lane, own):
            locked: Sequence[Ticket] = ()
            try:
                locked = lane.carry(batch, self._settle)
            except BaseException:
                # An interrupt in the thread that works for others: whatever it may have committed is asked for again.
                self._return(batch)
                self._give(lane)
                raise
            for ticket in locked:
                self._patients.call(lane.carry_patiently, ticket, self._settle)

    def _take(self, lane: Lane, own: Ticket | None) -> list[Ticket]:
        """Take the next batch; none when the lane has gone to another, or there is nothing to do."""
        with self._mutex:
            batch = self._fill() if self._waiting and (own is None or not own.done()) else []
            if batch:
                self._tell()
            else:
                if own is not None:
                    own.leading = False
                self._pass_on(lane)
            return batch

    def _fill(self) -> list[Ticket]:
        """Take from the inbox who may go together: one command of a workflow, or several that only write, elsewhere."""
        waiting, busy = self._waiting, self._busy
        batch = [waiting.popleft() for _ in range(min(len(waiting), LARGEST))]
        keys = {ticket.key for ticket in batch}
        if len(keys) == len(batch) and busy.keys().isdisjoint(keys):
            busy.update(dict.fromkeys(keys, 1))
        else:
            waiting.extendleft(reversed(batch))
            batch = self._choose()
        for ticket in batch:
            ticket.under_way = True
        return batch

    def _choose(self) -> list[Ticket]:
        """Fill a batch where some have to wait for others."""
        batch: list[Ticket] = []
        skipped: list[Ticket] = []
        together: dict[str, set[str] | None] = {}
        """What the batch writes of each workflow; None: nothing more of it may go along."""
        while self._waiting and len(batch) < LARGEST:
            ticket = self._waiting.popleft()
            key, mine = ticket.key, written(ticket.command)
            if key not in self._busy:
                together[key] = mine
            elif mine and (theirs := together.get(key)) and theirs.isdisjoint(mine):
                theirs |= mine
            else:
                # Whatever comes behind it has to wait for it.
                together[key] = None
                skipped.append(ticket)
                continue
            self._busy[key] = self._busy.get(key, 0) + 1
            batch.append(ticket)
        self._waiting.extendleft(reversed(skipped))
        return batch

    def _settle(self, tickets: Sequence[Ticket], answers: Sequence[Answer | StoreError]) -> None:
        """Let the next commands of these workflows go ahead, and then tell who waits, which may have one."""
        pairs = zip(tickets, answers, strict=True)
        try:
            with self._mutex:
                self._clear(tickets)
                if self._waiting and self._free:
                    self._pass_on(self._free.pop())
            for ticket, answer in pairs:
                ticket.settle(answer)
        finally:
            # After an interrupt, the others.
            for ticket, answer in pairs:
                ticket.settle(answer)

    def _clear(self, tickets: Iterable[Ticket]) -> None:
        """Note that commands are no longer under way; the mutex is held."""
        busy = self._busy
        for ticket in tickets:
            if ticket.under_way:
                ticket.under_way = False
                left = busy.pop(ticket.key) - 1
                if left:
                    busy[ticket.key] = left
        self._tell()

    def _pass_on(self, lane: Lane) -> None:
        """Give a lane to the first that waits, if that is a thread, or to a worker; the mutex is held."""
        ready = next((ticket for ticket in self._waiting if ticket.key not in self._busy), None)
        if ready is None:
            self._free.append(lane)
            self._tell()
        elif ready.mail is not None and not ready.leading:
            ready.leading = True
            ready.mail.put(lane)
        else:
            self._put_to_work(lane)

    def _give(self, lane: Lane) -> None:
        with self._mutex:
            self._pass_on(lane)

    def _return(self, tickets: Sequence[Ticket]) -> None:
        """Put back, first in the line, what is not settled."""
        with self._mutex:
            self._clear(tickets)
            for ticket in reversed(tickets):
                if not ticket.done():
                    ticket.again, ticket.leading = True, True
                    self._waiting.appendleft(ticket)

    def _put_to_work(self, lane: Lane) -> None:
        if len(self._workers) < len(self._lanes):
            worker = Thread(target=self._run, name="operon-lane", daemon=True)
            self._workers.append(worker)
            worker.start()
        self._work.put(lane)

    def _run(self) -> None:
        while lane := self._work.get():
            self._lead(lane, None)
