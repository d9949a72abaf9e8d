"""Steps: run at least once, then never again; the output is recorded, and so is every failed attempt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec.structs import replace

from operon.core import context
from operon.core.commands import Invoke, Op, Pause
from operon.core.function import Declared, Function
from operon.core.host import Host
from operon.core.journal import Branch, Run, interrupted, note, read, recall, rest, settle, write
from operon.core.retry import Retry
from operon.core.rows import Entry, Kind
from operon.errors import NotSerializable


def step(host: Host, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Op[Any]:
    """Run a step of the workflow around it, unless the journal has its output."""
    function, using = declared.function, declared.options
    fn = function.fn if declared.instance is None else function.fn.__get__(declared.instance)
    branch = context.current() or context.within_workflow("step")
    run = branch.run
    cleaning = run.dead is not None and branch.cleaning(host.clock())
    if not cleaning:
        run.check()
    name = using.name or function.name
    position = branch.advance()
    text, digest = function.signature.recorded(args, kwargs)
    rules = function.rules
    retry = rules.retry if using.retries is None else replace(rules.retry, retries=using.retries)
    timeout = rules.timeout if using.timeout is None else using.timeout
    attempts = Attempts(host, branch, function, (position, name, digest), retry, (fn, text, (args, kwargs), timeout))
    if cleaning:
        return (yield from attempts.unrecorded())
    if not run.alone:
        recorded = yield from recall(branch, position, Kind.STEP, name, digest)
        if recorded is not None:
            return replay(run, function, recorded)
    yield from settle(run)
    return (yield from attempts.until_done())


def replay(run: Run, function: Function, entry: Entry) -> Any:
    """Return, or raise, what a record holds."""
    if (error := entry.error) is not None:
        raise read(run, entry, lambda: function.decode_error(error))
    return read(run, entry, lambda: function.signature.decode_result(entry.output or "null"))


Call: TypeAlias = tuple[Callable[..., Any], str, tuple[tuple[Any, ...], dict[str, Any]], float | None]
"""A function, the record of its arguments, these themselves, and how many seconds it may take."""


class Attempts:
    """The attempts of one step at one position; those that failed survive a crash."""

    __slots__ = ("_call", "branch", "digest", "function", "host", "name", "position", "retry", "run")

    def __init__(
        self, host: Host, branch: Branch, function: Function, what: tuple[str, str, str], retry: Retry, call: Call
    ) -> None:
        self.host = host
        self.branch = branch
        self.run: Run = branch.run
        self.function = function
        self.position, self.name, self.digest = what
        self.retry = retry
        self._call = call

    def _invoke(self) -> Invoke[Any]:
        """Call it with arguments of this attempt's own, made of their record where one can be changed."""
        fn, text, given, timeout = self._call
        return Invoke(fn, *self.function.signature.fresh(text, *given), timeout)

    def until_done(self) -> Op[Any]:
        """Try until the step succeeds or its retries are used up; either is recorded."""
        run, clock = self.run, self.host.clock
        failures = run.failures.get(self.position, ())
        attempt = len(failures) + 1
        if failures:
            yield from self._pause(attempt - 1, read(run, failures[-1], lambda: float(failures[-1].output or 0)))
        while True:
            begun = clock()
            try:
                run.check()
                with context.doing(self._doing(attempt)):
                    value = yield self._invoke()
                run.check()
                output, value = self.function.signature.round_trip(value)
            except Exception as error:
                run.check()
                elapsed = clock() - begun
                final = self._final(attempt, error)
                text, told = self.function.round_trip_error(error if final is None else final)
            except BaseException as error:
                run.check()
                yield from interrupted(run, self._entry(attempt, 0.0, kind=Kind.CANCELLED), error)
                raise
            else:
                yield from note(run, self._entry(attempt, clock() - begun, output=output))
                return value
            if final is not None:
                yield from note(run, self._entry(attempt, elapsed, error=text))
                raise told
            yield from self._record_failure(attempt, elapsed, text)
            attempt += 1

    def unrecorded(self) -> Op[Any]:
        """Try likewise in a clean-up, of which nothing is recorded, for as long as it has time."""
        attempt = 1
        while True:
            try:
                with context.doing(self._doing(attempt)):
                    return (yield self._invoke())
            except Exception as error:
                final = self._final(attempt, error)
                if final is error or not self.branch.cleaning(self.host.clock()):
                    raise
                if final is not None:  # that `retry_on` failed
                    raise final from error
            yield Pause(self.retry.delay(attempt, self.host.random))
            attempt += 1

    def _doing(self, attempt: int) -> context.Step:
        return context.Step(self.name, self.position, attempt, f"{self.run.id}:{self.position}")

    def _final(self, attempt: int, error: Exception) -> Exception | None:
        """Give the error that the step ends with; None if it is tried again. That `retry_on` fails ends it, too."""
        try:
            again = self.retry.again(attempt, error)
        except Exception as broken:
            return broken
        return None if again and not isinstance(error, NotSerializable) else error

    def _record_failure(self, attempt: int, elapsed: float, text: str) -> Op[None]:
        delay = self.retry.delay(attempt, self.host.random)
        entry = self._entry(attempt, elapsed, error=text)
        mark = f"{self.position}#{attempt}"
        self.run.given(entry.ordinal)
        yield from write(self.run, replace(entry, position=mark, kind=Kind.ATTEMPT, after=delay))
        yield from self._pause(attempt, self.run.instants.pop(mark))

    def _pause(self, attempt: int, until: float) -> Op[None]:
        yield from rest(self.run, f"{self.position}#{attempt}", until)

    def _entry(
        self,
        attempt: int,
        elapsed: float,
        *,
        output: str | None = None,
        error: str | None = None,
        kind: Kind = Kind.STEP,
    ) -> Entry:
        return Entry(
            self.position, self.run.number(), kind, self.name, self.digest,
            output=output, error=error, elapsed=elapsed, attempt=attempt, version=self.host.version,
        )  # fmt: skip
