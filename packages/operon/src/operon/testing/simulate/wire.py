"""A process's connection to the database: late, lost and repeated, as the real stores' connections are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Literal, Protocol, TypeVar

from operon.core.commands import Advance, Command, Enlist
from operon.core.rows import Advanced, Outcome, Park
from operon.core.states import Status
from operon.core.store import Lock
from operon.errors import StoreError, StoreUnavailable
from operon.promises import Promise
from operon.stores.memory import Tables
from operon.testing.simulate.database import Database, DatabaseError
from operon.testing.simulate.process import Process

T = TypeVar("T")
LONG = 4.0
"""Seconds that what is slow takes at most, and what straggles."""


class Trouble(Protocol):
    """What may happen to a process at the worst of moments."""

    def pause(self, process: Process) -> None:
        """Let it stand still for a while."""
        ...

    def kill(self, process: Process) -> None:
        """Let it die."""
        ...

    def strike(self, process: Process) -> None:
        """Do to it what was to be done at a chosen moment."""
        ...


class Wire:
    """One process's store."""

    def __init__(self, database: Database, process: Process, trouble: Trouble) -> None:
        self.url = "memory://"
        self.dialect: Literal["postgres", "sqlite", "memory"] = "memory"
        self.queries: Mapping[str, str] = {name: name for name in database.statements}
        self.writer: Lock | None = None
        self._database = database
        self._process = process
        self._trouble = trouble

    def open(self, *, migrate: bool = True, adopt: bool = False) -> None:
        """Do nothing: it is there."""

    def close(self) -> None:
        """Do nothing: it stays."""

    def ask(self, command: Command[T]) -> T:
        """Answer at once, as nothing but a launch asks."""
        return self._answered(command, again=False)

    def submit(self, command: Command[T], then: Callable[[Future[T]], object] | None = None) -> Future[T]:
        """Answer a command in its time."""
        future: Future[T] = Promise(then)
        self._send(command, future, self._database.faults.tries, again=False)
        return future

    def listen(self, heard: Callable[[str], None]) -> None:
        """Hear what others say."""
        self._database.listeners[self._process] = heard

    def shout(self, word: str) -> None:
        """Tell the others."""
        if self._process.alive:
            self._database.shout(self._process, word)

    # ── The user's connections ───────────────────────────────────────────────────────────────────────────────────────

    async def say(self, work: Callable[[], T]) -> T:
        """Have a database do something over a connection of the user's: what is lost on its way is not said again."""
        answer = self._process.body.create_future()
        faults = self._database.faults
        if faults.unreachable or self._happens(faults.lost_before):
            if self._happens(faults.arrives_late):
                late = self._database.agenda.random.uniform(0.0, LONG)
                self._database.agenda.after(late, lambda: _done(work))
            self._process.soon(self._late(), lambda: _give(answer, lost()))
        else:
            self._database.agenda.after(self._late(), lambda: self._said(work, answer))
        result: T = await answer
        return result

    def _said(self, work: Callable[[], T], answer: asyncio.Future[T]) -> None:
        if self._struck():
            self._process.soon(0.0, lambda: _give(answer, lost()))
            return
        came = _done(work)
        if not self._struck() and self._happens(self._database.faults.lost_after):
            came = lost()
        self._process.soon(self._late(), lambda: _give(answer, came))

    # ── A command's way ──────────────────────────────────────────────────────────────────────────────────────────────

    def _send(self, command: Command[T], future: Future[T], tries: int, *, again: bool) -> None:
        faults = self._database.faults
        if not self._process.alive:
            return
        if tries == 0:
            error = StoreUnavailable("The simulated database is out of reach.")
            self._process.soon(0.0, lambda: future.set_exception(error))
        elif self._happens(faults.pauses):
            self._trouble.pause(self._process)
            self._again(command, future, tries, again=again)
        elif faults.unreachable:
            self._again(command, future, tries - 1, again=again)
        elif self._happens(faults.lost_before):
            if self._happens(faults.arrives_late):
                late = self._database.agenda.random.uniform(0.0, LONG)
                self._database.agenda.after(late, lambda: self._straggle(command))
            self._again(command, future, tries - 1, again=True)
        else:
            self._database.agenda.after(self._late(), lambda: self._arrive(command, future, tries, again=again))

    def _straggle(self, command: Command[Any]) -> None:
        """Commit what nobody waits for any more; a locked row keeps it waiting, too."""
        if self._database.locks.bars(command):
            self._database.agenda.after(LONG, lambda: self._straggle(command))
        else:
            self._answered(command, again=True)

    def _arrive(self, command: Command[T], future: Future[T], tries: int, *, again: bool) -> None:
        """Commit; whether the answer finds its way back is another matter."""
        if self._database.locks.bars(command) or self._struck():
            self._again(command, future, tries, again=again)
            return
        try:
            answer = self._answered(command, again=again)
        except StoreError as error:
            told = error
            self._process.soon(self._late(), lambda: future.set_exception(told))
            return
        if not self._struck() and self._happens(self._database.faults.lost_after):
            self._again(command, future, tries - 1, again=True)
        else:
            self._process.soon(self._late(), lambda: future.set_result(answer))

    def _again(self, command: Command[T], future: Future[T], tries: int, *, again: bool) -> None:
        pause = self._database.agenda.random.uniform(0.01, 0.2)
        self._process.soon(pause, lambda: self._send(command, future, tries, again=again))

    def _struck(self) -> bool:
        """Whether something happens to the process in this very moment."""
        if self._database.is_the_moment():
            self._trouble.strike(self._process)
        elif self._happens(self._database.faults.kills):
            self._trouble.kill(self._process)
        else:
            return False
        return True

    def _happens(self, chance: float) -> bool:
        return chance > 0 and self._database.agenda.random.random() < chance

    def _late(self) -> float:
        if self._happens(self._database.faults.slow):
            return self._database.agenda.random.uniform(0.0, LONG)
        return self._database.agenda.random.expovariate(1.0 / self._database.faults.delay)

    def _answered(self, command: Command[T], *, again: bool) -> T:
        answer = self._database.carry_out(self._process, command)
        if isinstance(command, Enlist):
            self._process.executors.add(int(answer))  # type: ignore[call-overload] # an id is what it answers
        if again and isinstance(command, Advance) and isinstance(answer, Advanced) and not answer.written:
            verified: Any = verify(self._database.tables, command)
            return verified  # type: ignore[no-any-return] # it is what an advance answers
        return answer


