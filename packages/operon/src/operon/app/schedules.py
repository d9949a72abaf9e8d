"""Schedules as the user has them: the decorator that an app and its parts share, and the verbs of the noun."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, TypeVar

from operon.app.declarations import Call, Durable
from operon.app.queues import Queue
from operon.core import schedules as core
from operon.core.commands import Op
from operon.core.host import Host
from operon.core.results import Handle
from operon.core.schedules import Definition, open_parameters
from operon.core.timetable import CatchUp, Overlap
from operon.errors import BadValue, DeclarationError
from operon.types import ScheduleRecord

F = TypeVar("F", bound=Durable[..., Any])


class Timetable:
    """The decorator `schedule`, which an app and its parts share; outermost, it returns what it is given."""

    def __init__(self) -> None:
        self._definitions: list[Definition] = []

    @property
    def launched(self) -> bool:
        """Whether the app is."""
        return False

    def schedule(
        self,
        cron: str,
        *,
        tz: str = "UTC",
        catch_up: CatchUp = "one",
        overlap: Overlap = "skip",
        queue: Queue | str | None = None,
        name: str | None = None,
    ) -> Callable[[F], F]:
        """Start a workflow again and again: once at each planned instant, over any number of processes.

        Its parameter `at`, if it has one, is given the planned time, aware and in the time zone.

        Args:
            cron: minute, hour, day of month, month, day of week; of six fields the first is the second; or `@daily`
                and such.
            tz: the time zone whose wall clock is meant.
            catch_up: which of the instants that passed while no process was there are made up for: "skip" none, "one"
                the latest, "all" each.
            overlap: when the run before has not ended: "skip" leaves this one out, "queue" begins it when that has
                ended, "replace" cancels that one.
            queue: the queue that it goes through.
            name: names it in the database; by default as its function.

        Raises:
            DeclarationError: not a workflow or a transaction, or one that needs other arguments; a second of this name;
                the app is launched.
            BadValue: no cron expression, naming the field; no time zone; an option that cannot be meant.
        """

        def declare(target: F) -> F:
            if not isinstance(target, Durable):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
                raise DeclarationError(
                    f"schedule starts workflows and transactions, and {target!r} is none: "
                    "write @app.schedule(...) above @app.workflow."
                )
            if missing := open_parameters(target):
                raise DeclarationError(
                    f"A schedule gives {target.name} nothing but `at`, the planned time, and it needs {missing[0]!r}: "
                    "give that a default, or make the schedule at run time, with schedules.create(name, cron, "
                    f"{target.function.fn.__name__}.bind(...))."
                )
            known_as = target.name if name is None else name
            if self.launched:
                raise DeclarationError(
                    f"Declare the schedule {known_as!r} before launch; later, schedules.create(...) makes one."
                )
            if any(each.name == known_as for each in self._definitions):
                raise DeclarationError(f"Two schedules are named {known_as!r}: give one of them name=….")
            definition = Definition(
                known_as, cron, tz, catch_up, overlap, target, queue=queue.name if isinstance(queue, Queue) else queue
            )
            definition.check()
            self._definitions.append(definition)
            return target

        return declare

    def definitions(self) -> Iterator[Definition]:
        """Every schedule declared here."""
        yield from self._definitions


# ── Verbs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def create(
    host: Host,
    name: str,
    cron: str,
    call: Call[Any] | Durable[..., Any],
    /,
    *,
    tz: str = "UTC",
    catch_up: CatchUp = "one",
    overlap: Overlap = "skip",
    queue: Queue | str | None = None,
    replace: bool = False,
) -> Op[ScheduleRecord]:
    """Make a schedule at run time: once this returns, any process that has the function fires it at each instant.

    To make one that is there already, and the same, is harmless.

    Args:
        name: names it.
        cron: as `app.schedule` takes it.
        call: what it starts: `send.bind("acme")`, with `.using(...)` before that; or a workflow that needs nothing but
            `at`. A parameter `at` that is not bound is given the planned time.
        tz: the time zone whose wall clock is meant.
        catch_up: as for `app.schedule`.
        overlap: as for `app.schedule`.
        queue: the queue that it goes through.
        replace: change one that is there; with another time it begins anew.

    Raises:
        KeyConflict: another schedule has the name, or code declares it.
        BadValue: no cron expression, naming the field; no time zone; an option that cannot be meant.
        NotFound: there is no such queue.
        NotSerializable: an argument cannot be recorded.
        NotInWorkflow: a transaction is open.
    """
    made: Call[Any] = call if isinstance(call, Call) else Call(call, (), {})
    target: object = made.declared
    if not isinstance(target, Durable):
        raise BadValue(f"A schedule starts a workflow or a transaction, and {target!r} is none.")
    line = queue.name if isinstance(queue, Queue) else queue
    given = Definition(name, cron, tz, catch_up, overlap, made.declared, made.args, made.kwargs, line)
    return core.create(host, given, over=replace)


def trigger(host: Host, name: str, /) -> Op[Handle[Any]]:
    """Start it now, with this moment as `at`, whatever its time, its pause and its last run; those stay as they are.

    Raises:
        NotFound: there is no such schedule.
    """
    return core.trigger(host, name)


def backfill(host: Host, name: str, /, since: datetime, until: datetime) -> Op[list[Handle[Any]]]:
    """Start it for each planned instant from `since` on and before `until`; those that were started are joined.

    They are started all at once; a queue has them run one after the other.

    Raises:
        NotFound: there is no such schedule.
        BadValue: a time without a zone or still to come, or more than ten thousand instants.
    """
    return core.backfill(host, name, since, until)


def pause(host: Host, name: str, /) -> Op[None]:
    """Let it start nothing more, in any process, until it is resumed; what runs goes on.

    Raises:
        NotFound: there is no such schedule.
    """
    return core.pause(host, name)


def resume(host: Host, name: str, /) -> Op[None]:
    """End a pause: it goes on with the next instant; nothing of the time between is caught up.

    Raises:
        NotFound: there is no such schedule.
    """
    return core.resume(host, name)


def delete(host: Host, name: str, /) -> Op[None]:
    """Delete a schedule; what it started goes on. One that code declares is there again at the next launch.

    Raises:
        NotFound: there is no such schedule.
    """
    return core.delete(host, name)


def describe(host: Host, name: str, /) -> Op[ScheduleRecord]:
    """Tell all that is known of a schedule.

    Raises:
        NotFound: there is no such schedule.
    """
    return core.describe(host, name)


def listing(host: Host) -> Op[list[ScheduleRecord]]:
    """Give every schedule, by name."""
    return core.listing(host)
