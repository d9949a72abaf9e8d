"""Steps: run at least once, then never again; the output is recorded, and so is every failed attempt."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from operon.core import context
from operon.core.commands import Invoke, Op, Pause
from operon.core.function import Declared, Function
from operon.core.host import Host
from operon.core.journal import Branch, Run
from operon.core.recording import interrupted, note, read, recall, rest, settle, write
from operon.core.rows import Entry, Kind
from operon.errors import NotSerializable, Suspended


def step(host: Host, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Op[Any]:
    """Run a step of the workflow around it, unless the journal has its output."""
    branch = context.current() or context.within_workflow("step")
    run = branch.run
    cleaning = run.dead is not None and branch.cleaning(host.clock())
    if not cleaning:
        run.check()
    attempts = Attempts(host, branch, declared, args, kwargs)
    if cleaning:
        return (yield from attempts.unrecorded())
    if not run.alone:
        recorded = yield from recall(branch, attempts.position, Kind.STEP, attempts.name, attempts.digest)
        if recorded is not None:
            return replay(run, declared.function, recorded)
    yield from settle(run)
    return (yield from attempts.until_done())


def replay(run: Run, function: Function, entry: Entry) -> Any:
    """Return, or raise, what a record holds."""
    if (error := entry.error) is not None:
        raise read(run, entry, lambda: function.decode_error(error))
    return read(run, entry, lambda: function.signature.decode_result(entry.output or "null"))


class Failed(Struct, frozen=True):
    """What became of an attempt that failed, or was cancelled."""

    attempt: int
    elapsed: float
    text: str
    """The record of its error, if it failed."""
    error: BaseException | None
    """What the step raises; None if it is tried again."""


class Attempts:
    """The attempts of one step at one position, which it claims; those that failed survive a crash."""

    __slots__ = (
        "_fn", "_given", "_text", "branch", "digest", "function", "host", "name", "position", "retry", "run", "timeout",
    )  # fmt: skip

    def __init__(
        self, host: Host, branch: Branch, declared: Declared, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        function, using = declared.function, declared.options
        rules = function.rules
        self.host = host
        self.branch = branch
        self.run: Run = branch.run
        self.function = function
        self._fn = function.fn if declared.instance is None else function.fn.__get__(declared.instance)
        self._given = args, kwargs
        self.name = using.name or function.name
        self.position = branch.advance()
        self._text, self.digest = function.signature.recorded(args, kwargs)
        self.retry = rules.retry if using.retries is None else replace(rules.retry, retries=using.retries)
        self.timeout = rules.timeout if using.timeout is None else using.timeout

    def invoke(self) -> Invoke[Any]:
        """Call it with arguments of this attempt's own, made of their record where one can be changed."""
        return Invoke(self._fn, *self.function.signature.fresh(self._text, *self._given), self.timeout)

    def until_done(self, failed: Failed | None = None) -> Op[Any]:
        """Try until the step succeeds or its retries are used up; either is recorded.

        Args:
            failed: the attempt before, if that was not made here.
        """
        run, clock = self.run, self.host.clock
        failures = run.failures.get(self.position, ())
        attempt = len(failures) + 1
        try:
            if failed is not None:
                attempt = yield from self._after(failed)
            elif failures:
                yield from self._pause(attempt - 1, read(run, failures[-1], lambda: float(failures[-1].output or 0)))
            while True:
                begun = clock()
                try:
                    with context.doing(self.doing(attempt)):
                        value = yield self.invoke()
                    output, value = self.taken(value)
                except BaseException as error:
                    failed = self.failed(attempt, begun, error)
                else:
                    yield from note(run, self.done(attempt, begun, output))
                    return value
                attempt = yield from self._after(failed)
        finally:
            failed = None  # whose traceback has this frame

    def taken(self, value: object) -> tuple[str, Any]:
        """Give the record of a result, and what a replay will make of it."""
        self.run.check()
        return self.function.signature.round_trip(value)

    def done(self, attempt: int, begun: float, output: str) -> Entry:
        """Give the entry of an attempt that succeeded."""
        return self._entry(attempt, self.host.clock() - begun, output=output)

    def failed(self, attempt: int, begun: float, error: BaseException) -> Failed:
        """Say what the error means that is being handled.

        Raises:
            BaseException: what has ended the run.
        """
        if isinstance(error, GeneratorExit):  # it is being closed, on whatever thread: nothing more is done there
            self.run.die(Suspended(f"{self.run.id} was interrupted."))
            raise error
        self.run.check()
        if not isinstance(error, Exception):
            return Failed(attempt, 0.0, "null", error)
        elapsed = self.host.clock() - begun
        final = self._final(attempt, error)
        text, told = self.function.round_trip_error(error if final is None else final)
        return Failed(attempt, elapsed, text, None if final is None else told)

    def _after(self, failed: Failed) -> Op[int]:
        """Record what an attempt came to, and raise it; or give the next one once that is due."""
        try:
            if failed.error is not None and not isinstance(failed.error, Exception):
                yield from interrupted(self.run, self._entry(failed.attempt, 0.0, kind=Kind.CANCELLED), failed.error)
                raise failed.error
            if failed.error is not None:
                yield from note(self.run, self._entry(failed.attempt, failed.elapsed, error=failed.text))
                raise failed.error
            yield from self._record_failure(failed.attempt, failed.elapsed, failed.text)
            return failed.attempt + 1
        finally:
            del failed  # likewise

    def unrecorded(self) -> Op[Any]:
        """Try likewise in a clean-up, of which nothing is recorded, for as long as it has time."""
        attempt = 1
        while True:
            try:
                with context.doing(self.doing(attempt)):
                    return (yield self.invoke())
            except Exception as error:
                final = self._final(attempt, error)
                if final is error or not self.branch.cleaning(self.host.clock()):
                    raise
                if final is not None:  # that `retry_on` failed
                    raise final from error
            yield Pause(self.retry.delay(attempt, self.host.random))
            attempt += 1

    def doing(self, attempt: int) -> context.Step:
        """Say where its function runs."""
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
        self.run.check()

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
