"""The laws of schedules: each planned instant once, none too early, none left out that was to be caught up."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from operon.core.commands import Command, Fire
from operon.core.cron import Cron
from operon.core.firing import run_id
from operon.core.rows import WorkflowRow
from operon.core.timetable import PREFIX, ScheduleRow
from operon.stores.memory import Tables
from operon.testing.simulate.process import LEASE
from operon.testing.simulate.verdicts import LawBroken

PROMPT = 3.0
"""Seconds within which an instant is fired, where nothing goes wrong."""


class ScheduleLaws:
    """Watches the schedules of one database."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._known: dict[str, ScheduleRow] = {}
        self._fired: defaultdict[str, set[float]] = defaultdict(set)

    def committed(self, command: Command[Any], answer: Any) -> None:
        """Hold what a firing did against what was planned."""
        if isinstance(command, Fire) and answer is not None:
            self._took_turn(self._known[command.name], command)
        self._known = dict(self._tables.schedules)

    def began(self, row: WorkflowRow) -> None:
        """See a run begin: those that its schedule started before it have ended."""
        if row.attempts != 1 or not row.id.startswith(PREFIX):
            return
        name = row.id.removeprefix(PREFIX).partition(":")[0]
        started = [it for at in sorted(self._fired[name]) if (it := run_id(name, at)) in self._tables.workflows]
        for key in started[: started.index(row.id)] if row.id in started else ():
            before = self._tables.workflows[key].row
            if not before.status.ended:
                raise LawBroken(f"{row.id} began, and {before.id} is {before.status}.")

    def prompt(self) -> None:
        """See that nothing is overdue, where nothing goes wrong."""
        for name, row in self._tables.schedules.items():
            if row.next_at is not None and not row.paused and row.next_at < self._tables.clock() - PROMPT:
                raise LawBroken(f"{name} was to be fired at {row.next_at}, and it is {self._tables.clock()}.")

    def _took_turn(self, row: ScheduleRow, command: Fire) -> None:
        now, name = self._tables.clock(), command.name
        fired = [firing.at for firing in command.firings]
        if row.paused:
            raise LawBroken(f"{name} is paused, and was fired for {fired}.")
        if any(at > now or at in self._fired[name] for at in fired):
            raise LawBroken(f"{name} was fired for {fired}; it is {now}, and before it was for {self._fired[name]}.")
        self._fired[name].update(fired)
        planned = self._planned(row, command.next_at)
        left = [at for at in planned if at not in fired]
        if set(fired) - set(planned) or left != planned[: len(left)]:
            raise LawBroken(f"{name} was fired for {fired}, and planned was {planned}.")
        if any(row.plan.catch_up == "all" or at >= now - LEASE for at in left):
            raise LawBroken(f"{name} left out {left}, and fired for {fired}; it is {now}.")
        if left and not fired and row.plan.catch_up == "one":
            raise LawBroken(f"{name} left out {left}, without making up for them once.")

    def _planned(self, row: ScheduleRow, until: float | None) -> list[float]:
        """Every instant from the one that was planned on, and before the next."""
        instants: list[float] = []
        cron, at = Cron(row.plan.cron, row.plan.tz), row.next_at
        while at is not None and (until is None or at < until):
            instants.append(at)
            at = cron.next(at)
        return instants
