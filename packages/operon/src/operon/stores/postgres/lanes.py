"""Group commit: what arrives while a commit is under way rides in the next one, over two connections.

Whoever finds a lane free works it himself, for all who wait, so that a caller alone pays for no thread; it must not
know what the commands do, beyond whose workflow they change.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Condition, Lock, Thread
from typing import TYPE_CHECKING, Any, Protocol

from operon.core.commands import LaneCommand, Start
from operon.promises import Promise
from operon.stores.postgres import faults
from operon.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST = 256
"""Commands a commit: more would keep the others waiting."""
INBOX = 4096
"""Commands waiting; whoever brings more is kept waiting himself."""
PATIENTS = 8
"""Commands that wait for locked rows at the same time, each on a connection of its own."""


class Ticket:
    """A command that waits for its answer, and whoever waits with it."""

    __slots__ = ("again", "answer", "command", "error", "future", "key", "leading", "mail", "settled")

    def __init__(self, command: LaneCommand, future: Future[Any] | None = None) -> None:
        self.command = command
        self.key = command.row.id if isinstance(command, Start) else command.workflow_id
        self.future = future
        self.again = False
        """It may have been committed by a connection that was lost."""
        self.leading = False
        """Its thread works a lane or has been handed one, or is gone; it is to be handed no other."""
        self.settled = False
        self.answer: Any = None
        self.error: BaseException | None = None
        self.mail: SimpleQueue[Lane | None] = SimpleQueue()
        """For a thread that waits: a lane to work, or None once there is an answer."""

    def settle(self, answer: Any = None, error: BaseException | None = None) -> None:
        """Give the answer to whoever waits for it."""
        self.answer, self.error, self.settled = answer, error, True
        if self.future is None:
            self.mail.put(None)
        elif error is None:
            self.future.set_result(answer)
        else:
            self.future.set_exception(error)


def apart(tickets: Sequence[Ticket]) -> bool:
    """Whether these commands of one workflow may go together: all of them only write, each elsewhere."""
    written: list[str] = []
    for command in (ticket.command for ticket in tickets):
        if isinstance(command, Start) or command.end or not command.entries:
            return False
        written += [entry.position for entry in command.entries]
    return len(written) == len(set(written))


class Lane(Protocol):
    """One connection, and how to carry out commands on it."""

    def carry(self, tickets: Sequence[Ticket]) -> Sequence[Ticket]:
        """Settle tickets; give back those that meet a lock, to be carried by `Lanes` where they hold up nobody."""
        ...

    def carry_patiently(self, ticket: Ticket) -> None:
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
        self._busy: set[str] = set()
        self._mutex = Lock()
        self._changed = Condition(self._mutex)
        self._work: SimpleQueue[Lane | None] = SimpleQueue()
        self._workers: list[Thread] = []
        self._patients = Threads(PATIENTS, "operon-patient")
        self._closed = False

    def ask(self, command: LaneCommand) -> Any:
        """Answer a command, working a lane while one is free or handed to this thread."""
        ticket = Ticket(command)
        lane = self._enter(ticket)
        while not ticket.settled:
            if lane := lane or ticket.mail.get():
                self._lead(lane, ticket)
                lane = None
        if ticket.error is not None:
            raise ticket.error
        return ticket.answer

    def submit(self, command: LaneCommand) -> Future[Any]:
        """Answer a command on a thread of ours."""
        future: Promise[Any] = Promise()
        if lane := self._enter(Ticket(command, future)):
            self._put_to_work(lane)
        return future

    def close(self) -> None:
        """Settle what has entered, and disconnect."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            self._changed.wait_for(lambda: not (self._waiting or self._busy) and len(self._free) == len(self._lanes))
        for _ in self._workers:
            self._work.put(None)
        for worker in self._workers:
            worker.join()
        self._patients.finish()
        for lane in self._lanes:
            lane.close()

    def _enter(self, ticket: Ticket) -> Lane | None:
        with self._mutex:
            while len(self._waiting) >= INBOX and not self._closed:
                self._changed.wait()
            if self._closed:
                raise faults.closed()
            self._waiting.append(ticket)
            ticket.leading = bool(self._free)
            return self._free.pop() if self._free else None

    def _lead(self, lane: Lane, own: Ticket | None) -> None:
        """Work a lane until my own ticket is settled, or nothing is left."""
        while batch := self._take(lane, own):
            locked: Sequence[Ticket] = ()
            try:
                locked = lane.carry(batch)
            except BaseException:
                # An interrupt in the thread that works for others: whatever it may have committed is asked for again.
                self._return([ticket for ticket in batch if not ticket.settled])
                self._give(lane)
                raise
            for ticket in locked:
                self._patients.call(self._carry_patiently, lane, ticket)
            self._clear(batch, locked)

    def _take(self, lane: Lane, own: Ticket | None) -> list[Ticket]:
        """Take the next batch; none when the lane has gone to another, or there is nothing to do."""
        with self._mutex:
            batch = self._fill() if own is None or not own.settled else []
            if batch:
                self._changed.notify_all()
            else:
                if own is not None:
                    own.leading = False
                self._pass_on(lane)
            return batch

    def _fill(self) -> list[Ticket]:
        """Take from the inbox who may go together: one command of a workflow, or several that only write, elsewhere."""
        batch: list[Ticket] = []
        skipped: list[Ticket] = []
        together: dict[str, list[Ticket]] = {}
        while self._waiting and len(batch) < LARGEST:
            ticket = self._waiting.popleft()
            key = ticket.key
            if key not in self._busy:
                self._busy.add(key)
                together[key] = [ticket]
                batch.append(ticket)
            elif key in together and apart([*together[key], ticket]):
                together[key].append(ticket)
                batch.append(ticket)
            else:
                # Whatever comes behind it has to wait for it.
                together.pop(key, None)
                skipped.append(ticket)
        self._waiting.extendleft(reversed(skipped))
        return batch

    def _pass_on(self, lane: Lane) -> None:
        """Give a lane to the first who waits, if he is a thread, or to a worker; the mutex is held."""
        ready = next((ticket for ticket in self._waiting if ticket.key not in self._busy), None)
        if ready is None:
            self._free.append(lane)
            self._changed.notify_all()
        elif ready.future is None and not ready.leading:
            ready.leading = True
            ready.mail.put(lane)
        else:
            self._put_to_work(lane)

    def _give(self, lane: Lane) -> None:
        with self._mutex:
            self._pass_on(lane)

    def _return(self, tickets: Sequence[Ticket]) -> None:
        """Put tickets back, first in the line."""
        with self._mutex:
            for ticket in reversed(tickets):
                ticket.again, ticket.leading = True, True
                self._waiting.appendleft(ticket)
                self._busy.discard(ticket.key)

    def _clear(self, done: Sequence[Ticket], locked: Sequence[Ticket] = ()) -> None:
        """Let the next command of these workflows go ahead, except where one still waits for a lock."""
        with self._mutex:
            self._busy.difference_update(ticket.key for ticket in done)
            self._busy.update(ticket.key for ticket in locked)
            self._changed.notify_all()
            if self._waiting and self._free:
                self._pass_on(self._free.pop())

    def _carry_patiently(self, lane: Lane, ticket: Ticket) -> None:
        try:
            lane.carry_patiently(ticket)
        finally:
            self._clear([ticket])

    def _put_to_work(self, lane: Lane) -> None:
        if len(self._workers) < len(self._lanes):
            worker = Thread(target=self._run, name="operon-lane", daemon=True)
            self._workers.append(worker)
            worker.start()
        self._work.put(lane)

    def _run(self) -> None:
        while lane := self._work.get():
            self._lead(lane, None)
