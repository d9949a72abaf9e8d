"""What must hold after every event, whoever dies and whatever is lost; it judges, and must not change anything."""

from __future__ import annotations

from typing import Any

from operon.core.commands import Advance, Bury, Cancel, CleanUp, Command, Form, HandBack, Start
from operon.core.journal import Run
from operon.core.rows import Advanced, Entry, Guard, Kind, Outcome, WorkflowRow
from operon.core.states import MOVES, Status
from operon.errors import Cancelled, Suspended
from operon.stores.memory import Tables, Workflow
from operon.testing.simulate.process import DRIFT, LEASE, Process
from operon.testing.simulate.queue_laws import QueueLaws
from operon.testing.simulate.retention_laws import RetentionLaws
from operon.testing.simulate.schedule_laws import ScheduleLaws
from operon.testing.simulate.verdicts import LawBroken

EARLY = 2e-6 + DRIFT * 4 * LEASE
"""The store's clock is told to the microsecond, and whoever estimates it may not have heard of it for a while."""
WHOLE = {"plain", "retrying", "thinker", "sleeper", "late", "stubborn", "branches", "parent", "endless", "crowd"}
"""Of whom it is seen that their bodies come to their end."""
LEGAL = {(source, target) for sources, target in MOVES.values() for source in sources}


