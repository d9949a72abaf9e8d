"""Batches: a function of many items, whose callers start one item each.

An item is a workflow of its own. Where a queue lets one go, it leads: with those behind it, it is put into a batch, in
one commit that starts a second workflow, runs it here, and lets all of them wait for it; and the commit that ends the
batch ends its items. Outside a queue an item is a batch of one, run in place. Must not know how a store picks items.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, wraps
from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin

from msgspec import Raw, Struct, ValidationError, json
from msgspec.structs import replace

from operon.core.codec import Signature, Unannotated
from operon.core.codec.hints import hints_of, result_hint, signature_of
from operon.core.commands import Form, Op, ask
from operon.core.function import Function, Rules
from operon.core.host import Host
from operon.core.journal import Run
from operon.core.recording import Wait, recall
from operon.core.results import conclude, ended
from operon.core.rows import Guard, Kind, NewWorkflow, Outcome, Share, WorkflowRow
from operon.core.starting import Execute
from operon.core.states import Status
from operon.errors import BadValue, DeclarationError, NotDeserializable, Suspended

MARK = "[]"
"""Behind a function's recorded name: its batches."""


class Item(Struct, frozen=True):
    """One item of a batch, as the batch's input has it."""

    id: str
    claim: int
    input: str


class Items(Struct, frozen=True):
    """The input of a batch."""

    items: list[Item]


class ItemFunction(Function):
    """What callers start: one item; called outside a queue it is a batch of one."""

    def __init__(self, fn: Callable[..., Any], name: str, rules: Rules) -> None:
        super().__init__(_alone(fn, name), "workflow", name, rules)
        self.batch = BatchFunction(fn, self)

    @property
    def all(self) -> tuple[Function, ...]:
        """The items' workflow, and the batches'."""
        return (self, self.batch)

    @cached_property
    def signature(self) -> Signature:
        """One item, and its result."""
        return ItemSignature(self.fn, self.codec, skip=self.hidden)


class BatchFunction(Function):
    """What runs: the user's function, on the items of one batch."""

    def __init__(self, fn: Callable[..., Any], item: ItemFunction) -> None:
        aliases = tuple(f"{alias}{MARK}" for alias in item.rules.aliases)
        rules = replace(item.rules, timeout=None, aliases=aliases, roles=(), batch=None)
        super().__init__(fn, "workflow", f"{item.name}{MARK}", rules)
        self.item = item

    @property
    def hidden(self) -> int:
        """As many as an item's."""
        return self.item.hidden

    @cached_property
    def signature(self) -> Signature:
        """All items, and the outcome of each."""
        return BatchSignature(self)


class ItemSignature(Signature):
    """The arguments and the result of one item: what the lists of the function's annotations hold."""

    @cached_property
    def _hints(self) -> dict[str, Any]:
        hints = hints_of(inspect.unwrap(self._fn))
        return {name: _element(result_hint(hints) if name == "return" else hint) for name, hint in hints.items()}


