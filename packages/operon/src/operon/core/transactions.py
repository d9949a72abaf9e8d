"""Transactions: the user's rows and our record in one commit, as a step of a workflow or as a workflow of its own."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from operon.core import context
from operon.core.commands import Describe, Invoke, Load, Op, Pause, ask
from operon.core.function import Declared, Function, Home, Using
from operon.core.host import Host
from operon.core.journal import Branch, Run
from operon.core.ledger import Adopted, Done, Statement, Work
from operon.core.recording import Turn, interrupted, note, recall, settle
from operon.core.results import call
from operon.core.rows import (
    Entry,
    Guard,
    Kind,
    NewWorkflow,
    before_claims,
    record_parameters,
    workflow_parameters,
)
from operon.core.starting import new_row
from operon.core.states import Status
from operon.core.steps import replay
from operon.errors import NotInWorkflow, NotLaunched, StoreUnavailable, Suspended


def transaction(host: Host, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Op[Any]:
    """Run a transaction: in a workflow as a step of it, elsewhere as a workflow of one commit.

    With options of its own, a key or a timeout, it is a workflow in any case, for these are options of one.
    """
    function = declared.function
    branch = context.current()
    cleaning = branch is not None and branch.cleaning(host.clock())
    if branch is not None and not cleaning:
        there = branch.coming()  # before 0022 it was a step of the workflow even so
        if declared.options != Using() and (there is None or there.kind is not Kind.TRANSACTION):
            return (yield from call(host, declared, args, kwargs))
        function.admit(branch.run.row.user, branch.run.row.roles)
        return (yield from in_workflow(host, branch, function, _bound(declared, args, kwargs), (args, kwargs)))
    options = declared.options
    if context.transaction() is not None:
        raise NotInWorkflow(
            f"{function.name} was called inside a transaction, of which it would be no part, for it commits by itself: "
            "call it before or after, or make it a plain function that is given the connection."
        )
    if cleaning or (function.rules.read_only and options.key is None):
        if branch is None:
            where = context.Step(function.name, "", 1, host.new_id(), user=options.user, roles=options.roles or ())
        else:
            position = branch.advance()
            where = context.Step(function.name, position, 1, f"{branch.run.id}:{position}")
        work = _work(function, _bound(declared, args, kwargs))
        with context.doing(where):
            return (yield from _of(function).transact(function, work, None)).value
    if (
        options.delay
        or options.timeout is not None
        or options.queue
        or options.dedupe
        or function.rules.read_only
        or not _of(function).remembers(function)
    ):
        return (yield from call(host, declared, args, kwargs))
    return (yield from _alone(host, declared, args, kwargs))


def as_workflow(host: Host, run: Run, function: Function, invoke: Invoke[Any]) -> Op[str]:
    """Run a transaction that was started in the background: a workflow whose one step it is."""
    arguments = (invoke.args, dict(invoke.kwargs))
    value = yield from in_workflow(host, run.root, function, invoke, arguments)
    return function.signature.encode_result(value)


def in_workflow(
    host: Host, branch: Branch, function: Function, invoke: Invoke[Any], arguments: tuple[Any, Any]
) -> Op[Any]:
    """Run a transaction as a step: its record commits with the user's rows."""
    run = branch.run
    position = branch.advance()
    text = function.signature.encode(*arguments)
    digest = function.signature.digest(text)
    recorded = yield from recall(branch, position, Kind.TRANSACTION, function.name, digest)
    if recorded is not None:
        return replay(run, function, recorded)
    yield from settle(run)
    blank = Entry(position, 0, Kind.TRANSACTION, function.name, digest, version=host.version)
    ledger = StepLedger(host, run, replace(blank, isolation=function.rules.isolation))
    run.check()
    try:
        work = _work(function, invoke, text)
        with context.doing(context.Step(function.name, position, 1, f"{run.id}:{position}")):
            done = yield from _of(function).transact(function, work, None if function.rules.read_only else ledger)
    except StoreUnavailable as error:
        # It may have committed all the same: whoever takes the workflow up finds the record, or runs it again.
        raise run.die(Suspended(f"{run.id} was left: {error}")) from error
    except Exception as error:
        run.check()
        text, told = function.round_trip_error(error)
    except BaseException as error:
        yield from interrupted(run, replace(blank, ordinal=ledger.number(), kind=Kind.CANCELLED), error)
        raise
    else:
        yield from _hand_over(run, ledger, blank, done)
        run.check()
        return done.value
    yield from note(run, replace(blank, ordinal=ledger.number(), error=text, elapsed=ledger.elapsed()))
    raise told


