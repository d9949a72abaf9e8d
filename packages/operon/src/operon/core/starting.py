"""Starting workflows: once per key, as a child where a workflow is around, in the caller's transaction where one is."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from operon.core import context
from operon.core.apps import cancelled
from operon.core.commands import Command, Describe, Invoke, Op, Queues, Start, ask
from operon.core.function import Declared, Function, Using
from operon.core.host import Host
from operon.core.ids import checked
from operon.core.journal import Branch, Run
from operon.core.once import failed, trying
from operon.core.recording import note, recall, settle
from operon.core.rows import Entry, Kind, NewWorkflow, Outcome, Started, workflow_parameters
from operon.core.states import status_of
from operon.errors import BadValue, DeclarationError, Duplicate, KeyConflict, NotFound, Suspended

T = TypeVar("T")
JOINED = '"joined"'
"""What the record of a start says of a workflow that was there already: another's, with a life of its own."""


class Execute(Command[Outcome | None], frozen=True):
    """Run a workflow that was started for this executor.

    Args:
        inline: run it for the caller and answer its outcome; else in the background, answering None at once.
    """

    function: Function
    row: NewWorkflow
    inline: bool


class Place:
    """The place that is reserved here for what was started: it is run in it, once, by whoever comes first."""

    def __init__(self, function: Function, row: NewWorkflow) -> None:
        self._execute: Execute | None = Execute(function, row, inline=True)

    def take(self, *, inline: bool) -> Op[Outcome | None]:
        """Run it for the caller and answer its outcome, or in the background; nothing, if it runs already."""
        execute, self._execute = self._execute, None
        return None if execute is None else (yield from ask(replace(execute, inline=inline)))


class Begun(Struct, frozen=True):
    """A workflow that was started, or was there already."""

    id: str
    outcome: Outcome | None = None
    """Where it stands, when that is known to be final."""
    joined: bool = False
    """It was there already."""
    place: Place | None = None
    """Where its caller is still to run it."""


def begin(host: Host, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any], *, inline: bool) -> Op[Begun]:
    """Start a workflow: once this returns, it will end, whatever crashes.

    Raises:
        KeyConflict: the key names other work.
        Duplicate: the key is taken, and `on_duplicate="reject"`.
        InvalidId: the key is no id.
        NotSerializable: an argument cannot be recorded.
        Forbidden: the user has none of the function's roles.
    """
    transaction = context.transaction() if declared.options.within is None else declared.options.within
    branch = context.current()
    if transaction is not None:
        return (yield from _join(host, declared, args, kwargs, transaction))
    if branch is not None:
        return (yield from _child(host, branch, declared, args, kwargs, inline=inline))
    yield from known(host, declared.options.queue)
    row = new_row(host, declared, args, kwargs)
    return (yield from _started(host, declared, row, inline=inline))


