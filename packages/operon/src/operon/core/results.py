"""Waiting for workflows: handles, `result`, `gather`."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from datetime import timedelta
from typing import Any, Generic, Literal, TypeVar, cast

from msgspec import Struct, json
from msgspec.structs import replace

from operon.core import context
from operon.core.commands import Look, Op, ask
from operon.core.function import Declared, Function
from operon.core.given import seconds, shown
from operon.core.host import Host
from operon.core.ids import possible
from operon.core.journal import Branch, Run
from operon.core.once import failed, trying
from operon.core.recording import Wait, interrupted, note, read, recall, settle, write
from operon.core.records import at, read_error
from operon.core.rows import Entry, Kind, Outcome
from operon.core.starting import Begun, begin, placed
from operon.core.states import Status
from operon.core.verbs import alarm
from operon.errors import (
    BadValue,
    NotDeserializable,
    NotFound,
    OperonError,
    RecordDeleted,
    StillRunning,
    WorkflowCancelled,
    WorkflowHeld,
)

R_co = TypeVar("R_co", covariant=True)
AHEAD = 250
"""So many that it will wait for next, a workflow is parked for at once."""
_ENDS = {Status.SUCCEEDED: "succeeded", Status.FAILED: "failed", Status.CANCELLED: "was cancelled"}


class Handle(Generic[R_co]):
    """A workflow that was started: its id, and the way to its result, from anywhere."""

    __slots__ = ("_function", "_host", "id")

    def __init__(self, host: Host, id: str, function: Function | None = None) -> None:  # noqa: A002 - the contract's name
        self.id = id
        self._host = host
        self._function = function

    def __repr__(self) -> str:
        return f"<Handle {self.id}>"

    @property
    def host(self) -> Host:
        """The app, or the client, that gave it."""
        return self._host

    def result(self, timeout: float | timedelta | None = None) -> R_co:
        """Wait for the workflow's result, blocking.

        Args:
            timeout: seconds, or a timedelta; None waits for ever.

        Raises:
            WorkflowCancelled, WorkflowHeld, WorkflowTimedOut: it has no result.
            StillRunning: the timeout passed; the workflow goes on.
            NotFound: no workflow has this id.
            RecordDeleted: it ended, and its record was deleted since.
            Exception: the workflow's own error, if it failed.
        """
        return self._host.drive(result(self._host, self, timeout))

    def __await__(self) -> Generator[Any, None, R_co]:
        """Wait for the workflow's result, awaited; raises what `result` raises."""
        return self._host.adrive(result(self._host, self, None)).__await__()

    async def wait(self, timeout: float | timedelta | None = None) -> R_co:  # noqa: ASYNC109 - ends the wait, not the work
        """Wait for the workflow's result for so long at most, awaited; raises what `result` raises."""
        return await self._host.adrive(result(self._host, self, timeout))

    def rebuilt(self, outcome: Outcome) -> tuple[R_co, BaseException | None]:
        """Make of an outcome the value, or the error."""
        return rebuilt(self._host, self.id, self._function, outcome)

    def decode(self, outcome: Outcome) -> R_co:
        """Make of an outcome what the caller gets: the value, or the error raised."""
        value: R_co = conclude(self._host, self.id, self._function, outcome)
        return value


def conclude(host: Host, workflow_id: str, function: Function | None, outcome: Outcome) -> Any:
    """Return an outcome's value, or raise its error."""
    value, error = rebuilt(host, workflow_id, function, outcome)
    if error is not None:
        raise error
    return value


def rebuilt(
    host: Host, workflow_id: str, function: Function | None, outcome: Outcome
) -> tuple[Any, BaseException | None]:
    """Give an outcome's value, or its error.

    Raises:
        NotDeserializable: it has one, which cannot be read here; says which.
    """
    if outcome.erased is not None:
        return None, erased(workflow_id, outcome)
    if outcome.status is Status.SUCCEEDED:
        text = outcome.output or "null"
        return (function.signature.decode_result(text) if function is not None else host.codec.decode(text)), None
    if outcome.status is Status.FAILED:
        text = outcome.error or "null"
        try:
            return None, function.decode_error(text) if function is not None else host.codec.decode_error(text, home="")
        except NotDeserializable as unreadable:
            said = read_error(host, None, text)
            raise NotDeserializable(f"{workflow_id} failed, {said}; as itself {unreadable}") from None
    if outcome.status is Status.CANCELLED:
        return None, WorkflowCancelled(f"{workflow_id} was cancelled.", workflow_id)
    if outcome.status is not Status.HELD:
        return None, StillRunning(_still(workflow_id))
    why = reason(host, outcome.error).removesuffix(".")
    return None, WorkflowHeld(f"{workflow_id} is held: {why}. Cancel it, or delete it and start it again.", workflow_id)


