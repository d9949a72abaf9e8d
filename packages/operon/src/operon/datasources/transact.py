"""The user's transaction, once and only once: begin, run, record, commit, and again if somebody was in the way.

Code may run again, but it never commits again: the record is part of the commit, and whoever finds it there adopts
what it says. One text for both colours; it must not know any driver.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from enum import IntEnum
from inspect import isawaitable
from random import Random
from typing import Any

from operon.core import context
from operon.core.commands import Invoke, Op, Pause
from operon.core.ledger import Done, Ledger, Statement, Work
from operon.datasources.call import cancelled_once
from operon.datasources.faults import STANDBY, Fault, fault, sqlstate
from operon.datasources.foreign import Foreign
from operon.datasources.opened import Adapter, Transaction, ended, swallowed
from operon.datasources.stopping import stoppable
from operon.errors import OperonError, StoreError, StoreReadOnly, StoreUnavailable

log = logging.getLogger("operon")
_random = Random()  # noqa: S311 - jitter, not secrets


def transact(
    adapter: Adapter, work: Work, ledger: Ledger | None, queries: Mapping[str, str], random: Random = _random
) -> Op[Done]:
    """Run a transaction; once this returns, its rows and its record are durable, by one commit.

    What the user's code raises is raised unchanged, after a rollback.

    Raises:
        StoreUnavailable: the database was out of reach for a minute, or others were always faster. The transaction
            may even have committed, if the answer to the last commit was lost: ask the ledger before you say that not.
        StoreReadOnly: it was declared read-only, and wrote.
        TransactionEnded: the code ended the transaction itself.
        StoreError: a statement failed and the code went on, or the record could not be written.
    """
    ledger = None if work.read_only else ledger
    tries = dict.fromkeys(Fault, 0)
    humble = False
    beside = sys.exception()
    while True:
        attempt = Attempt(adapter, work, ledger, queries, humble=humble)
        try:
            with context.transacting(attempt):
                return (yield from attempt.make())
        except Exception as error:
            why = attempt.diagnose(error, sqlstate(error, beside))
            if why is None:
                raise
            cause = error
        humble = humble or attempt.denied
        adopted = None if ledger is None else (yield from ledger.adopt())
        if adopted is not None:
            return Done(adopted.output, work.decode(adopted.output), recorded=True)
        tries[why] += 1
        if tries[why] > why.value.retries:
            raise _exhausted(work, why, cause) from cause
        if why is Fault.LOST:
            _tell(work, tries[why], cause)
        yield Pause(why.value.delay(tries[why], random))


class Stage(IntEnum):
    """How far an attempt has come; the same error means another thing in each."""

    BEGIN = 1
    BODY = 2
    RECORD = 3
    COMMIT = 4


class Attempt:
    """One time that the user's code runs."""

    def __init__(
        self, adapter: Adapter, work: Work, ledger: Ledger | None, queries: Mapping[str, str], *, humble: bool
    ) -> None:
        self.adapter = adapter
        self.work = work
        self.ledger = ledger
        self.queries = queries
        self.humble = humble
        """The user's code leaves a role behind that may not write our record: take it off first."""
        self.stage = Stage.BEGIN
        self.denied = False
        self.broken = False
        self.idled = False
        """It was lost after its code had it for longer than the server lets one do nothing."""
        self.tempted = False

    def make(self) -> Op[Done]:
        """Run it from begin to commit, when it is its turn; whatever leaves it by an error has been rolled back."""
        line = self.adapter.line
        if line is None:
            return (yield from self._make())
        yield from line.take()
        try:
            return (yield from self._make())
        finally:
            line.give()

    def _make(self) -> Op[Done]:
        if isinstance(self.ledger, Foreign):
            adopted = yield from self.ledger.recorded()
            if adopted is not None:
                return Done(adopted.output, self.work.decode(adopted.output), recorded=False)
        tx = yield from self.adapter.begin(self.work)
        tx.queries, begun = self.queries, time.monotonic()
        try:
            done = yield from self._run(tx)
        except GeneratorExit:
            tx.abandon()
            raise
        except BaseException:
            self.broken, self.tempted = tx.broken, tx.tempted
            self.idled = time.monotonic() - begun > tx.idle
            yield from tx.rollback()
            raise
        finally:
            tx.over = True
        for callback in tx.callbacks:
            callback()
        return done

    def _run(self, tx: Transaction) -> Op[Done]:
        for statement in self.ledger.opening() if self.ledger else ():
            yield from self._put(tx, statement)
        self.stage = Stage.BODY
        with stoppable(tx):
            with context.transacting(tx):
                result = yield Invoke(lambda: self._body(tx))
            output, value = self.work.encode(result)
            yield from tx.check()
            yield from tx.flush()
        self.stage = Stage.RECORD
        if self.humble:
            yield from tx.rows("reset role", {})
        for statement in self.ledger.closing(output) if self.ledger else ():
            yield from self._put(tx, statement)
        self.stage = Stage.COMMIT
        yield from tx.commit()
        return Done(output, value, recorded=self.ledger is not None and not isinstance(self.ledger, Foreign))

    def _body(self, tx: Transaction) -> Any:
        work = self.work.body(tx.handle)
        return cancelled_once(work, tx.insist) if isawaitable(work) else work

    def _put(self, tx: Transaction, statement: Statement) -> Op[None]:
        rows = yield from tx.rows(self.queries[statement.query], statement.parameters)
        if len(rows) != 1 or (rows[0] and rows[0][0] is False):  # `lock` answers in a row that it was refused
            raise statement.otherwise()

    def diagnose(self, error: Exception, code: str | None) -> Fault | None:
        """Say why to try again; None if the error is to be raised as it is.

        Raises:
            StoreError: what it means, where the database's own words would not say it.
        """
        if isinstance(error, OperonError):
            return None
        if self.tempted:
            raise ended() from error
        if code == "25006" and self.work.read_only:
            raise StoreReadOnly(
                f"{self.work.name} is declared read_only=True, and wrote: take the option away, or the write."
            ) from error
        if self.stage is Stage.RECORD:
            if code == "23505":
                return Fault.CONFLICT
            if code == "25P02":
                raise swallowed() from error
            if code == "42501":
                return self._denied(error)
        if code is None and (self.broken or self.stage is Stage.BEGIN):
            return Fault.IDLE if self.idled else Fault.LOST
        if code in STANDBY and self.stage is Stage.BEGIN and not self.work.read_only:
            return Fault.LOST
        return fault(code)

    def _denied(self, error: Exception) -> Fault:
        if self.humble:
            raise StoreError(
                f"{self.work.name}: this role may not write Operon's record ({error}). Grant it insert on "
                "operon.workflows and operon.steps and usage of the schema operon; see the manual on roles."
            ) from error
        self.denied = True
        return Fault.CONFLICT


def _tell(work: Work, tries: int, cause: Exception) -> None:
    """Say who waits for a database that is out of reach or locked; ever less often, the longer it lasts."""
    if tries.bit_count() == 1:
        here = context.step()
        whose = f"{work.name} ({here.idempotency_key})" if here else work.name
        said = str(cause).strip().partition("\n")[0] or type(cause).__name__
        log.warning("%s waits for its database, and is tried again: %s", whose, said)


def _exhausted(work: Work, why: Fault, cause: Exception) -> StoreError:
    if why is Fault.IDLE:
        return StoreError(
            f"{work.name} kept its transaction open without using it until the server ended it, "
            f"{why.value.retries + 1} times ({cause}). Do what is slow in a step before or after the transaction."
        )
    reason = "others were faster every time" if why is Fault.CONFLICT else "its database was out of reach or locked"
    return StoreUnavailable(f"{work.name} was tried {why.value.retries + 1} times: {reason} ({cause}).")