def new_row(host: Host, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NewWorkflow:
    """Make the row of a call; identity, input and inheritance are decided here."""
    function, using = declared.function, declared.options
    if function.kind == "step":
        raise DeclarationError(f"{function.name} is a step; start() takes a workflow or a transaction.")
    if using.queue is None and (using.priority or using.partition):
        option = "priority" if using.priority else "partition"
        raise BadValue(
            f"{option}= orders the workflows of a queue, and this call of {function.name} goes through none."
        )
    text, digest = function.signature.recorded(args, kwargs)
    around = context.branch()
    parent = around.run.row if around is not None else None
    user = using.user if using.user is not None else (parent.user if parent else None)
    roles = using.roles if using.roles is not None else (parent.roles if parent else ())
    function.admit(user, roles)
    return NewWorkflow(
        id=checked(using.key) if using.key is not None else host.new_id(),
        name=function.name,
        input=text,
        digest=digest,
        nonce=host.random.getrandbits(62),
        delay=using.delay + company(function, using.queue),
        timeout=using.timeout if using.timeout is not None else function.rules.timeout,
        deadline=parent.deadline if parent else None,
        instance=_instance(declared),
        root=(parent.root or parent.id) if parent else None,
        user=user,
        roles=roles,
        request_id=using.request_id or (parent.request_id if parent else None),
        traceparent=using.traceparent or (parent.traceparent if parent else None),
        version=host.version,
        pin=using.version or pinned(host, function),
        attributes=using.attributes,
        queue=using.queue,
        partition=using.partition,
        priority=using.priority,
        dedupe=using.dedupe,
        replace=_replaces(using),
    )


def company(function: Function, queue: str | None) -> float:
    """How many seconds an item waits in a queue for others to share a batch with."""
    return 0.0 if function.rules.batch is None or queue is None else function.rules.batch.wait


def tell(host: Host, *started: tuple[Function, NewWorkflow]) -> None:
    """Say that workflows were started which somebody is to claim; an item may be the last that a batch lacked."""
    delays = {row.delay for _, row in started}
    if any(company(function, row.queue) > 0 for function, row in started):
        delays.add(0.0)
    for delay in {min(delays, default=0.0), max(delays, default=0.0)}:
        host.nudge(delay)


def _replaces(using: Using) -> bool:
    """Whether the holder of the dedupe is to be cancelled."""
    if using.on_duplicate == "replace" and using.dedupe is None:
        raise BadValue('on_duplicate="replace" needs dedupe=: a key belongs to one workflow until that is deleted.')
    return using.on_duplicate == "replace"


def pinned(host: Host, function: Function) -> str | None:
    """Say which code version alone may run it; a client, which has no code, leaves that open."""
    home = function.home
    pin = home.pin if function.rules.pin is None and home is not None else function.rules.pin
    return (host.version or None) if pin else None


def _instance(declared: Declared) -> str | None:
    if declared.instance is None or declared.function.home is None:
        return None
    return declared.function.home.instance_name(declared.instance)


def known(host: Host, queue: str | None) -> Op[None]:
    """See that the queue exists, if one is meant; one that was seen is not asked for again, for none is ever removed.

    Raises:
        NotFound: it does not.
    """
    if queue is None or queue in host.queues:
        return
    host.queues.update(row.name for row in (yield from ask(Queues())))
    if queue not in host.queues:
        there = ", ".join(sorted(host.queues)) or "none"
        raise NotFound(f"There is no queue {queue!r}; there is {there}. Declare it: app.queue({queue!r}), and launch.")


def _child(
    host: Host, branch: Branch, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any], *, inline: bool
) -> Op[Begun]:
    run, function = branch.run, declared.function
    run.check()
    position = branch.advance()
    digest = function.signature.digest((args, kwargs))
    recorded = yield from recall(branch, position, Kind.START, function.name, digest)
    if recorded is not None:
        failed(host, run, recorded)
        return _known(run, recorded)
    yield from settle(run)
    blank = Entry(position, 0, Kind.START, function.name, digest, version=host.version)

    def work() -> Op[Begun]:
        yield from known(host, declared.options.queue)
        row = replace(
            new_row(host, declared, args, kwargs),
            id=checked(declared.options.key) if declared.options.key is not None else derived(run, position),
            parent=run.guard,
        )
        claimable = declared.options.on_duplicate == "reject"
        if claimable:
            # A replay must know its own child from another's. It is left to whoever claims it: a nonce that two owners
            # of this run share would let both run it.
            row = replace(
                row,
                nonce=int.from_bytes(blake2b(f"{run.id}:{run.row.nonce}:{position}".encode(), digest_size=7).digest()),
            )
        return (yield from _started(host, declared, row, inline=inline, run=run, here=not claimable))

    begun = yield from trying(host, run, blank, f"the start of {function.name}", work())
    output = JOINED if begun.joined else None
    yield from placed(begun, note(run, replace(blank, ordinal=run.number(), child=begun.id, output=output)))
    if not begun.joined:
        run.children[begun.id] = None
    return begun


def _known(run: Run, started: Entry) -> Begun:
    """Give the child that a record names."""
    begun = Begun(started.child or "", joined=started.output == JOINED)
    if not begun.joined:
        run.children[begun.id] = None
    return begun