class BatchSignature(Signature):
    """The arguments of a batch, made of its items' inputs, and the outcomes of all of them."""

    def __init__(self, batch: BatchFunction) -> None:
        super().__init__(batch.fn, batch.codec, skip=batch.hidden)
        self._batch = batch

    def decode(self, text: str, *, own: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """See `Signature.decode`."""
        gathered: dict[str, list[Raw]] = {name: [] for name in self._parameters}
        for item in items(text):
            for name, value in json.decode(item.input, type=dict[str, Raw]).items():
                gathered.setdefault(name, []).append(value)
        return super().decode(json.encode(gathered).decode(), own=own)

    def encode_result(self, value: object) -> str:
        """Return the outcome of each item.

        Raises:
            BadValue: what the function returned is no list.
            NotSerializable: an item's result cannot be recorded.
        """
        if value is None:
            return "null"
        return json.encode([self._outcome(each) for each in _listed(self._name, value)]).decode()

    def decode_result(self, text: str) -> Any:
        """Return the items' results; errors stand in their places."""
        return [self._result_of(outcome) for outcome in outcomes(text, 0)]

    def _outcome(self, value: object) -> Outcome:
        if isinstance(value, Exception):
            return Outcome(Status.FAILED, error=self._batch.round_trip_error(value)[0])
        return Outcome(Status.SUCCEEDED, self._batch.item.signature.encode_result(value))

    def _result_of(self, outcome: Outcome) -> Any:
        if outcome.status is Status.FAILED:
            return self._batch.decode_error(outcome.error or "null")
        return self._batch.item.signature.decode_result(outcome.output or "null")


def items(text: str) -> list[Item]:
    """Read a batch's input.

    Raises:
        NotDeserializable: it is none.
    """
    try:
        return json.decode(text, type=Items).items
    except ValidationError as error:
        raise NotDeserializable(f"This is no batch's input ({error}): enqueue single items.") from None


def outcomes(text: str | None, many: int) -> list[Outcome]:
    """Read a batch's output; nothing for each of so many items, where it gave nothing."""
    there = json.decode(text or "null", type=list[Outcome] | None)
    return [Outcome(Status.SUCCEEDED, "null")] * many if there is None else there


def gathered(leader: tuple[str, int, str], others: Iterable[tuple[str, int, str]], room: int) -> str:
    """Spell the input of a batch: of the leader and, as far as there is room, of others; each an id, a claim, an input.

    The others are claimed by this, so that their journals are read when they are claimed again.
    """
    chosen = [Item(*leader)]
    room -= len(chosen[0].input)
    for key, claim, text in others:
        room -= len(text)
        if room < 0:
            break
        chosen.append(Item(key, claim + 1, text))
    return json.encode(Items(chosen)).decode()


# ── Forming and sharing ──────────────────────────────────────────────────────────────────────────────────────────────


def item(host: Host, run: Run, function: ItemFunction) -> Op[Outcome]:
    """Run an item that a queue has let go: it forms a batch and leaves, or has been in one and ends as that says."""
    position = run.root.advance()
    recorded = yield from recall(run.root, position, Kind.START, f"{run.row.name}{MARK}")
    if recorded is None:
        yield from _lead(host, run, function)
        raise run.die(Suspended(f"{run.id} waits for its batch."))
    batch_id, place = recorded.child or "", int(recorded.output or 0)
    outcome = yield from ended(host, Wait(run, None, (batch_id,)))
    if outcome.status is Status.SUCCEEDED and outcome.erased is None:
        return outcomes(outcome.output, place + 1)[place]
    if outcome.status is Status.FAILED and outcome.erased is None:
        return Outcome(Status.FAILED, error=outcome.error)
    if outcome.status is Status.CANCELLED:
        return Outcome(Status.CANCELLED)
    if outcome.status is Status.HELD:
        return Outcome(Status.HELD, error=outcome.error)
    conclude(host, batch_id, function.batch, outcome)
    return outcome


def _lead(host: Host, run: Run, function: ItemFunction) -> Op[None]:
    rule, batch = function.rules.batch, function.batch
    if rule is None:
        raise run.die(Suspended(f"{run.id} is no item any more."))
    nonce = host.random.getrandbits(62)
    executor = host.reserve(batch, nonce, inline=True)
    row = NewWorkflow(
        id=host.new_id(),
        name=f"{run.row.name}{MARK}",
        input="",
        digest="",
        nonce=nonce,
        executor=executor,
        instance=run.row.instance,
        version=host.version,
        pin=run.row.pin,
        queue=run.row.queue,
        partition=run.row.partition,
        priority=run.row.priority,
    )
    text: str | None = None
    try:
        text = yield from ask(Form(run.guard, run.row.name, row, rule.size, rule.wait, host.codec.policy.max_payload))
    finally:
        if executor is not None and text is None:
            host.release(batch, nonce)
    if text is not None and executor is not None:
        yield from ask(Execute(batch, replace(row, input=text), inline=False))
    if text is not None:
        host.nudge()  # it may have taken one that was to bring others


def shared(row: WorkflowRow, function: Function | None, outcome: Outcome) -> Outcome:
    """Add to the outcome of a batch what becomes of its items, in the same commit."""
    if not isinstance(function, BatchFunction) or outcome.status not in (Status.SUCCEEDED, Status.FAILED):
        return outcome
    those = items(row.input)
    failed = Outcome(Status.FAILED, error=outcome.error)
    each = outcomes(outcome.output, len(those)) if outcome.status is Status.SUCCEEDED else [failed] * len(those)
    if len(each) != len(those):
        raise BadValue(f"{function.name} gave {len(each)} results for {len(those)} items; give one for each, or None.")
    return replace(
        outcome, shares=tuple(Share(Guard(it.id, it.claim), end) for it, end in zip(those, each, strict=True))
    )


# ── The two forms of the function ────────────────────────────────────────────────────────────────────────────────────


def _alone(fn: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Make of a function of a list a function of one item."""
    signature = signature_of(fn)
    parameters = [*signature.parameters.values()]
    if len(parameters) > 2 or not parameters or any(it.kind in _MANY for it in parameters):
        raise DeclarationError(f"{name} is declared with batch=, and takes one list of items and nothing else.")
    last = parameters[-1].name

    def one(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        given = dict(signature.bind(*args, **kwargs).arguments)
        return given | {last: [given[last]]}

    @wraps(fn)
    def alone(*args: Any, **kwargs: Any) -> Any:
        return _only(name, fn(**one(args, kwargs)))

    @wraps(fn)
    async def alone_awaited(*args: Any, **kwargs: Any) -> Any:
        return _only(name, await fn(**one(args, kwargs)))

    chosen = alone_awaited if inspect.iscoroutinefunction(fn) else alone
    returns = signature.return_annotation
    vars(chosen)["__signature__"] = signature.replace(
        parameters=[*parameters[:-1], parameters[-1].replace(annotation=_element(parameters[-1].annotation))],
        return_annotation=returns if isinstance(returns, str) else _element(returns),
    )
    return chosen


_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _only(name: str, value: object) -> Any:
    """Give the result of the only item."""
    listed = _listed(name, value, 1)
    if isinstance(listed[0], Exception):
        raise listed[0]
    return listed[0]


def _listed(name: str, value: object, many: int | None = None) -> Sequence[Any]:
    if value is None and many is not None:
        return [None] * many
    if not isinstance(value, list | tuple):
        raise BadValue(f"{name} gave a {type(value).__name__}; give a list with a result for each item, or None.")
    results: Sequence[Any] = cast("Sequence[Any]", value)
    if many is not None and len(results) != many:
        raise BadValue(f"{name} gave {len(results)} results for {many} items; give one for each, or None.")
    return results


def _element(hint: Any) -> Any:
    """Say what a list holds; an error that stands for a result is none."""
    if get_origin(hint) in {Union, UnionType}:
        hint = next((it for it in get_args(hint) if it is not NoneType), NoneType)
    if not get_args(hint):
        return hint if hint in {NoneType, None} or isinstance(hint, str) else Unannotated
    element = get_args(hint)[0]
    if get_origin(element) not in {Union, UnionType}:
        return element
    kept: list[Any] = [it for it in get_args(element) if not _is_error(it)]
    return Union[tuple(kept)] if kept else Unannotated  # noqa: UP007 - of a list


def _is_error(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseException)
