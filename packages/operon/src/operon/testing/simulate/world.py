"""One simulated world: a database, some hosts, clients, faults; made of a seed, and the same each time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any, Literal

from operon.core.commands import Command
from operon.core.journal import Run
from operon.engine.retention import Retention
from operon.engine.settings import Settings
from operon.testing.simulate import faults, locks
from operon.testing.simulate.batch_laws import BatchLaws
from operon.testing.simulate.clients import Clients
from operon.testing.simulate.complaints import Complaints
from operon.testing.simulate.database import Database
from operon.testing.simulate.datasource import Source
from operon.testing.simulate.process import LEASE, POISON, Process
from operon.testing.simulate.programs import Program
from operon.testing.simulate.retention_laws import SETTINGS, SWEPT
from operon.testing.simulate.schedule import Agenda
from operon.testing.simulate.trace import nth, told
from operon.testing.simulate.transaction_laws import TransactionLaws
from operon.testing.simulate.user_tables import UserTables
from operon.testing.simulate.verdicts import LawBroken
from operon.testing.simulate.wire import Wire

HOSTS = 4
"""The last one runs nothing: it only asks."""
FAULTS_END = 20.0
"""Seconds after which nothing goes wrong any more."""
LONGEST = 9.0
"""Seconds that a process stands still at most."""
PATIENCE = 100.0
"""Seconds after which whatever has not ended is stranded."""
SWEEPING = 0.25
"""In how many worlds records are deleted."""
EVENTS = 50_000
"""More than any world has that does not spin."""


class World:
    """Everything there is; `run` lets it happen.

    Args:
        seed: what it is made of.
        trace: whether to keep a line of each thing that happens, in `trace`.
        moment: counts the commands that come to the database, and the answers that leave it; at this one something
            happens to the process whose command it is.
        then: what happens to it.
    """

    def __init__(
        self, seed: int, *, trace: bool = False, moment: int | None = None, then: Literal["dies", "pauses"] = "dies"
    ) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.agenda = Agenda(Random(self.random.getrandbits(64)))
        self.faults_end = FAULTS_END
        self._then = then
        self.failures: list[BaseException] = []
        self.database = Database(self.agenda, self, moment)
        self.laws = self.database.laws
        self.here, self.elsewhere = UserTables(self.database), UserTables(self.database)
        self.transaction_laws = TransactionLaws(self.database.tables, self.here, self.elsewhere)
        self.clients = Clients(self, Random(self.random.getrandbits(64)))
        self.processes: list[Process] = []
        self.trace: list[str] | None = [] if trace else None
        self.events = 0
        self._effects = 0
        kind = self.random.choices((faults.delays, faults.losses, faults.crashes), (1, 2, 2))[0]
        self.calm = kind is faults.delays
        self._quiet = self.calm and moment is None
        self.faults = kind(self.random)
        self._grace = self.random.choice((0.05, 1.0)) if kind is faults.crashes else 1.0
        self.sweeping = Random(f"sweeps {seed}").random() < SWEEPING
        """Old records, and keys, are deleted."""
        self._only = [None, *(self.random.choice((None, None, ("narrow", "paced"))) for _ in range(HOSTS - 1))]

    # ── Life ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Let everything happen until all has ended.

        Raises:
            LawBroken: what must never be.
        """
        with Complaints(self.failures):
            try:
                for host in range(HOSTS):
                    self._boot(host)
                self._plan()
                while self._step():
                    if self.failures:
                        raise self.failures[0]
                self.laws.concluded()
                self.transaction_laws.concluded()
                BatchLaws(self.database.tables).concluded()
            finally:
                for process in self.processes:
                    process.end()

    def _boot(self, host: int) -> None:
        process = Process(self.agenda, host, len(self.processes) + 1, self.random.getrandbits(64))
        self.processes.append(process)
        program = self.program(host)
        program.watched_by = self
        settings = Settings(grace=self._grace, ttl=LEASE, poison=POISON, run=host < HOSTS - 1, only=self._only[host])
        wire = Wire(self.database, process, self)
        program.app.sources = {
            None: Source(self.here, process, wire, main=True),
            "bank": Source(self.elsewhere, process, wire, main=False),
        }
        process.launch(program.app, wire, settings)
        self.note(process, "boots")

    def program(self, host: int) -> Program:
        """The app of a host; a process that boots there runs it anew."""
        return programs()[host]

    def _step(self) -> bool:
        possible = self.agenda.possible()
        for process in self.processes:
            if process.alive and not process.paused:
                possible += [loop.step for loop in (process.body, process.service) if loop.ready]
        if possible:
            self.events += 1
            if self.events > EVENTS:
                raise LawBroken(f"Something spins: {EVENTS} events, and it is {self.agenda.now:.3f}.")
            self.random.choice(possible)()
            return True
        return not self._over() and self.agenda.skip()

    def _over(self) -> bool:
        if self.agenda.now <= FAULTS_END:
            return False
        stranded, waiting = self.laws.stranded(), [str(it) for it in self.clients.waiting if it.alive]
        if not stranded and not waiting and not self.database.tables.schedules:
            return True
        if self.agenda.now > PATIENCE:
            raise LawBroken(f"After {PATIENCE} s, {stranded} have not ended, and clients in {waiting} wait.")
        return False

    # ── What goes wrong ──────────────────────────────────────────────────────────────────────────────────────────────

    def _plan(self) -> None:
        self.database.faults = self.faults
        if not self.calm:
            for _ in range(self.random.randrange(4)):
                self.agenda.at(self.random.uniform(0.1, FAULTS_END - 1.0), self._accident)
        for _ in range(self.random.randrange(3)):
            self.agenda.at(self.random.uniform(0.5, FAULTS_END - 2 * locks.LONG), self._lock)
        self.agenda.at(FAULTS_END, self._end_faults)
        self.clients.plan()
        if self.sweeping:
            self.agenda.at(1.0, self._sweep)

    def _end_faults(self) -> None:
        self.database.faults = faults.remaining(self.faults)
        self.note(None, "the faults end")

    def _accident(self) -> None:
        """Let a process die, or stand still, or the database be out of reach, or its clock jump."""
        living = [it for it in self.processes if it.alive]
        if not living:
            return
        victim = self.random.choice(living)
        what = self.random.choices(("death", "pause", "outage", "jump", "standby"), (4, 4, 1, 1, 1))[0]
        if what == "death":
            self.kill(victim)
        elif what == "pause":
            self.pause(victim)
        elif what == "outage":
            self.note(None, "the database is out of reach")
            self.faults.unreachable = True
            self.agenda.after(self.random.choice((1.0, 7.0)), self._back)
        elif what == "standby":
            self.note(None, "transactions find a database that is read-only")
            self.faults.standby = True
            self.agenda.after(self.random.choice((1.0, 7.0)), self._back)
        else:
            self.note(None, "the database's clock jumps")
            self.database.tables.clock.advance(self.random.choice((1.0, 10.0)))

    def _back(self) -> None:
        self.faults.unreachable = self.faults.standby = False
        self.note(None, "the database is back")

    def _sweep(self) -> None:
        """Let a process delete what is past its time, beside whoever does so too."""
        process = self.somebody()
        if process is not None and process.engine is not None and process.host < HOSTS - 1:
            functions = process.engine.program.functions
            retention = Retention(lambda: {name: functions[name] for name in SWEPT}, SETTINGS)
            self.note(process, "sweeps")
            process.spawn(self.clients.done(process, retention.tick(0.0)))
        if self.agenda.now < FAULTS_END + 10.0:
            self.agenda.after(0.5, self._sweep)

    def _lock(self) -> None:
        """Let somebody keep the row of a workflow locked, or of an executor."""
        tables, held = self.database.tables, self.database.locks.held
        rows: list[str | int] = [key for key, it in tables.workflows.items() if not it.row.status.ended]
        key = self.random.choice([*rows, *tables.executors] or [""])
        self.note(None, f"somebody locks {key}")
        held.add(key)
        self.agenda.after(locks.LONG, lambda: self._unlock(key))

    def _unlock(self, key: str | int) -> None:
        if self.calm:
            self._judge(self.database.locks.judge)
        self.database.locks.release(key)
        self.note(None, f"the lock on {key} is gone")

    def kill(self, process: Process) -> None:
        """Let a process end at once; another one takes its place after a while, or never does."""
        if process.alive:
            process.die()
            self.note(process, "dies")
            if process.host == 0 or self.random.random() < 0.7:
                self.agenda.after(self.random.choice((0.1, 3.0, 12.0)), lambda: self._boot(process.host))

    def strike(self, process: Process) -> None:
        """Do to a process what was to be done at the chosen moment."""
        self.kill(process) if self._then == "dies" else self.pause(process)

    def pause(self, process: Process) -> None:
        """Let a process stand still for a while, perhaps for longer than its lease; its clock may stand still, too."""
        if process.alive and not process.paused:
            process.paused = True
            self.note(process, "pauses")
            seconds, asleep = self.random.choice((0.5, 6.0, LONGEST)), self.random.random() < 0.3
            self.agenda.after(seconds, lambda: self._resume(process, seconds if asleep else 0.0))

    def _resume(self, process: Process, asleep: float) -> None:
        process.resume(asleep)
        self.note(process, "goes on")

    def somebody(self) -> Process | None:
        """A process that can be asked something."""
        there = [it for it in self.processes if it.alive and not it.paused]
        return self.random.choice(there) if there else None

    # ── What is seen ─────────────────────────────────────────────────────────────────────────────────────────────────

    def saw(self, process: Process, command: Command[Any], answer: Any) -> None:
        """See a commit."""
        if self.trace is not None:
            self.note(process, f"{told(command)} -> {told(answer)}")
        if self._quiet:
            self._judge(self.laws.schedule_laws.prompt)
            self._judge(lambda: self.laws.once(command, answer))

    def broke(self, error: LawBroken) -> None:
        """See a law broken; it is raised when what happens now has happened."""
        self.failures.append(error)

    def chance(self, run: Run) -> float:
        """How long a step takes."""
        del run
        return self.agenda.random.choice((0.0, 0.0, 0.005, 0.3))

    def begins(self, run: Run, position: str) -> str:
        """See a step begin."""
        self._effects += 1
        self.note(None, f"{run.id}/{nth(run.guard.claim)} begins {position}")
        self._judge(lambda: self.laws.begins(run, position))
        return f"{position}:{self._effects}"

    def transacts(self, run: Run | None, key: str) -> str:
        """See a transaction's code run."""
        self._effects += 1
        position = key.partition(":")[2]
        self.note(None, f"{key} is transacted")
        if run is not None:
            self._judge(lambda: self.laws.transacts(run, position))
        return f"{position}:{self._effects}"

    def sees(self, run: Run, value: str) -> str:
        """See a value arrive in a body."""
        self._judge(lambda: self.laws.sees(run, value.partition(":")[0], value))
        return value

    def woke(self, run: Run) -> None:
        """See a sleep end."""
        self._judge(lambda: self.laws.woke(run))

    def rested(self, run: Run) -> None:
        """See a body go on."""
        prompt = self._quiet or self.agenda.now > FAULTS_END + LONGEST + 1.0
        if prompt and run.id not in self.database.locks.held:
            self._judge(lambda: self.laws.rested(run))

    def ended(self, run: Run) -> None:
        """See a body come to its own end."""
        self._judge(lambda: self.laws.ended(run))

    def hears(self, run: Run, child: str) -> None:
        """See a body hear of a child."""
        self._judge(lambda: self.laws.hears(run, child))

    def _judge(self, law: Callable[[], None]) -> None:
        """Keep what is broken: an engine would take it for the body's own failure."""
        try:
            law()
        except LawBroken as error:
            self.broke(error)

    def note(self, process: Process | None, what: str) -> None:
        """Write a line of the trace."""
        if self.trace is not None:
            self.trace.append(f"{self.agenda.now:12.6f} {process or 'world'!s:9} {what}")


@cache
def programs() -> tuple[Program, ...]:
    """One app a host, declared once."""
    return tuple(Program() for _ in range(HOSTS))
