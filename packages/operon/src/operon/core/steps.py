"""Steps: run at least once, then never again; the output is recorded, and so is every failed attempt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    cleaning = branch.cleaning(host.clock())
    if not cleaning:
        branch.run.check()
    name = using.name or function.name
    position = branch.advance()
    text = function.signature.encode(args, kwargs)
    digest = function.signature.digest(text)
    rules = function.rules
    retry = rules.retry if using.retries is None else replace(rules.retry, retries=using.retries)
    timeout = rules.timeout if using.timeout is None else using.timeout
    attempts = Attempts(
        host, branch, function, Entry(position, 0, Kind.STEP, name, digest, version=host.version), retry
    )

    def call() -> Invoke[Any]:
        return Invoke(fn, *function.signature.fresh(text, args, kwargs), timeout)

    if cleaning:
        return (yield from attempts.unrecorded(call))
    recorded = yield from recall(branch, position, Kind.STEP, name, digest)
    if recorded is not None:
        return replay(branch.run, function, recorded)
    yield from settle(branch.run)
    return (yield from attempts.until_done(call))


def replay(run: Run, function: Function, entry: Entry) -> Any:
    """Return, or raise, what a record holds."""
    if (error := entry.error) is not None:
        raise read(run, entry, lambda: function.decode_error(error))
    return read(run, entry, lambda: function.signature.decode_result(entry.output or "null"))


class Attempts:
    """The attempts of one step at one position; those that failed survive a crash."""

    def __init__(self, host: Host, branch: Branch, function: Function, blank: Entry, retry: Retry) -> None:
        self.host = host
        self.branch = branch
        self.run: Run = branch.run
        self.function = function
        self.blank = blank
        self.retry = retry
        self.position = blank.position

    def until_done(self, call: Callable[[], Invoke[Any]]) -> Op[Any]:
        """Try until the step succeeds or its retries are used up; either is recorded. Each attempt makes its call."""
        failures = self.run.failures.get(self.position, ())
        attempt = len(failures) + 1
        if failures:
            yield from self._pause(attempt - 1, read(self.run, failures[-1], lambda: float(failures[-1].output or 0)))
        while True:
            begun = self.host.clock()
            try:
                value = yield from self._once(call(), attempt)
                output, value = self.function.round_trip(value)
            except Exception as error:
                self.run.check()
                elapsed = self.host.clock() - begun
                final = self._final(attempt, error)
                text, told = self.function.round_trip_error(error if final is None else final)
            else:
                yield from note(self.run, self._entry(attempt, self.host.clock() - begun, output=output))
                return value
            if final is not None:
                yield from note(self.run, self._entry(attempt, elapsed, error=text))
                raise told
            yield from self._record_failure(attempt, elapsed, text)
            attempt += 1

    def unrecorded(self, call: Callable[[], Invoke[Any]]) -> Op[Any]:
        """Try likewise in a clean-up, of which nothing is recorded, for as long as it has time."""
        attempt = 1
        while True:
            try:
                with context.doing(self._doing(attempt)):
                    return (yield call())
            except Exception as error:
                final = self._final(attempt, error)
                if final is error or not self.branch.cleaning(self.host.clock()):
                    raise
                if final is not None:  # that `retry_on` failed
                    raise final from error
            yield Pause(self.retry.delay(attempt, self.host.random))
            attempt += 1

    def _doing(self, attempt: int) -> context.Step:
        return context.Step(self.blank.name, self.position, attempt, f"{self.run.id}:{self.position}")

    def _final(self, attempt: int, error: Exception) -> Exception | None:
        """Give the error that the step ends with; None if it is tried again. That `retry_on` fails ends it, too."""
        try:
            again = self.retry.again(attempt, error)
        except Exception as broken:
            return broken
        return None if again and not isinstance(error, NotSerializable) else error

    def _once(self, invoke: Invoke[Any], attempt: int) -> Op[Any]:
        self.run.check()
        try:
            with context.doing(self._doing(attempt)):
                value = yield invoke
        except BaseException as error:
            self.run.check()
            if not isinstance(error, Exception):
                interrupted(self.run, replace(self._entry(attempt, 0.0), kind=Kind.CANCELLED), error)
            raise
        self.run.check()
        return value

    def _record_failure(self, attempt: int, elapsed: float, text: str) -> Op[None]:
        delay = self.retry.delay(attempt, self.host.random)
        entry = self._entry(attempt, elapsed, error=text)
        mark = f"{self.position}#{attempt}"
        self.run.given(entry.ordinal)
        yield from write(self.run, replace(entry, position=mark, kind=Kind.ATTEMPT, after=delay))
        yield from self._pause(attempt, self.run.instants.pop(mark))

    def _pause(self, attempt: int, until: float) -> Op[None]:
        yield from rest(self.run, f"{self.position}#{attempt}", until)

    def _entry(self, attempt: int, elapsed: float, output: str | None = None, error: str | None = None) -> Entry:
        ordinal = self.run.number()
        return replace(self.blank, ordinal=ordinal, attempt=attempt, elapsed=elapsed, output=output, error=error)
