"""Bugs that an engine or a store might have, each planted by a few lines; every one must be found by some seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from operon.core import asking, firing, rows, steps
from operon.core import commands as c
from operon.core.commands import Op, ask
from operon.core.journal import WAKE, Run
from operon.core.ledger import Done, Ledger, Work
from operon.core.rows import Advanced, Claimed, Entry, Guard, Kind, Outcome, Park, Pulse, Started
from operon.core.states import Status
from operon.core.transactions import AloneLedger, StepLedger
from operon.datasources.faults import Fault
from operon.datasources.foreign import Foreign
from operon.datasources.transact import Attempt, Stage
from operon.engine.cleaning import Cleaning
from operon.engine.engine import Engine
from operon.engine.executor import Executor
from operon.engine.recorder import Recorder, Recorders
from operon.engine.timers import BodyTimers
from operon.engine.waits import Waits
from operon.stores.memory import (
    Tables,
    Workflow,
    advancing,
    batches,
    claiming,
    cleaning,
    executors,
    queues,
    retention,
    schedules,
    starting,
)
from operon.stores.memory import store as memory
from operon.stores.memory.tables import Queue
from operon.testing.simulate.datasource import Simulated
from operon.testing.simulate.locks import Locks

Plant = Callable[[pytest.MonkeyPatch], None]
MUTANTS: dict[str, Plant] = {}


def mutant(plant: Plant) -> Plant:
    MUTANTS[plant.__name__] = plant
    return plant


def command(patch: pytest.MonkeyPatch, kind: type[c.Command[Any]], answer: Callable[[Tables, Any], Any]) -> None:
    """Let the store answer a command otherwise."""
    answers: Mapping[type[c.Command[Any]], Any] = {**memory.ANSWERS, kind: answer}
    patch.setattr(memory, "ANSWERS", answers)


# ── The store ────────────────────────────────────────────────────────────────────────────────────────────────────────


@mutant
def the_fence_is_dropped(patch: pytest.MonkeyPatch) -> None:
    def holds(tables: Tables, guard: Guard) -> bool:
        return guard.workflow_id in tables.workflows and not tables.workflows[guard.workflow_id].row.status.ended

    patch.setattr(Tables, "holds", holds)


@mutant
def an_ended_workflow_is_written_to(patch: pytest.MonkeyPatch) -> None:
    def holds(tables: Tables, guard: Guard) -> bool:
        return guard.workflow_id in tables.workflows

    patch.setattr(Tables, "holds", holds)


@mutant
def the_last_writer_wins(patch: pytest.MonkeyPatch) -> None:
    def advance(tables: Tables, it: c.Advance) -> Advanced:
        row = tables.workflows[it.workflow_id].row
        if row.status is Status.RUNNING and row.claim != it.claim and it.entries:
            for entry in it.entries:
                tables.workflows[it.workflow_id].journal[entry.position] = advancing._recorded(entry, tables.clock())
                tables.workflows[it.workflow_id].claims[entry.position] = it.claim
            return Advanced(written=False)
        return advancing.advance(tables, it)

    command(patch, c.Advance, advance)


@mutant
def a_takeover_leaves_the_claim(patch: pytest.MonkeyPatch) -> None:
    def take_over(tables: Tables, it: c.TakeOver) -> int:
        before = {key: found.row for key, found in tables.workflows.items()}
        taken = executors.take_over(tables, it)
        for key, found in tables.workflows.items():
            if found.row is not before[key]:
                found.row = replace(found.row, claim=before[key].claim)
        return taken

    command(patch, c.TakeOver, take_over)


@mutant
def a_lease_is_checked_by_another_clock(patch: pytest.MonkeyPatch) -> None:
    def beat(tables: Tables, it: c.Beat) -> Pulse:
        pulse, late = executors.beat(tables, it), tables.clock() + 4.5
        expired = tuple((p.id, p.beat) for p in tables.executors.values() if p.alive and p.lease_until < late)
        return replace(pulse, expired=expired)

    def bury(tables: Tables, it: c.Bury) -> int:
        late = tables.clock() + 4.5
        seen = [peer for key, beat in it.seen if (peer := tables.executors.get(key)) and peer.beat == beat]
        dead = [peer for peer in seen if peer.alive and (it.proven or peer.lease_until < late)]
        tables.executors |= {peer.id: replace(peer, alive=False) for peer in dead}
        return len(dead)

    command(patch, c.Beat, beat)
    command(patch, c.Bury, bury)


@mutant
def a_wake_is_lost(patch: pytest.MonkeyPatch) -> None:
    def is_stirred(tables: Tables, workflow: Workflow, targets: tuple[str, ...] | None) -> bool:
        return False

    patch.setattr(claiming, "is_stirred", is_stirred)


@mutant
def a_nonce_is_ignored(patch: pytest.MonkeyPatch) -> None:
    def start(tables: Tables, it: c.Start) -> Started:
        answer = starting.start(tables, it)
        return answer if answer.refused else replace(answer, created=True)

    def before_claims(_nonce: int) -> int:
        return 0  # or else the second would be fenced

    command(patch, c.Start, start)
    patch.setattr(rows, "before_claims", before_claims)


@mutant
def a_cancellation_does_not_reach_children(patch: pytest.MonkeyPatch) -> None:
    command(patch, c.Cancel, lambda tables, it: starting.cancel(tables, replace(it, children=False)))


@mutant
def a_cancelled_owner_is_not_fenced(patch: pytest.MonkeyPatch) -> None:
    def end(workflow: Workflow, outcome: Outcome, now: float) -> None:
        if not workflow.row.status.ended or outcome.status is not Status.CANCELLED:
            ended(workflow, outcome, now)

    def holds(tables: Tables, guard: Guard) -> bool:
        if right(tables, guard):
            return True
        found = tables.workflows.get(guard.workflow_id)
        return found is not None and found.row.claim in (guard.claim, guard.claim + 1) and found.row.executor is None

    ended, right = Workflow.end, Tables.holds
    patch.setattr(Workflow, "end", end)
    patch.setattr(Tables, "holds", holds)


@mutant
def a_claim_takes_what_runs(patch: pytest.MonkeyPatch) -> None:
    def claim(tables: Tables, it: c.Claim) -> Any:
        claimed = claiming.claim(tables, it)
        for row in (one.row for one in claimed):
            tables.workflows[row.id].row = replace(row, status=Status.QUEUED, ready_at=tables.clock(), executor=None)
        return claimed

    command(patch, c.Claim, claim)


@mutant
def a_claim_has_no_number_of_its_own(patch: pytest.MonkeyPatch) -> None:
    def claim(tables: Tables, it: c.Claim) -> Any:
        claimed: list[Claimed] = []
        for one in claiming.claim(tables, it):
            there = tables.workflows[one.row.id]
            there.row = replace(one.row, claim=max(1, one.row.claim - 1))
            claimed.append(replace(one, row=there.row))
        return tuple(claimed)

    command(patch, c.Claim, claim)


@mutant
def nobody_is_told_what_is_due(patch: pytest.MonkeyPatch) -> None:
    command(patch, c.Beat, lambda tables, it: replace(executors.beat(tables, it), due=None))


@mutant
def the_dead_keep_what_they_held(patch: pytest.MonkeyPatch) -> None:
    command(patch, c.TakeOver, lambda tables, it: 0)


@mutant
def a_parent_that_was_taken_over_starts_children(patch: pytest.MonkeyPatch) -> None:
    def start(tables: Tables, it: c.Start) -> Started:
        guard = it.row.parent
        parent = None if guard is None else tables.workflows.get(guard.workflow_id)
        if parent is None or guard is None or parent.row.status.ended:
            return starting.start(tables, it)
        there = parent.row
        parent.row = replace(there, status=Status.RUNNING, claim=guard.claim)
        try:
            return starting.start(tables, it)
        finally:
            parent.row = there

    command(patch, c.Start, start)


@mutant
def a_park_does_not_look_whether_it_is_over(patch: pytest.MonkeyPatch) -> None:
    def park(tables: Tables, workflow: Workflow, park: Park) -> bool:
        workflow.row = replace(workflow.row, status=Status.WAITING, executor=None, ready_at=park.ready_at)
        workflow.awaits = park.awaits
        return True

    patch.setattr(advancing, "_park", park)


@mutant
def a_record_is_written_over(patch: pytest.MonkeyPatch) -> None:
    def advance(tables: Tables, it: c.Advance) -> Advanced:
        if tables.holds(Guard(it.workflow_id, it.claim)):
            for entry in it.entries:
                tables.workflows[it.workflow_id].journal.pop(entry.position, None)
        return advancing.advance(tables, it)

    command(patch, c.Advance, advance)


@mutant
def a_key_is_taken_twice(patch: pytest.MonkeyPatch) -> None:
    def start(tables: Tables, it: c.Start) -> Started:
        there = tables.workflows.get(it.row.id)
        if there is not None and there.row.status.ended and there.row.nonce != it.row.nonce:
            del tables.workflows[it.row.id]
        return starting.start(tables, it)

    command(patch, c.Start, start)


@mutant
def one_that_is_lost_takes_all_back(patch: pytest.MonkeyPatch) -> None:
    command(patch, c.HandBack, lambda tables, it: claiming.hand_back(tables, replace(it, guards=None)))


# ── Queues ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def unlimited(patch: pytest.MonkeyPatch, **none: None) -> None:
    """Let the store forget some limits when it counts how much room there is."""
    room, partition_room = queues._room, queues._partition_room

    def forgetful(queue: Queue) -> Queue:
        return Queue(queue.name, queue.app, replace(queue.limits, **none), queue.seed, admitted=queue.admitted)

    def roomy(queue: Queue, mine: Sequence[Workflow], executor: int, now: float) -> int:
        return room(forgetful(queue), mine, executor, now)

    def partition_roomy(queue: Queue, name: str, mine: Sequence[Workflow], now: float) -> int:
        return partition_room(forgetful(queue), name, mine, now)

    patch.setattr(queues, "_room", roomy)
    patch.setattr(queues, "_partition_room", partition_roomy)


@mutant
def a_concurrency_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    unlimited(patch, concurrency=None)


@mutant
def a_workers_concurrency_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    unlimited(patch, worker_concurrency=None)


@mutant
def a_partition_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    unlimited(patch, partition_concurrency=None)


@mutant
def what_was_let_run_is_not_noted(patch: pytest.MonkeyPatch) -> None:
    def prune(queue: Queue, now: float) -> None:
        queue.admitted.clear()

    patch.setattr(queues, "_prune", prune)


@mutant
def a_window_opens_too_early(patch: pytest.MonkeyPatch) -> None:
    prune = queues._prune

    def early(queue: Queue, now: float) -> None:
        prune(queue, now + 0.05)

    patch.setattr(queues, "_prune", early)


@mutant
def a_paused_queue_goes_on(patch: pytest.MonkeyPatch) -> None:
    def admit(tables: Tables, it: c.Claim, room: int, now: float) -> list[Workflow]:
        paused = [queue for queue in tables.queues.values() if queue.paused]
        for queue in paused:
            queue.paused = False
        try:
            return right(tables, it, room, now)
        finally:
            for queue in paused:
                queue.paused = True

    right = queues.admit
    patch.setattr(queues, "admit", admit)


@mutant
def who_is_in_line_is_claimed_like_everybody(patch: pytest.MonkeyPatch) -> None:
    def claim(tables: Tables, it: c.Claim) -> Any:
        lined = {key: found.row.queue for key, found in tables.workflows.items() if queues.in_line(found.row)}
        for key in lined:
            tables.workflows[key].row = replace(tables.workflows[key].row, queue=None, ready_at=tables.clock())
        rows = claiming.claim(tables, it)
        for key, queue in lined.items():
            tables.workflows[key].row = replace(tables.workflows[key].row, queue=queue)
        return rows

    command(patch, c.Claim, claim)


@mutant
def nobody_is_told_of_a_line(patch: pytest.MonkeyPatch) -> None:
    command(patch, c.Beat, lambda tables, it: replace(executors.beat(tables, it), lined=False))


@mutant
def a_dedupe_is_not_looked_for(patch: pytest.MonkeyPatch) -> None:
    def holder(tables: Tables, dedupe: str | None) -> None:
        return None

    patch.setattr(starting, "_holder", holder)


# ── The engine ───────────────────────────────────────────────────────────────────────────────────────────────────────


@mutant
def what_is_pending_is_not_flushed_before_the_next_step(patch: pytest.MonkeyPatch) -> None:
    def settle(run: Run) -> Op[None]:
        run.check()
        yield from ()

    patch.setattr(steps, "settle", settle)


@mutant
def an_outcome_goes_without_its_last_record(patch: pytest.MonkeyPatch) -> None:
    take = Recorder._take

    def without(self: Recorder, trip: Any) -> c.Advance:
        it = take(self, trip)
        return replace(it, entries=()) if isinstance(it.end, Outcome) else it

    patch.setattr(Recorder, "_take", without)


@mutant
def a_step_is_answered_before_its_commit(patch: pytest.MonkeyPatch) -> None:
    launch = Recorder._send

    def early(self: Recorder, trip: Any, it: c.Advance) -> None:
        if it.end is not None or any(entry.after is not None for entry in it.entries):
            launch(self, trip, it)
        else:
            launch(self, type(trip)(), it)
            trip.set_result(Advanced(written=True))

    patch.setattr(Recorder, "_send", early)


@mutant
def two_commits_are_swapped(patch: pytest.MonkeyPatch) -> None:
    take = Recorder._take
    held: dict[Recorder, tuple[Entry, ...]] = {}

    def swapped(self: Recorder, trip: Any) -> c.Advance:
        it = take(self, trip)
        if it.end is not None or any(entry.after is not None for entry in it.entries):
            return it
        before = held.pop(self, None)
        held[self] = it.entries
        return replace(it, entries=before or ())

    patch.setattr(Recorder, "_take", swapped)


@mutant
def the_dead_flag_is_ignored(patch: pytest.MonkeyPatch) -> None:
    def check(self: Run) -> None: ...

    def abandon(self: Waits, run: Run, cause: BaseException, **_: Any) -> None: ...

    patch.setattr(Run, "check", check)
    patch.setattr(Waits, "abandon", abandon)


@mutant
def lost_claims_are_not_reconciled(patch: pytest.MonkeyPatch) -> None:
    def reconcile(self: Executor, pulse: Pulse) -> Op[None]:
        yield from ()

    patch.setattr(Executor, "_reconcile", reconcile)


@mutant
def what_runs_is_handed_back(patch: pytest.MonkeyPatch) -> None:
    def reconcile(self: Executor, pulse: Pulse) -> Op[None]:
        rows = yield from ask(c.Running(self.id))
        if rows:
            yield from self.hand_back(*(Guard(row.id, row.claim) for row in rows))

    patch.setattr(Executor, "_reconcile", reconcile)


@mutant
def lingering_entries_are_dropped(patch: pytest.MonkeyPatch) -> None:
    def linger(self: Recorders, run: Run) -> None: ...

    patch.setattr(Recorders, "linger", linger)


@mutant
def a_parked_deadline_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    def park(self: Engine, run: Run, it: Park) -> Any:
        return self.recorders.of(run).submit(it)

    patch.setattr(Engine, "park", park)


@mutant
def a_sleeper_wakes_early(patch: pytest.MonkeyPatch) -> None:
    def wind(self: Waits, waiting: Any) -> None:
        if waiting.wait.until is not None:
            left = waiting.wait.until - self._parker.now()
            waiting.timer = self._timers.after(left * 0.9, lambda: self.end(waiting, {}))

    patch.setattr(Waits, "_wind", wind)


@mutant
def failed_attempts_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    remember = Run._remember

    def forget(self: Run, entry: Entry) -> None:
        if entry.kind is not Kind.ATTEMPT:
            remember(self, entry)

    patch.setattr(Run, "_remember", forget)


@mutant
def records_are_replayed_out_of_turn(patch: pytest.MonkeyPatch) -> None:
    def its_turn(self: Run, ordinal: int) -> bool:
        return True

    patch.setattr(Run, "its_turn", its_turn)


@mutant
def nobody_watches_the_others(patch: pytest.MonkeyPatch) -> None:
    def watch(self: Executor, pulse: Pulse) -> Op[None]:
        yield from ()

    patch.setattr(Executor, "_watch", watch)


@mutant
def who_is_slow_is_buried_at_once(patch: pytest.MonkeyPatch) -> None:
    def watch(self: Executor, pulse: Pulse) -> Op[None]:
        peers = yield from ask(c.Executors())
        if (yield from ask(c.Bury(tuple((it.id, it.beat) for it in peers if it.id != self.id), proven=True))):
            yield from self._take_over()

    patch.setattr(Executor, "_watch", watch)


@mutant
def looking_is_not_recorded(patch: pytest.MonkeyPatch) -> None:
    def looking(host: Any, verb: str, digest: str, answers: Any, look: Callable[[], Op[Any]]) -> Op[Any]:
        return (yield from look())

    patch.setattr(asking, "looking", looking)


@mutant
def cancelling_stops_nothing_here(patch: pytest.MonkeyPatch) -> None:
    def revoke(self: Engine, guards: Any) -> None: ...

    patch.setattr(Engine, "revoke", revoke)


@mutant
def timers_of_a_body_are_the_loops(patch: pytest.MonkeyPatch) -> None:
    def body(self: BodyTimers) -> None: ...

    patch.setattr(BodyTimers, "_body", body)


@mutant
def the_firing_of_a_timer_is_not_recorded(patch: pytest.MonkeyPatch) -> None:
    fire = BodyTimers._fire

    def forget(self: BodyTimers, timer: Any) -> None:
        timer.run.journal.setdefault(
            timer.position + WAKE, Entry(timer.position + WAKE, timer.ordinal, Kind.WAKE, "timer")
        )
        fire(self, timer)

    patch.setattr(BodyTimers, "_fire", forget)


@mutant
def a_start_on_its_way_looks_lost(patch: pytest.MonkeyPatch) -> None:
    def reserve(self: Engine, function: Any, nonce: int, *, inline: bool = False) -> int | None:
        executor = right(self, function, nonce, inline=inline)
        self.places.starting.clear()
        return executor

    right = Engine.reserve
    patch.setattr(Engine, "reserve", reserve)


@mutant
def a_replay_lacks_the_last_record(patch: pytest.MonkeyPatch) -> None:
    def claim(tables: Tables, it: c.Claim) -> Any:
        return tuple(replace(one, journal=one.journal[:-1]) for one in claiming.claim(tables, it))

    command(patch, c.Claim, claim)


@mutant
def a_parking_is_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    def end(self: Waits, waiting: Any, seen: Any) -> None:
        if waiting.wait.run is None:
            right(self, waiting, seen)
            return
        run = waiting.wait.run
        parking, run.parking = run.parking, False
        right(self, waiting, seen)
        run.parking = parking

    right = Waits.end
    patch.setattr(Waits, "end", end)


# ── Transactions ─────────────────────────────────────────────────────────────────────────────────────────────────────


@mutant
def a_failure_takes_another_number(patch: pytest.MonkeyPatch) -> None:
    def transact(self: Simulated, function: Any, work: Work, ledger: Ledger | None) -> Op[Done]:
        try:
            return (yield from right(self, function, work, ledger))
        except BaseException:
            if isinstance(ledger, StepLedger):
                ledger.ordinal = 0
            raise

    right = Simulated.transact
    patch.setattr(Simulated, "transact", transact)


@mutant
def a_failure_is_two_commits(patch: pytest.MonkeyPatch) -> None:
    def transact(self: Simulated, function: Any, work: Work, ledger: Ledger | None) -> Op[Done]:
        if not isinstance(ledger, AloneLedger) or ledger.failure is None or not ledger.host.executor:
            return (yield from right(self, function, work, ledger))
        row, failed = ledger.row, replace(ledger.blank, error=ledger.failure)
        started = yield from ask(c.Start(replace(row, executor=ledger.host.executor)))
        if started.created:
            yield from ask(c.Advance(row.id, row.first_claim, (failed,), Outcome(Status.FAILED, error=ledger.failure)))
        return Done("null", None, recorded=True)

    right = Simulated.transact
    patch.setattr(Simulated, "transact", transact)


@mutant
def a_lost_answer_is_a_failure(patch: pytest.MonkeyPatch) -> None:
    def diagnose(self: Attempt, error: Exception, code: str | None) -> Fault | None:
        return None if self.stage is Stage.COMMIT and self.broken else right(self, error, code)

    right = Attempt.diagnose
    patch.setattr(Attempt, "diagnose", diagnose)


@mutant
def nobody_asks_whether_it_has_committed(patch: pytest.MonkeyPatch) -> None:
    def adopt(self: StepLedger) -> Op[None]:
        yield from ()

    patch.setattr(StepLedger, "adopt", adopt)


@mutant
def a_record_elsewhere_is_not_looked_for(patch: pytest.MonkeyPatch) -> None:
    def recorded(self: Foreign) -> Op[None]:
        yield from right(self)

    right = Foreign.recorded
    patch.setattr(Foreign, "recorded", recorded)


@mutant
def nothing_is_recorded_elsewhere(patch: pytest.MonkeyPatch) -> None:
    def closing(self: Foreign, output: str) -> tuple[()]:
        return ()

    patch.setattr(Foreign, "closing", closing)


@mutant
def a_transaction_commits_without_its_claim(patch: pytest.MonkeyPatch) -> None:
    def closing(self: StepLedger, output: str) -> tuple[()]:
        return ()

    patch.setattr(StepLedger, "closing", closing)


# ── Locks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@mutant
def who_claims_waits_for_a_lock(patch: pytest.MonkeyPatch) -> None:
    def bars(self: Locks, command: c.Command[Any]) -> bool:
        return right(self, command) or (isinstance(command, c.Claim) and bool(self.held))

    right = Locks.bars
    patch.setattr(Locks, "bars", bars)


@mutant
def who_wakes_waits_for_a_lock(patch: pytest.MonkeyPatch) -> None:
    def bars(self: Locks, command: c.Command[Any]) -> bool:
        return right(self, command) or (isinstance(command, c.Wake | c.TakeOver) and bool(self.held))

    right = Locks.bars
    patch.setattr(Locks, "bars", bars)


# ── Schedules ────────────────────────────────────────────────────────────────────────────────────────────────────────


@mutant
def a_turn_is_taken_twice(patch: pytest.MonkeyPatch) -> None:
    def fire(tables: Tables, it: c.Fire) -> Any:
        there = tables.schedules.get(it.name)
        return schedules.fire(tables, it if there is None else replace(it, turn=there.turn))

    command(patch, c.Fire, fire)


@mutant
def a_paused_schedule_is_fired(patch: pytest.MonkeyPatch) -> None:
    def fire(tables: Tables, it: c.Fire) -> Any:
        there = tables.schedules.get(it.name)
        if there is None or not there.paused:
            return schedules.fire(tables, it)
        tables.schedules[it.name] = replace(there, paused=False)
        fired = schedules.fire(tables, replace(it, turn=there.turn))
        tables.schedules[it.name] = replace(tables.schedules[it.name], paused=True)
        return fired

    command(patch, c.Fire, fire)


@mutant
def what_was_missed_is_not_caught_up(patch: pytest.MonkeyPatch) -> None:
    def due(row: Any, now: float, tolerance: float) -> Any:
        return right(replace(row, plan=replace(row.plan, catch_up="skip")), now, tolerance)

    right = firing.due
    patch.setattr(firing, "due", due)


@mutant
def a_run_does_not_wait_for_the_one_before(patch: pytest.MonkeyPatch) -> None:
    def start(tables: Tables, it: Any, *, behind: str | None) -> bool:
        return right(tables, it, behind=None)

    right = schedules._start
    patch.setattr(schedules, "_start", start)


# ── Batches ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@mutant
def an_item_stays_in_line_when_it_is_packed(patch: pytest.MonkeyPatch) -> None:
    def wait_for(workflow: Workflow, claim: int, it: c.Form, place: int, now: float) -> None:
        if place == 0:
            right(workflow, claim, it, place, now)

    right = batches._wait_for
    patch.setattr(batches, "_wait_for", wait_for)


@mutant
def who_has_lost_its_claim_forms_a_batch(patch: pytest.MonkeyPatch) -> None:
    def form(tables: Tables, it: c.Form) -> str | None:
        there = tables.workflows.get(it.leader.workflow_id)
        if there is None or there.row.status.ended:
            return batches.form(tables, it)
        row = there.row
        there.row = replace(row, status=Status.RUNNING, claim=it.leader.claim)
        text = batches.form(tables, it)
        there.row = there.row if text is not None else row
        return text

    command(patch, c.Form, form)


@mutant
def a_batch_is_formed_again(patch: pytest.MonkeyPatch) -> None:
    def form(tables: Tables, it: c.Form) -> str | None:
        made = tables.workflows.pop(it.batch.id, None)
        return batches.form(tables, it) if made is None or made.row.status.ended else None

    command(patch, c.Form, form)


# ── Retention ────────────────────────────────────────────────────────────────────────────────────────────────────────


@mutant
def a_parents_children_are_erased(patch: pytest.MonkeyPatch) -> None:
    def erasable(tables: Tables, workflow: Workflow) -> bool:
        return not any(workflow.row.id in it.awaits for it in tables.workflows.values())

    patch.setattr(retention, "_erasable", erasable)


@mutant
def what_has_just_ended_is_erased(patch: pytest.MonkeyPatch) -> None:
    def sweep(tables: Tables, it: c.Sweep) -> Any:
        return retention.sweep(
            tables, replace(it, policies=tuple(replace(each, keep=each.keep / 2) for each in it.policies))
        )

    command(patch, c.Sweep, sweep)


@mutant
def claims_of_two_workflows_of_one_id_meet(patch: pytest.MonkeyPatch) -> None:
    def before_claims(_nonce: int) -> int:
        return 0

    patch.setattr(rows, "before_claims", before_claims)


# ── Cleaning up ──────────────────────────────────────────────────────────────────────────────────────────────────────


@mutant
def who_ran_when_it_was_cancelled_has_no_clean_up(patch: pytest.MonkeyPatch) -> None:
    note = cleaning.note

    def only_sleepers(workflow: Workflow, now: float) -> None:
        if workflow.row.status is not Status.RUNNING:
            note(workflow, now)

    patch.setattr(cleaning, "note", only_sleepers)


@mutant
def what_is_mine_and_not_here_is_left(patch: pytest.MonkeyPatch) -> None:
    due = cleaning.due

    def others(tables: Tables, now: float, _executor: int) -> Iterator[Workflow]:
        return due(tables, now, 0)

    patch.setattr(cleaning, "due", others)


@mutant
def a_clean_up_is_done_once_it_is_taken(patch: pytest.MonkeyPatch) -> None:
    def take(tables: Tables, it: c.CleanUp) -> tuple[Claimed, ...]:
        taken = cleaning.clean_up(tables, it)
        for claimed in taken:
            cleaning.cleaned(tables, c.Cleaned(it.executor, claimed.row.id))
        return taken

    command(patch, c.CleanUp, take)


@mutant
def nobody_says_that_it_has_cleaned_up(patch: pytest.MonkeyPatch) -> None:
    command(patch, c.Cleaned, lambda _store, _it: None)


@mutant
def a_deadline_leaves_no_clean_up(patch: pytest.MonkeyPatch) -> None:
    def advance(tables: Tables, it: c.Advance) -> Advanced:
        end = replace(it.end, cleaner=None) if isinstance(it.end, Outcome) else it.end
        return advancing.advance(tables, replace(it, end=end))

    command(patch, c.Advance, advance)


@mutant
def that_it_has_cleaned_up_is_said_once(patch: pytest.MonkeyPatch) -> None:
    done = Cleaning.done

    def once(self: Cleaning, workflow_id: str) -> Op[None]:
        yield from done(self, workflow_id)
        self._unnoted.clear()

    patch.setattr(Cleaning, "done", once)