def lost() -> DatabaseError:
    """Say that a connection was lost; the server could not."""
    return DatabaseError("server closed the connection unexpectedly", None)


def _done(work: Callable[[], T]) -> T | DatabaseError:
    """Do it at the server; what it refuses is an answer, too."""
    try:
        return work()
    except DatabaseError as error:
        return error


def _give(answer: asyncio.Future[T], came: T | DatabaseError) -> None:
    """Hand over what came, if somebody still waits for it."""
    if answer.done():
        return
    if isinstance(came, DatabaseError):
        answer.set_exception(came)
    else:
        answer.set_result(came)


def verify(tables: Tables, command: Advance) -> Advanced:
    """Decide, as Postgres' store does, whether it was this very advance that took the claim away."""
    workflow = tables.workflows.get(command.workflow_id)
    if workflow is None:
        return Advanced(written=False)
    positions = [entry.position for entry in command.entries]
    written = bool(positions) and all(workflow.claims.get(it) == command.claim for it in positions)
    if command.end is not None and not positions:
        row = workflow.row
        wanted = Outcome(Status.WAITING) if isinstance(command.end, Park) else command.end
        written = row.claim == command.claim and Outcome(row.status, row.output, row.error) == wanted
    instants = [workflow.journal[it.position].output for it in command.entries if written and it.after is not None]
    return Advanced(
        written=written,
        parked=written and isinstance(command.end, Park),
        instants=tuple(float(it or 0) for it in instants),
    )
