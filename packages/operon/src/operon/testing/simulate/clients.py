"""What is asked of the engines from outside: starts, places in line, cancellations; are the answers right?"""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any, Protocol, get_args

from operon import aio
from operon.core import asking, schedules
from operon.core import queues as lines
from operon.core.commands import SetQueue
from operon.core.schedules import Definition
from operon.core.timetable import CatchUp, Overlap
from operon.errors import (
    KeyConflict,
    NotFound,
    NotLaunched,
    StepFailed,
    StoreError,
    WorkflowCancelled,
    WorkflowTimedOut,
)
from operon.testing.simulate.database import DatabaseError
from operon.testing.simulate.paying import HABITS
from operon.testing.simulate.process import Process
from operon.testing.simulate.retention_laws import SWEPT
from operon.testing.simulate.user_tables import PURSES
from operon.testing.simulate.verdicts import LawBroken

if TYPE_CHECKING:
    from collections.abc import Callable

    from operon.engine.engine import Engine
    from operon.testing.simulate.database import Database
    from operon.testing.simulate.laws import Laws
    from operon.testing.simulate.process import Process
    from operon.testing.simulate.programs import Program
    from operon.testing.simulate.schedule import Agenda

LASTING = ("endless", "restless")
"""What ends only when it is cancelled."""
DECIDING = ("hurried", "watcher", "restless")
"""What decides by what it is told, or goes on until it is told to stop."""
PAYING = ("payer", "impatient", "family")
"""What has transactions."""
TRANSACTIONS = ("pay", "pay", "remit")
"""What is called as it is, too; more in the journal's own database, where that is one commit."""
BRIEF = ("plain", "sleeper", "thinker", "retrying")
"""What is put in line."""
AGAIN = 11.0
"""Seconds after which a key is used anew, where keys are deleted."""
PACKED = 0.4
"""How many of the lines are of items that make batches."""
SCHEDULED = 0.3
"""In how many worlds there is a schedule."""
REFUSALS = (ValueError, DatabaseError)
"""How a transaction ends that does not commit."""


class World(Protocol):
    """The world that clients ask in."""

    agenda: Agenda
    database: Database
    laws: Laws
    processes: list[Process]
    faults_end: float
    sweeping: bool
    failures: list[BaseException]

    def program(self, host: int) -> Program:
        """The app of a host."""
        ...

    def somebody(self) -> Process | None:
        """A process that can be asked something."""
        ...

    def note(self, process: Process | None, what: str) -> None:
        """Write a line of the trace."""
        ...

    def broke(self, error: LawBroken) -> None:
        """See a law broken."""
        ...