class Laws:
    """Watches one database, and what its workflows' bodies see."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._now = tables.clock
        self._queue_laws = QueueLaws(tables)
        self.schedule_laws = ScheduleLaws(tables)
        self._retention_laws = RetentionLaws(tables)
        self._rows: dict[str, WorkflowRow] = {}
        self._journals: dict[str, dict[str, Entry]] = {}
        self._leases: dict[int, tuple[bool, float]] = {}
        self._runs: dict[tuple[str, int], Run] = {}
        self._given: dict[tuple[str, int], dict[str, str]] = {}
        """What steps returned to the code, by run and position."""
        self._turns: dict[Run, int] = {}
        """The last ordinal that each run's body has seen."""
        self._naps: dict[Run, int] = {}
        """How often each run has slept."""
        self._stopped: set[tuple[int, str]] = set()
        """The engines that were told that a workflow is cancelled, and which."""
        self.acknowledged: dict[str, None] = {}
        """Starts that a client was told of."""
        self.whole: set[int] = set()
        """The nonces of those whose body came to its own end in some run."""
        self._tidy: set[int] = set()
        """Whose body has heard that it is cancelled, and come to its end."""
        self._told: set[tuple[object, int]] = set()
        """In which engine a body has heard of the end of its workflow and come to its own, by its nonce."""

    # ── After every commit ───────────────────────────────────────────────────────────────────────────────────────────

    def committed(self, process: Process, command: Command[Any], answer: Any) -> None:
        """Hold what a command did against the laws."""
        for key in [it for it in self._rows if it not in self._tables.workflows]:
            self._retention_laws.removed(self._rows[key], command)
            self._forget(key)
        begun: list[WorkflowRow] = []
        for workflow_id, workflow in self._tables.workflows.items():
            known = self._rows.get(workflow_id)
            changed = known is not workflow.row
            if changed and known is None:
                self._born(workflow.row, command)
            elif changed and known is not None:
                self._moved(process, known, workflow.row, command)
                if workflow.row.status is Status.RUNNING and known.status is not Status.RUNNING:
                    begun.append(workflow.row)
            if changed or len(workflow.journal) != len(self._journals.get(workflow_id, ())):
                self._kept(workflow_id, workflow)
        if isinstance(command, Advance) and isinstance(answer, Advanced) and answer.written:
            self._wrote(process, command)
        if isinstance(command, Cancel) and command.children:
            self._cancelled(command.workflow_id)
        self._buried(command)
        self.schedule_laws.committed(command, answer)
        for row in begun:
            self._queue_laws.began(row)
            self.schedule_laws.began(row)
        for row in begun:
            self._queue_laws.judge(row)
        self._rows = {key: it.row for key, it in self._tables.workflows.items()}

    def _forget(self, workflow_id: str) -> None:
        """Know nothing more of a workflow: the next one with its id is another."""
        del self._rows[workflow_id]
        self._journals.pop(workflow_id, None)
        self.acknowledged.pop(workflow_id, None)
        self._stopped = {it for it in self._stopped if it[1] != workflow_id}

    def _born(self, row: WorkflowRow, command: Command[Any]) -> None:
        guard = command.row.parent if isinstance(command, Start) else None
        parent = self._tables.workflows[guard.workflow_id].row if guard else None
        if guard and parent and (parent.status, parent.claim) != (Status.RUNNING, guard.claim):
            raise LawBroken(f"{row.id} was started under claim {guard.claim} by {parent.id}, {parent.status}.")
        if row.queue is not None and row.status is Status.RUNNING and not isinstance(command, Form):
            raise LawBroken(f"{row.id} passed by its queue {row.queue!r}.")
        live = (it.row for it in self._tables.workflows.values() if not it.row.status.ended)
        twins = [it.id for it in live if row.dedupe is not None and it.dedupe == row.dedupe]
        if len(twins) > 1:
            raise LawBroken(f"{twins} live, and all of them are {row.dedupe!r}.")

    def _moved(self, process: Process, old: WorkflowRow, new: WorkflowRow, command: Command[Any]) -> None:
        if self._retention_laws.erased(old, new, command):
            self._journals.pop(new.id, None)
            return
        if old.status.ended:
            raise LawBroken(f"{new.id} had ended, {old.status}, and is {new.status} after {command}.")
        if new.claim < old.claim:
            raise LawBroken(f"{new.id} went back to claim {new.claim}.")
        if new.status is not old.status and (old.status, new.status) not in LEGAL and not _packed(old, new, command):
            raise LawBroken(f"{new.id} went from {old.status} to {new.status} by {command}.")
        if new.status is Status.HELD:
            raise LawBroken(f"{new.id} is held: {new.error}")
        if new.status is Status.RUNNING and old.status is not Status.RUNNING and new.claim == old.claim:
            raise LawBroken(f"{new.id} was claimed twice under {new.claim}.")
        if new.status is Status.WAITING and old.status is Status.RUNNING:
            self._parked(new)
        run = process.engine.runs.get(new.id) if isinstance(command, HandBack) and process.engine else None
        if run is not None and run.dead is None and run.guard.claim == old.claim:
            raise LawBroken(f"{process} handed {new.id} back, and runs it.")
        left = old.status is Status.RUNNING and new.status is Status.QUEUED
        if left and old.executor not in process.executors:
            if self._leases.get(old.executor or 0, (False, 0.0))[0]:
                raise LawBroken(f"{process} took {new.id} from executor {old.executor}, which lives.")
            if new.claim == old.claim:
                raise LawBroken(f"{process} took {new.id} over, and left the dead their claim.")

    def _parked(self, row: WorkflowRow) -> None:
        """Who goes to sleep has something to wait for."""
        for target in self._tables.workflows[row.id].awaits:
            awaited = self._tables.workflows.get(target)
            if awaited is None or awaited.row.status.ended:
                raise LawBroken(f"{row.id} was parked to wait for {target}, which has ended.")

    def _kept(self, workflow_id: str, workflow: Workflow) -> None:
        """Records stay, word for word."""
        known = self._journals.setdefault(workflow_id, {})
        for position, entry in known.items():
            if workflow.journal.get(position) != entry:
                raise LawBroken(f"{workflow_id}: the record at {position} changed.")
        known.update(workflow.journal)

    def _wrote(self, process: Process, command: Advance) -> None:
        """Only the owner's writes count, and an end has all that came before it."""
        row = self._rows.get(command.workflow_id)
        if row is None or row.status is not Status.RUNNING or row.claim != command.claim:
            if not self._same(command):
                raise LawBroken(f"{process} wrote to {command.workflow_id} under claim {command.claim} without it.")
        elif row.executor not in process.executors:
            raise LawBroken(f"{process} wrote to {command.workflow_id}, which is executor {row.executor}'s.")
        if isinstance(command.end, Outcome) and not self._same(command) and not _is_late(command.end):
            self._durable(command.workflow_id, command.claim, "its end")

    def _same(self, command: Advance) -> bool:
        """Whether a command was repeated after it had come through."""
        row = self._tables.workflows[command.workflow_id].row
        return self._rows.get(command.workflow_id) is row

    def _cancelled(self, root: str) -> None:
        tree = [root]
        for workflow_id in tree:
            tree += [it.row.id for it in self._tables.workflows.values() if it.row.parent == workflow_id]
            workflow = self._tables.workflows.get(workflow_id)
            if workflow is not None and not workflow.row.status.ended:
                raise LawBroken(f"{root} was cancelled, and {workflow_id} below it is {workflow.row.status}.")

    def _buried(self, command: Command[Any]) -> None:
        for key, peer in self._tables.executors.items():
            alive, lease = self._leases.get(key, (True, peer.lease_until))
            if alive and not peer.alive and isinstance(command, Bury) and not command.proven and lease >= self._now():
                raise LawBroken(f"Executor {key} was declared dead {lease - self._now():.3f} s before its lease ended.")
            if peer.alive and not alive:
                raise LawBroken(f"Executor {key} came back from the dead.")
            self._leases[key] = peer.alive, peer.lease_until

    # ── What bodies see ──────────────────────────────────────────────────────────────────────────────────────────────

    def begins(self, run: Run, position: str) -> None:
        """See a step begin: its run is the only one of its claim, and what came before it is durable."""
        self._alive(run, position)
        if not self._there(run):
            return
        row = self._tables.workflows[run.id].row
        if row.status is Status.WAITING and row.claim == run.guard.claim:
            raise LawBroken(f"{run.id} is parked, and begins the step at {position}.")
        if run.dead is None and self._runs.setdefault((run.id, run.guard.claim), run) is not run:
            raise LawBroken(f"{run.id} runs twice under claim {run.guard.claim}.")
        if not self._owns(run):
            return
        if position in self._tables.workflows[run.id].journal:
            raise LawBroken(f"{run.id}: the step at {position} is recorded, and began again.")
        self._durable(run.id, run.guard.claim, f"the step at {position}", position.rpartition("/")[0])

    def transacts(self, run: Run, position: str) -> None:
        """See a transaction's code begin, perhaps not for the first time: likewise."""
        self._alive(run, position)
        if self._owns(run):
            self._durable(run.id, run.guard.claim, f"the transaction at {position}", position.rpartition("/")[0])

    def _alive(self, run: Run, position: str) -> None:
        if isinstance(run.dead, Suspended):
            raise LawBroken(f"{run.id} was left, {run.dead}, and begins what is at {position}.")
        if run.dead is None and (id(run.host), run.id) in self._stopped:
            raise LawBroken(f"{run.id} was cancelled here, and begins what is at {position}.")

    def stopped(self, engine: object, workflow_id: str) -> None:
        """See a cancellation return: from here on this process begins nothing more of the workflow but its clean-up."""
        there = self._tables.workflows.get(workflow_id)
        if there is not None and there.row.status is Status.CANCELLED:
            self._stopped.add((id(engine), workflow_id))

    def sees(self, run: Run, position: str, value: str) -> None:
        """See a step's value arrive in the body: it is what the journal says, or will say."""
        if not self._there(run):
            return
        workflow = self._tables.workflows[run.id]
        entry = workflow.journal.get(position)
        if entry is not None and workflow.claims[position] > run.guard.claim:
            return  # an heir did it anew, and this run is to be told
        if self._owns(run) and entry is not None and entry.output != f'"{value}"':
            raise LawBroken(f"{run.id}: the body sees {value} at {position}, and the journal says {entry.output}.")
        if entry is not None:
            if entry.ordinal < self._turns.get(run, 0):
                raise LawBroken(f"{run.id}: the body sees {value} out of its turn.")
            self._turns[run] = entry.ordinal
        if entry is None:
            self._given.setdefault((run.id, run.guard.claim), {})[position] = value

    def ended(self, run: Run) -> None:
        """See a body come to its own end; a clean-up that was its process's to do, that does not do again."""
        self.whole.add(run.row.nonce)
        cleanup = self._tables.workflows[run.id].cleanup if self._there(run) else None
        executor = run.host.executor
        if isinstance(run.dead, Cancelled) and (peer := self._tables.executors.get(executor)) and peer.alive:
            self._tidy.add(run.row.nonce)
        if isinstance(run.dead, Cancelled) and cleanup is not None and cleanup.cleaner == executor:
            if (told := (run.host, run.row.nonce)) in self._told:
                raise LawBroken(f"{run.id} has cleaned up twice in one process.")
            self._told.add(told)

    def hears(self, run: Run, child: str) -> None:
        """See a body hear that its child was cancelled: if it was itself, it hears of that."""
        journal = self._tables.workflows[run.id].journal if self._there(run) else {}
        if journal and not any(it.kind is Kind.RESULT and it.child == child for it in journal.values()):
            raise LawBroken(f"{run.id} hears that {child} was cancelled, and that is not recorded.")

    def rested(self, run: Run) -> None:
        """See a body go on after it did something of its own for a while: what came before was written meanwhile."""
        if self._owns(run):
            self._durable(run.id, run.guard.claim, "the body went on for a second")

    def woke(self, run: Run) -> None:
        """See a sleep end: not before its time by the store's clock."""
        if not self._there(run):
            return
        nap = self._naps[run] = self._naps.get(run, 0) + 1
        sleeps = [it for it in self._tables.workflows[run.id].journal.values() if it.kind is Kind.SLEEP]
        until = sorted((it.ordinal, float(it.output or 0)) for it in sleeps)[nap - 1][1]
        if self._owns(run) and self._now() < until - EARLY:
            raise LawBroken(f"{run.id} woke {until - self._now():.3f} s too early.")

    def _there(self, run: Run) -> bool:
        """Whether the record of its workflow is there, and not that of a later one, or only a key."""
        there = self._tables.workflows.get(run.id)
        return there is not None and there.row.nonce == run.row.nonce and not there.row.erased

    def _owns(self, run: Run) -> bool:
        if not self._there(run):
            return False
        row = self._tables.workflows[run.id].row
        return row.status is Status.RUNNING and row.claim == run.guard.claim

    def _durable(self, workflow_id: str, claim: int, before: str, branch: str = "") -> None:
        """Hold what the code was given against what is recorded."""
        journal = self._tables.workflows[workflow_id].journal
        given = self._given.get((workflow_id, claim), {})
        for position, value in tuple(given.items()):
            if not position.startswith(branch):
                continue
            entry = journal.get(position)
            if entry is None:
                raise LawBroken(f"{workflow_id}: {value} at {position} is not durable before {before}.")
            if entry.output != f'"{value}"':
                raise LawBroken(f"{workflow_id}: the code was given {value} at {position}, recorded is {entry.output}.")
            del given[position]

    # ── At the end ───────────────────────────────────────────────────────────────────────────────────────────────────

    def concluded(self) -> None:
        """See to it that everything ended, and that parents and children agree."""
        for workflow_id in self.acknowledged:
            if workflow_id not in self._tables.workflows:
                raise LawBroken(f"The start of {workflow_id} was acknowledged, and it is not there.")
        for workflow_id, workflow in self._tables.workflows.items():
            if not workflow.row.status.ended:
                raise LawBroken(f"{workflow_id} is stranded: {workflow.row.status}, executor {workflow.row.executor}.")
            self._heard(workflow)
            for entry in workflow.journal.values():
                if entry.kind is Kind.START and entry.child not in self._tables.workflows:
                    raise LawBroken(f"{workflow_id} recorded the start of {entry.child}, which is not there.")

    def _heard(self, workflow: Workflow) -> None:
        """Who had begun and was cancelled, or passed a deadline, has heard of it and cleaned up."""
        row, cleanup = workflow.row, workflow.cleanup
        stopped = row.status is Status.CANCELLED or _is_late(Outcome(row.status, error=row.error))
        given_up = cleanup is not None and not cleanup.open(self._now())
        if stopped and workflow.journal and row.name in WHOLE and row.nonce not in self.whole and not given_up:
            raise LawBroken(f"{row.id} ({row.name}) ended as {row.status}, and its body never came to hear of it.")

    def once(self, command: Command[Any], answer: Any) -> None:
        """See a clean-up taken, where nothing dies nor is lost: its body has not cleaned up already.

        A process that is buried while it lives may have cleaned up what is taken again: nobody can know.
        """
        if isinstance(command, Bury) and answer:
            self._tidy.clear()
        for it in answer if isinstance(command, CleanUp) else ():
            if it.row.nonce in self._tidy and it.row.name in WHOLE:
                raise LawBroken(f"{it.row.id} has cleaned up, and is to do so again.")

    def stranded(self) -> tuple[str, ...]:
        """What has not ended, or not cleaned up."""
        now = self._now()
        return tuple(
            key
            for key, it in self._tables.workflows.items()
            if not it.row.status.ended or (it.cleanup is not None and it.cleanup.open(now) and not it.row.erased)
        )


def _packed(old: WorkflowRow, new: WorkflowRow, command: Command[Any]) -> bool:
    """Whether it is an item that joins a batch, or ends with it."""
    if isinstance(command, Form):
        return (old.status, new.status) == (Status.QUEUED, Status.WAITING)
    end = command.end if isinstance(command, Advance) else None
    shares = end.shares if isinstance(end, Outcome) else ()
    return old.status is Status.WAITING and any(it.item == Guard(old.id, old.claim) for it in shares)


def _is_late(end: Outcome) -> bool:
    """Whether it is a deadline's word, which comes while the code goes on, and says nothing of it."""
    return "WorkflowTimedOut" in (end.error or "")