def reason(host: Host, error: str | None) -> str:
    """Say in words what a recorded error says."""
    why = read_error(host, None, error)
    return "no reason was recorded." if why is None else f"{why}"


def start(host: Host, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Op[Handle[Any]]:
    """Start in the background; durable before this returns."""
    begun = yield from begin(host, declared, args, kwargs, inline=False)
    return Handle(host, begun.id, declared.function)


def call(host: Host, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Op[Any]:
    """Start, run here if possible, and give the result."""
    begun = yield from begin(host, declared, args, kwargs, inline=True)
    handle: Handle[Any] = Handle(host, begun.id, declared.function)
    return (yield from placed(begun, result(host, handle, None, begun)))


def result(
    host: Host,
    handle: Handle[R_co],
    timeout: float | timedelta | None,
    begun: Begun | None = None,
    following: Following | None = None,
) -> Op[R_co]:
    """Wait for a workflow; in another workflow this is an operation of its own, and leaves no record but its order.

    Args:
        host: asks.
        handle: of the workflow.
        timeout: seconds, or a timedelta; None waits for ever.
        begun: what was begun for the caller: it runs here, in the place of the caller.
        following: what the caller will wait for next.
    """
    limit = None if timeout is None else seconds(timeout, "timeout")
    branch = context.current()
    if branch is None:
        until = None if limit is None else host.now() + limit
        wait = Wait(None, until, (handle.id,))
        return handle.decode((yield from _known(begun)) or (yield from ended(host, wait, following)))
    run = branch.run
    run.check()
    until = None if limit is None else (yield from alarm(host, branch, "timeout", limit))
    kept = yield from _kept(branch, handle.id)
    position = branch.advance()
    recorded = yield from recall(branch, position, Kind.RESULT, "result", handle.id, strict=True)
    if recorded is not None:
        failed(host, run, recorded)
        seen = read(run, recorded, lambda: json.decode(recorded.output or "null", type=Outcome | None))
        return _within(run, recorded, handle, kept or seen or (yield from look(handle.id)))
    yield from settle(run)
    blank = Entry(position, 0, Kind.RESULT, "result", handle.id, child=handle.id, version=host.version)

    def final() -> Op[Outcome]:
        then, fail_fast = ((), True) if following is None else (following.ids, following.fail_fast)
        awaited = Wait(run, until, (handle.id,), then=then, fail_fast=fail_fast)
        outcome = (yield from _known(begun)) or (yield from ended(host, awaited, following))
        if outcome.status is Status.HELD or outcome.erased is not None:
            handle.decode(outcome)
        return outcome

    try:
        outcome = yield from trying(host, run, blank, "a result", final())
    except OperonError:
        raise
    except BaseException as error:
        yield from interrupted(run, replace(blank, ordinal=run.number(), kind=Kind.CANCELLED), error)
        raise
    # A child's record is kept as long as its parent's, and a replay reads it there; others' may be deleted.
    copied = "null" if handle.id in run.children else json.encode(replace(outcome, shares=())).decode()
    yield from note(run, replace(blank, ordinal=run.number(), output=copied))
    if outcome.status is Status.CANCELLED:
        yield from write(run)  # who was cancelled with it hears of that, and not of its child's
    return _within(run, blank, handle, outcome)


def _kept(branch: Branch, workflow_id: str) -> Op[Outcome | None]:
    """Look at a child whose own row has the outcome that comes next: before its turn, so that no other overtakes it."""
    there = branch.coming()
    if there is None or there.kind is not Kind.RESULT or there.digest != workflow_id or there.error is not None:
        return None
    return (yield from look(workflow_id)) if there.output in {None, "null"} else None


def _known(begun: Begun | None) -> Op[Outcome | None]:
    """Give the outcome of what was begun, once it has run, where that is known here."""
    if begun is None or begun.place is None:
        return None if begun is None else begun.outcome
    return (yield from begun.place.take(inline=True))


def _within(run: Run, entry: Entry, handle: Handle[R_co], outcome: Outcome) -> R_co:
    """Give a workflow what it waited for; one that cannot be read here holds it, for its code was promised another."""
    value, error = read(run, entry, lambda: handle.rebuilt(outcome))
    if error is not None:
        raise error
    return value


def look(workflow_id: str) -> Op[Outcome]:
    """Ask where a workflow stands."""
    found: Mapping[str, Outcome] = (yield from ask(Look((workflow_id,)))) if possible(workflow_id) else {}
    if workflow_id not in found:
        raise unknown(workflow_id)
    return found[workflow_id]


def unknown(workflow_id: str) -> NotFound:
    """Say that there is no such workflow."""
    way_out = "; write its .id" if isinstance(cast("object", workflow_id), Handle) else ""
    return NotFound(f"No workflow has the id {workflow_id!r}{way_out}.")


def erased(workflow_id: str, outcome: Outcome) -> RecordDeleted:
    """Say of a workflow all that is left to say."""
    ended_at = at(outcome.erased or 0.0).isoformat(timespec="seconds")
    return RecordDeleted(
        f"{workflow_id} {_ENDS[outcome.status]} at {ended_at}, and its record was deleted since, as keep= says. "
        "It does not run again while its key is known: use another key, or delete() it."
    )


class Following(Struct):
    """What a caller will wait for next, one after the other: so as many are looked at at once."""

    ids: tuple[str, ...]
    fail_fast: bool
    """The code waits for no more of them, once one has failed."""
    over: dict[str, Outcome]
    """Those that were seen to have ended."""
    far: int = 8
    """How many of them are looked at together: more where that paid the last time."""

    def look(self, host: Host, workflow_id: str) -> Op[Outcome | None]:
        """Look at a workflow, and at what follows that does not run here."""
        if workflow_id not in self.over:
            after = (it for it in self.ids[: self.far] if it not in self.over and not host.executes(it))
            found: Mapping[str, Outcome] = yield from ask(Look(tuple(filter(possible, (workflow_id, *after)))))
            own = found.get(workflow_id)
            self.over.update((key, it) for key, it in found.items() if it.status.ended)
            self.far = min(2 * self.far, AHEAD) if self.over.keys() - {workflow_id} else 1
            if own is not None and not own.status.ended:
                return own
        return self.over.pop(workflow_id, None)


def ended(host: Host, wait: Wait, following: Following | None = None) -> Op[Outcome]:
    """Wait until a workflow has ended or is held, and say how."""
    (workflow_id,) = wait.awaits
    while True:
        looked = host.clock()
        if not host.executes(workflow_id):
            outcome = None if following is None else (yield from following.look(host, workflow_id))
            outcome = outcome or (yield from look(workflow_id))
            if outcome.status.ended or outcome.status is Status.HELD:
                return outcome
        if wait.until is not None and host.now() >= wait.until:
            raise StillRunning(_still(workflow_id))
        seen = yield from ask(replace(wait, since=looked))
        if workflow_id in seen:
            return seen[workflow_id]


def _still(workflow_id: str) -> str:
    return f"{workflow_id} has not ended in the time given; it goes on, and result() may be asked again."


def gather(host: Host, *handles: Handle[Any], errors: Literal["raise", "return"] = "raise") -> Op[tuple[Any, ...]]:
    """Wait for all of them; give their results in the order of the handles.

    With `errors="raise"` the first error, in that order, is raised; with "return" errors take the place of results.

    Raises:
        BadValue: `errors=` is neither, or one of them is no handle.
    """
    if errors not in {"raise", "return"}:
        raise BadValue(f'gather(errors={errors!r}): write errors="raise" or errors="return".')
    for each in handles:
        if not isinstance(each, Handle):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
            raise BadValue(f"gather() takes handles, gather(*handles), and {shown(each)} is none.")
    results: list[Any] = []
    ids = tuple(handle.id for handle in handles)
    following = Following((), errors == "raise", {})
    for place, handle in enumerate(handles, 1):
        following.ids = ids[place : place + AHEAD]
        try:
            results.append((yield from result(host, handle, None, following=following)))
        except Exception as error:
            if errors == "raise" or ((branch := context.branch()) is not None and branch.run.dead is not None):
                raise
            results.append(error)
    return tuple(results)