def _hand_over(run: Run, ledger: StepLedger, blank: Entry, done: Done) -> Op[None]:
    if not done.recorded:
        yield from note(run, replace(blank, ordinal=ledger.number(), output=done.output, elapsed=ledger.elapsed()))
        return
    ordinal = ledger.number()
    try:
        yield Turn(run, ordinal)
    finally:
        run.given(ordinal)


def _work(function: Function, invoke: Invoke[Any], text: str | None = None) -> Work:
    signature, rules = function.signature, function.rules

    def body(tx: object) -> Any:
        args, kwargs = invoke.args, invoke.kwargs
        if text is not None:  # it is recorded: in each attempt the same, whatever the one before did to them
            args, kwargs = signature.fresh(text, args, kwargs)
        return invoke.fn(tx, *args, **kwargs)

    decode = signature.decode_result
    return Work(function.name, body, function.round_trip, decode, rules.isolation, rules.read_only)


def _bound(declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Invoke[Any]:
    fn = declared.function.fn
    return Invoke(fn if declared.instance is None else fn.__get__(declared.instance), args, kwargs)


def _of(function: Function) -> Home:
    if function.home is None:
        raise NotLaunched(f"{function.name} is declared on routes that no app includes; write app.include(...).")
    return function.home


class StepLedger:
    """The record of a transaction within a workflow: fenced by the claim, and never read back inside it."""

    def __init__(self, host: Host, run: Run, blank: Entry) -> None:
        self.host = host
        self.run = run
        self.blank = blank
        self.ordinal = 0
        self.begun = host.clock()
        # Another workflow may have had this id, and its transactions their records in this database.
        self.key = (run.id, f"{blank.position}@{before_claims(run.row.nonce)}")

    def number(self) -> int:
        """Give the operation's one number, however many attempts it takes, and whatever comes of it."""
        if not self.ordinal:
            self.ordinal = self.run.number()
        return self.ordinal

    def elapsed(self) -> float:
        """Seconds since the transaction began."""
        return self.host.clock() - self.begun

    def check(self) -> None:
        """Raise what has ended the run."""
        self.run.check()

    def opening(self) -> tuple[Statement, ...]:
        """Nothing: a look-up here would cause false serialization failures. A run that was left begins no attempt."""
        self.run.check()
        self.begun = self.host.clock()
        return ()

    def closing(self, output: str) -> tuple[Statement, ...]:
        """Fence and record, in one statement."""
        self.run.check()
        entry = replace(self.blank, ordinal=self.number(), output=output, elapsed=self.elapsed())
        return (Statement("record", record_parameters(self.run.guard, entry), self._fenced),)

    def _fenced(self) -> BaseException:
        return self.run.die(Suspended(f"{self.run.id} is no longer run here."))

    def adopt(self) -> Op[Adopted | None]:
        """Ask whether the record is there: an earlier commit's answer was lost, or another owner was faster."""
        entries = yield from ask(Load(self.run.id))
        mine = next((entry for entry in entries if entry.position == self.blank.position), None)
        if mine is not None and mine.output is not None:
            if mine.ordinal != self.ordinal:
                raise self._fenced()
            return Adopted(mine.output)
        row = yield from ask(Describe(self.run.id))
        if row is None or (row.claim, row.status) != (self.run.guard.claim, Status.RUNNING):
            raise self._fenced()
        return None


class Busy(BaseException):
    """The same key is being worked on right now."""


class AloneLedger:
    """The record of a workflow that is one transaction: its rows are written last, in the same commit.

    With a `failure`, it records that the transaction was refused: in one commit too, so that whoever has the same key
    finds nothing, or how it ended.
    """

    def __init__(self, host: Host, row: NewWorkflow, blank: Entry, *, keyed: bool, failure: str | None = None) -> None:
        self.host = host
        self.row = row
        self.blank = blank
        self.keyed = keyed
        self.failure = failure
        self.begun = host.clock()
        self.key = (row.id, blank.position)

    def check(self) -> None:
        """Nothing ends it but itself."""

    def opening(self) -> tuple[Statement, ...]:
        """Take the key's lock, so that two callers with one key do not both work."""
        self.begun = self.host.clock()
        if not self.keyed or self.failure is not None or not self.host.locks:
            return ()
        return (Statement("lock", {"id": self.row.id}, Busy),)

    def closing(self, output: str) -> tuple[Statement, ...]:
        """Write the ended workflow and its one step, in as few statements as the store can."""
        result = {"output": output} if self.failure is None else {"error": self.failure}
        entry = replace(self.blank, **result, elapsed=self.host.clock() - self.begun)
        status = Status.SUCCEEDED if self.failure is None else Status.FAILED
        parameters = {
            **record_parameters(Guard(self.row.id, self.row.first_claim), entry),
            **workflow_parameters(self.row),
            "status": status.code,
        }
        queries = ("settle", "settle_step")
        return tuple(Statement(query, parameters, Busy) for query in queries if query in self.host.store.queries)

    def adopt(self) -> Op[Adopted | None]:
        """Ask whether the workflow is there, and mine; a later look at the key decides what another's means."""
        row = yield from ask(Describe(self.row.id))
        if row is None:
            return None
        if row.nonce == self.row.nonce and (row.output is None) == (self.failure is not None):
            return Adopted(row.output or "null")
        raise Busy


def attempt(host: Host, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any], row: NewWorkflow) -> Op[Any]:
    """Run a transaction as a workflow of one commit.

    What it raises is recorded as its outcome, in one commit.

    Raises:
        Busy: another caller has its key, or had it and is done.
        StoreUnavailable: nobody knows; whoever asks again with the same key is told.
    """
    function = declared.function
    isolation = function.rules.isolation
    blank = Entry("1", 1, Kind.TRANSACTION, function.name, row.digest, version=host.version, isolation=isolation)
    ledger = AloneLedger(host, row, blank, keyed=declared.options.key is not None)
    work = _work(function, _bound(declared, args, kwargs), row.input)
    where = context.Step(function.name, "1", 1, f"{row.id}:1", row.id, row.user, row.roles)
    try:
        with context.doing(where):
            return (yield from _of(function).transact(function, work, ledger)).value
    except StoreUnavailable:
        raise
    except Exception as error:
        text, told = function.round_trip_error(error)
    refused = AloneLedger(host, row, blank, keyed=ledger.keyed, failure=text)
    yield from _of(function).transact(function, _nothing(function), refused)
    raise told


def _nothing(function: Function) -> Work:
    """Make the transaction in which only a refusal is recorded."""
    return Work(function.name, lambda _tx: None, lambda _: ("null", None), lambda _: None)


def _alone(host: Host, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Op[Any]:
    row = new_row(host, declared, args, kwargs)
    wait = 0.005
    while True:
        if declared.options.key is not None and (yield from ask(Describe(row.id))) is not None:
            return (yield from call(host, declared, args, kwargs))
        try:
            return (yield from attempt(host, declared, args, kwargs, row))
        except Busy:
            yield Pause(wait)
            wait = min(wait * 2, 0.5)