class Clients:
    """Everybody who asks for something, and waits for it."""

    def __init__(self, world: World, chance: Random) -> None:
        self._world = world
        self._chance = chance
        self.waiting: list[Process] = []
        """Where somebody waits for a result."""

    def plan(self) -> None:
        """Choose what will be asked, and when."""
        flows = [it for it in self._world.program(0).flows if it not in (*DECIDING, *PAYING, *TRANSACTIONS)]
        for number in range(self._chance.randrange(3, 7)):
            self._plan_start(f"w{number}", self._chance.choice(flows))
        for number in range(self._chance.randrange(3)):
            self._plan_line(f"q{number}", self._chance.choice(list(self._world.program(0).queues)))
        for number in range(self._chance.randrange(3)):
            self._plan_start(f"d{number}", self._chance.choice(DECIDING))
        for number in range(self._chance.randrange(5)):
            self._plan_start(f"p{number}", self._chance.choice(PAYING))
        for number in range(self._chance.randrange(4)):
            self._plan_payment(f"t{number}", self._chance.choice(TRANSACTIONS))
        if self._chance.random() < SCHEDULED:
            self._plan_schedule("tick")

    def _when(self) -> float:
        """Most begin early, so that much goes wrong with them; some late, when not much else happens."""
        return self._chance.uniform(0.0, self._chance.choice((8.0, 8.0, self._world.faults_end - 1.0)))

    def _plan_start(self, key: str, name: str) -> None:
        chance, at, n = self._chance, self._when(), self._chance.randrange(4)
        for _ in range(1 if chance.random() < 0.6 else 2):
            when = at + chance.choice((0.0, 0.001, 1.0))
            self._world.agenda.at(when, lambda: self._ask(f"starts {name}({n}) as {key}", name, (n,), {"key": key}))
        if name in SWEPT and self._world.sweeping:
            self._world.agenda.at(
                at + AGAIN, lambda: self._ask(f"starts {name}({n}) as {key} again", name, (n,), {"key": key})
            )
        if name in LASTING or chance.random() < 0.2:
            self._plan_cancellation(key, at + chance.uniform(0.5, 10.0))

    def _plan_payment(self, key: str, name: str) -> None:
        """Let a transaction be called by several with one key, or by one without, or be started."""
        chance, at, purse, habit = self._chance, self._when(), self._chance.choice(PURSES), self._chance.choice(HABITS)
        keyed = chance.random() < 0.7
        for _ in range(chance.randrange(2, 5) if keyed else 1):
            when = at + chance.choice((0.0, 0.001, 0.01, 1.0))
            self._world.agenda.at(when, lambda: self._pay(name, key if keyed else None, purse, habit))
        if keyed and chance.random() < 0.2:
            self._world.agenda.at(at, lambda: self._ask(f"starts {name} as {key}", name, (purse, habit), {"key": key}))

    def _plan_line(self, key: str, queue: str) -> None:
        """Let several get in line at about the same time, and perhaps pause the queue for a while."""
        chance, at = self._chance, self._when()
        names = ("packed",) if chance.random() < PACKED else BRIEF
        for number in range(chance.randrange(3, 8)):
            name, n = chance.choice(names), chance.randrange(3)
            options: dict[str, Any] = {
                "key": f"{key}-{number}",
                "priority": chance.choice((0, 0, 1, -1)),
                "partition": chance.choice(("", "a", "b")),
                "delay": chance.choice((0.0, 0.0, 0.0, 1.5)),
            }
            if chance.random() < 0.3:
                options |= {"dedupe": key, "on_duplicate": chance.choice(("first", "replace"))}
            self._world.agenda.at(
                at + chance.choice((0.0, 0.001, 0.5, 2.0)),
                lambda name=name, n=n, options=options: self._ask(  # type: ignore[misc] # they are bound now
                    f"puts {name}({n}) as {options['key']} into {queue}", name, (n,), options, queue
                ),
            )
            if chance.random() < 0.1:
                self._plan_cancellation(f"{key}-{number}", at + chance.uniform(0.0, 5.0))
        if chance.random() < 0.3:
            paused = at + chance.uniform(0.0, 3.0)
            self._world.agenda.at(paused, lambda: self._change(SetQueue(queue, paused=True)))
            self._world.agenda.at(paused + 3.0, lambda: self._resume(queue))

    def _plan_schedule(self, name: str) -> None:
        """Let a schedule be made, perhaps changed, paused for a while, and deleted when all is calm."""
        chance, at, n = self._chance, self._chance.uniform(0.0, 5.0), self._chance.randrange(2)
        flow = chance.choice(("plain", "sleeper", "thinker"))
        catch_up: CatchUp = chance.choice(get_args(CatchUp))
        overlap: Overlap = chance.choice(get_args(Overlap))

        def make(seconds: int) -> None:
            self._schedule(
                f"schedules {flow} every {seconds} s",
                lambda engine: schedules.create(
                    engine,
                    Definition(name, f"*/{seconds} * * * * *", "UTC", catch_up, overlap, self._of(engine, flow), (n,)),
                    over=True,
                ),
            )

        self._world.agenda.at(at, lambda: make(3))
        if chance.random() < 0.3:
            self._world.agenda.at(at + chance.uniform(1.0, 10.0), lambda: make(4))
        if chance.random() < 0.4:
            paused = at + chance.uniform(1.0, 10.0)
            self._world.agenda.at(
                paused, lambda: self._schedule(f"pauses {name}", lambda it: schedules.pause(it, name))
            )
            self._world.agenda.at(
                paused + chance.choice((1.0, 7.0)),
                lambda: self._schedule(f"resumes {name}", lambda it: schedules.resume(it, name)),
            )
        self._world.agenda.at(self._world.faults_end + 4.0, lambda: self._forget(name))

    def _plan_cancellation(self, key: str, at: float) -> None:
        self._world.agenda.at(at, lambda: self._cancel(key))
        self._world.agenda.at(self._world.faults_end + 1.0, lambda: self._see_to_it(key))

    # ── Asking ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _ask(
        self, what: str, name: str, args: tuple[Any, ...], options: dict[str, Any], queue: str | None = None
    ) -> None:
        process = self._world.somebody()
        if process is None:
            self._world.agenda.after(1.0, lambda: self._ask(what, name, args, options, queue))
            return
        self._world.note(process, what)
        program = self._world.program(process.host)
        flow = program.flows[name].using(**options)
        starting = aio.start(flow, *args) if queue is None else aio.enqueue(program.queues[queue], flow, *args)
        process.spawn(self._asked(process, what, starting))

    def _pay(self, name: str, key: str | None, purse: str, habit: str) -> None:
        process = self._world.somebody()
        if process is not None:
            self._world.note(process, f"calls {name}({purse}) as {key}")
            verb = self._world.program(process.host).flows[name]
            process.spawn(self._paid(process, key, (verb if key is None else verb.using(key=key))(purse, habit)))

    async def _paid(self, process: Process, key: str | None, paying: Any) -> None:
        """Call a transaction; whoever has its key is told the same."""
        self.waiting.append(process)
        try:
            told = json.dumps(await paying)
        except REFUSALS as error:
            told = type(error).__name__
        except (StoreError, NotLaunched, WorkflowCancelled) as error:
            self._world.note(process, f"who calls {key} hears {type(error).__name__}")
            return
        except GeneratorExit:
            raise
        except BaseException as error:
            self._world.failures.append(error)
            return
        finally:
            self.waiting.remove(process)
        row = self._world.database.tables.workflows[key].row if key is not None else None
        if row is not None and (row.output != told if row.output is not None else told not in (row.error or "")):
            self._world.broke(LawBroken(f"Who called {key} was told {told}; recorded is {row.output or row.error}."))

    async def _asked(self, process: Process, what: str, starting: Any) -> None:
        """Start, and wait for the result; who has stood still meanwhile may find that the key was used anew."""
        tables = self._world.database.tables
        asked = tables.clock()
        try:
            handle = await starting
            there = tables.workflows.get(handle.id)
            if there is not None:
                self._world.laws.acknowledged[handle.id] = None
            self.waiting.append(process)
            try:
                value = await handle
            finally:
                self.waiting.remove(process)
            same = there is not None and there is tables.workflows.get(handle.id)
            if there is not None and same and there.row.created_at < asked + AGAIN / 2:
                self._compare(handle.id, value)
        except NotFound as error:
            self._deleted(process, what, error)
        except (StoreError, NotLaunched, WorkflowCancelled, WorkflowTimedOut, KeyConflict, *REFUSALS) as error:
            self._world.note(process, f"{what}, and hears {type(error).__name__}")
        except (GeneratorExit, StepFailed):
            raise
        except BaseException as error:
            self._world.failures.append(error)

    def _deleted(self, process: Process, what: str, error: NotFound) -> None:
        self._world.note(process, f"{what}, and hears {error}")
        if not self._world.sweeping:
            self._world.failures.append(error)

    def _compare(self, key: str, value: Any) -> None:
        row = self._world.database.tables.workflows[key].row
        recorded = json.loads(row.output or "null")
        if recorded != value and not row.erased:
            raise LawBroken(f"The client of {key} got {value!r}, and recorded is {recorded!r}.")

    # ── Cancelling, pausing ──────────────────────────────────────────────────────────────────────────────────────────

    def _see_to_it(self, key: str) -> None:
        """Cancel again and again, until it has ended; it may be started late."""
        if key in self._world.laws.stranded():
            self._cancel(key)
        self._world.agenda.after(5.0, lambda: self._see_to_it(key))

    def _cancel(self, key: str) -> None:
        """Cancel: half of the time where it runs, for there it is to stop at once."""
        at_home = [
            it for it in self._world.processes if it.alive and not it.paused and it.engine and key in it.engine.runs
        ]
        process = at_home[0] if at_home and self._chance.random() < 0.5 else self._world.somebody()
        if process is not None and process.engine is not None:
            self._world.note(process, f"cancels {key}")
            process.spawn(self._stopped(process, key))

    async def _stopped(self, process: Process, key: str) -> None:
        """Cancel; once that has returned, this process begins no further step of it."""
        assert process.engine is not None
        if await self.done(process, asking.cancel(process.engine, key)):
            self._world.laws.stopped(process.engine, key)

    def _change(self, command: SetQueue) -> None:
        process = self._world.somebody()
        if process is not None and process.engine is not None:
            self._world.note(process, f"{'pauses' if command.paused else 'resumes'} {command.name}")
            process.spawn(self.done(process, lines.change(process.engine, command)))

    def _schedule(self, what: str, change: Callable[[Engine], Any]) -> None:
        process = self._world.somebody()
        if process is not None and process.engine is not None:
            self._world.note(process, what)
            process.spawn(self.done(process, change(process.engine)))

    def _of(self, engine: Engine, flow: str) -> Any:
        """Find a workflow as an engine's app declares it."""
        home = next(it for it in self._world.processes if it.engine is engine)
        return self._world.program(home.host).flows[flow]

    def _forget(self, name: str) -> None:
        """Delete a schedule, again and again; it may be made late."""
        if name in self._world.database.tables.schedules:
            self._schedule(f"deletes {name}", lambda it: schedules.delete(it, name))
        self._world.agenda.after(3.0, lambda: self._forget(name))

    def _resume(self, queue: str) -> None:
        """Resume a queue, again and again: a pause may come late."""
        if self._world.database.tables.queues[queue].paused:
            self._change(SetQueue(queue, paused=False))
        self._world.agenda.after(3.0, lambda: self._resume(queue))

    async def done(self, process: Process, op: Any) -> bool:
        """Do something of an engine's in a process; whether it was done."""
        assert process.engine is not None
        try:
            await process.engine.adrive(op)
        except (StoreError, NotFound, NotLaunched) as error:
            self._world.note(process, f"hears {type(error).__name__}")
            return False
        return True