def placed(begun: Begun, op: Op[T]) -> Op[T]:
    """Do what leads to a run in the reserved place; if it fails, what was started runs in the background."""
    try:
        return (yield from op)
    except GeneratorExit:
        raise
    except BaseException:
        if begun.place is not None:
            yield from begun.place.take(inline=False)
        raise


def derived(run: Run, position: str) -> str:
    """Give the id of the child at a position: the same one at every replay; short, however deep the tree."""
    name = f"{run.id}.{position}"
    return name if len(name) <= 200 else _hashed(run, name)


def _hashed(run: Run, name: str) -> str:
    return f"{(run.row.root or run.id)[:120]}~{blake2b(name.encode(), digest_size=16).hexdigest()}"


def _started(
    host: Host,
    declared: Declared,
    row: NewWorkflow,
    *,
    inline: bool,
    run: Run | None = None,
    here: bool = True,
) -> Op[Begun]:
    function = declared.function
    mine = here and row.queue is None and row.delay <= 0 and row.pin in (None, host.version)
    executor = host.reserve(function, row.nonce, inline=inline) if mine else None
    row = replace(row, executor=executor)
    try:
        answer = yield from ask(Start(row))
    except BaseException:
        if executor is not None:
            host.release(function, row.nonce)
        raise
    if executor is not None and not answer.created:
        host.release(function, row.nonce)
    if answer.replaced:
        cancelled(host, answer.replaced)
    if answer.refused and run is not None:
        raise run.die(Suspended(f"{run.id} is no longer run here."))
    if run is not None and declared.options.key is None and (yield from _taken(run, row, answer)):
        row = replace(row, id=_hashed(run, row.id), executor=None)
        return (yield from _started(host, declared, row, inline=inline, run=run, here=here))
    compare(declared, row, answer)
    outcome = answer.outcome if answer.outcome.status.ended else None
    place = Place(function, row) if answer.created and executor is not None else None
    if place is not None and not inline:
        yield from place.take(inline=False)
    elif answer.created and place is None:
        tell(host, (function, row))
    return Begun(answer.id or row.id, outcome, not answer.created, place)


def _taken(run: Run, row: NewWorkflow, answer: Started) -> Op[bool]:
    """Whether the id that this child would have was given to another workflow."""
    if answer.created or answer.id is not None:
        return False
    there = yield from ask(Describe(row.id))
    return there is not None and there.parent != run.id


def compare(declared: Declared, row: NewWorkflow, answer: Started) -> None:
    """Hold a call against what already has its key."""
    if answer.created:
        return
    on_duplicate = declared.options.on_duplicate
    key = row.dedupe if answer.id is not None else row.id
    if on_duplicate == "reject":
        raise Duplicate(f"{key!r} is taken by {answer.name}, {answer.outcome.status}; use another key, or join it.")
    if answer.name not in declared.function.names:
        raise KeyConflict(
            f"The key {key!r} of this call of {row.name} already started a workflow for {answer.name}: use another key."
        )
    if answer.digest != row.digest and on_duplicate != "first":
        raise KeyConflict(
            f"The key {key!r} of this call of {row.name} already started it with other arguments. "
            f'Use a key of its own, or on_duplicate="first" to take whatever is there.'
        )


def _join(host: Host, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any], transaction: Any) -> Op[Begun]:
    """Start within an open transaction of the caller: it starts when that commits, and never was if it rolls back."""
    opened = host.within(transaction)
    yield from known(host, declared.options.queue)
    row = new_row(host, declared, args, kwargs)
    if row.replace:
        raise BadValue('on_duplicate="replace" cancels another workflow, which a start within a transaction cannot.')
    rows: Any = yield Invoke(opened.execute, ("join", workflow_parameters(row)))
    key = row.id
    if not rows:
        there: Any = yield Invoke(opened.execute, ("joined", {"id": row.id, "dedupe": row.dedupe}))
        name, digest, code, key, erased = there[0]
        outcome, other = Outcome(status_of(int(code)), erased=erased), None if key == row.id else key
        compare(declared, row, Started(created=False, outcome=outcome, name=name, digest=digest, id=other))
    opened.after_commit(host.nudge)
    return Begun(key)
