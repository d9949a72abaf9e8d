"""This process as an executor: it holds a lease, claims what is ready, and takes over from those whose lease ran out.

One heartbeat statement renews the lease, compares what the store says that runs here with what does, sees expired
peers, and learns when something will be ready. Must not know what a workflow is made of.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from heapq import heappop, heappush
from typing import Any, Protocol, TypeVar

from operon.core.commands import (
    Beat,
    Bury,
    Claim,
    Enlist,
    Executors,
    HandBack,
    Look,
    Op,
    Opening,
    Retire,
    Rewind,
    Ripen,
    Running,
    TakeOver,
    Wake,
    ask,
)
from operon.core.function import Function
from operon.core.rows import Claimed, Guard, Outcome, Process, Pulse
from operon.core.states import Status
from operon.engine import drivers
from operon.engine.cleaning import Cleaning, CleaningRuntime
from operon.engine.heartbeat import Heartbeat
from operon.engine.machine import Machine, Service
from operon.engine.offset import Offset
from operon.engine.retention import Retention
from operon.engine.scheduler import Scheduler
from operon.engine.unrunnable import Unrunnable
from operon.engine.wakeup import Rest, Wakeup
from operon.engine.weights import Weights
from operon.errors import Cancelled, RowLocked, StoreError, Suspended, WorkflowHeld

T = TypeVar("T")
log = logging.getLogger("operon")
BEATS_A_LEASE = 5
STILL = 1.5
"""So many of our own beats another's beat stands still before it is dead: its next one may be a little late."""
JOURNALS = 32 * 2**20
"""How long the texts of the journals may be, all together, with which runs begin here at the same time."""
SWEEP = 500
SWEEPING = 9
"""So many times as long as a page of old records took, other work goes before the next page."""
PATIENCE = 2.0
"""Seconds that closing waits for a database that does not answer."""
COLOURS = frozenset({False, True})
"""Blocking and async."""
SOON = 0.001
"""Seconds that a window which is about to open is given, so that it is open."""


class ExecutorRuntime(CleaningRuntime, Protocol):
    """An engine as its executor sees it."""

    machine: Machine
    cleaning: Cleaning
    weights: Weights

    def spawn(self, it: Claimed, function: Function) -> Future[Outcome | None]:
        """Run a claimed workflow in a place that is reserved for it."""
        ...


class Executor:
    """The service of an engine; each part of it is an operation, done on a thread or, in the simulator, on a loop."""

    def __init__(self, engine: ExecutorRuntime) -> None:
        self._engine = engine
        self._settings = engine.settings
        self._clock = engine.machine.clock
        self._wakeup = Wakeup(self._clock)
        self._lock = threading.Lock()
        self._nudged: frozenset[bool] = COLOURS
        """Of which colours, async or not, something may be ready."""
        self._news = False
        self._doubted = False
        self._weight = 0.0
        """How long the texts of a journal were, on the average, of what was claimed last."""
        self._own_dues: list[float] = []
        """When what was parked or delayed here will be ready, the first one first; no heartbeat can hide them."""
        self._next_due: float | None = None
        """When the next of all will be ready, as of the last heartbeat."""
        self._comes_due = False
        """Something is due by now, as far as is known here; what comes after it is not known."""
        self._was_due = False
        """Likewise, by what the last heartbeat saw; but it may be nothing that can run here."""
        self._pulse: Pulse | None = None
        self._claiming = engine.settings.run
        self._stopped = False
        self._kept_waiting = 0
        """How many bodies waited for a loop that does not run, at the last heartbeat."""
        self._suspects: dict[tuple[int, int], float] = {}
        """Whose lease has run out, each with the beat at which it stands still, and since when, by our own clock."""
        self._strays: frozenset[tuple[str, int]] = frozenset()
        self._unrunnable = Unrunnable(engine, engine.program)
        self._retention = Retention(lambda: engine.program.functions, engine.settings)
        self._sweep_at: float | None = None
        """When there is another page of old records to remove, before the next heartbeat."""
        self._scheduler = Scheduler(engine, engine.program, engine.settings, self._clock, self.beat)
        self._offset = Offset(self._clock)
        self._service: Service | None = None
        self._heartbeat = Heartbeat(self._clock, self._settings.ttl / BEATS_A_LEASE, self._beat, self._receive)
        self.id = 0
        self.alive = True
        """False while others may run what is here, this executor having been declared dead."""
        self.backlog: frozenset[bool] = frozenset()
        """The colours of which more may be ready than there were places for: a place given back is worth a claim."""

    def now(self) -> float:
        """Estimate the store's clock from the last heartbeat."""
        return self._offset.now()

    def start(self) -> None:
        """Enlist, bury what is provably gone, and begin to beat and claim."""
        drivers.serve(self._engine, self._arrive())
        serve = partial(self._engine.machine.serve, self._engine)
        self._heartbeat.start(serve)
        self._service = serve("executor", self._serve())

    def look(self) -> None:
        """Learn the store's clock, without a lease."""
        asked = self._clock.monotonic()
        self._offset.looked(self._engine.store.ask(Beat(0, 0.0)).now, asked)

    def observe(self, now: float) -> None:
        """Learn from an answer what the store's clock shows."""
        self._offset.observe(now)

    def nudge(self, delay: float = 0.0, *, news: bool = False, colours: frozenset[bool] = COLOURS) -> None:
        """Say that something will be ready in so many seconds; news is passed on if it cannot all be claimed here."""
        with self._lock:
            self._news = self._news or news
            if delay <= 0:
                self._nudged |= colours
            else:
                due = self._clock.monotonic() + delay
                heappush(self._own_dues, due)
                if self._own_dues[0] < due:
                    return
        self._wakeup.set()

    def lighter(self) -> None:
        """Say that there is room for more journals: what could not be claimed may be now."""
        if self.backlog:
            self.nudge(colours=self.backlog)

    def doubt(self) -> None:
        """Say that what runs here may have been cancelled: look at once, and not at the next heartbeat."""
        self._doubted = True
        self._wakeup.set()

    def beat(self) -> None:
        """Say that something will be ready at a time that only the store knows: beat now, and not in a while."""
        self._heartbeat.hurry()

    def stop_claiming(self) -> None:
        """Claim nothing more; the lease is still renewed."""
        self._claiming = False
        self._scheduler.close()

    def close(self) -> None:
        """Hand back what is left, and end the lease, if there is one."""
        self._rest()
        try:
            if self.id:
                self._engine.store.submit(Retire(self.id)).result(PATIENCE)
                self._engine.store.shout("ready")
        except (StoreError, TimeoutError) as error:
            log.warning("Could not say goodbye to the database (%r); the lease will run out by itself.", error)
        finally:
            self._heartbeat.stop(PATIENCE)

    def stop(self) -> None:
        """Do nothing more; the lease runs out by itself."""
        self._rest()
        self._heartbeat.stop(PATIENCE)

    def _rest(self) -> None:
        self._stopped = True
        self._wakeup.set()
        if self._service is not None:
            self._service.join(PATIENCE)
        self.alive = False

    # ── The service ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _arrive(self) -> Op[None]:
        yield from self._enlist()
        yield from self._bury_the_gone()
        yield from self._take_over()

    def _serve(self) -> Op[None]:
        while not self._stopped:
            yield from self._round()
            due = self._first_due()
            yield Rest(self._wakeup, None if due is None else due - self._clock.monotonic())

    def _round(self) -> Op[None]:
        pulse, self._pulse = self._pulse, None
        if pulse is not None:
            for part in self._parts(pulse):
                yield from self._attempt(part)
        if self._doubted:
            self._doubted = False
            self._engine.waits.look()
            yield from self._attempt(self._dismiss())
            yield from self._attempt(self._wake())
            yield from self._attempt(self._tidy())
        if colours := self._ready():
            yield from self._claim(colours)
        if pulse is not None or (self._sweep_at is not None and self._sweep_at <= self._clock.monotonic()):
            self._sweep_at = None
            if self.alive:
                yield from self._sweep()

    def _sweep(self) -> Op[None]:
        """Remove one page of old records; while there are more, a tenth of the time goes into that."""
        begun = self._clock.monotonic()
        found = yield from self._attempt(self._retention.tick(begun))
        now = self._clock.monotonic()
        if found:
            self._sweep_at = now + SWEEPING * (now - begun)

    def _attempt(self, part: Op[T]) -> Op[T | None]:
        """Do one part of a round: where it fails, or meets a lock, the others are done nevertheless."""
        try:
            return (yield from part)
        except RowLocked as error:
            log.info("%s It is looked at again after the next heartbeat.", error)
        except StoreError as error:
            log.warning("The database did not answer (%s); trying again.", error)
        except Exception:
            log.exception("The executor stumbled, and goes on.")
        return None

    def _wake(self) -> Op[None]:
        """Wake who waited for what was cancelled."""
        if (yield from ask(Wake(None))):
            self.nudge(news=True)

    def _tidy(self) -> Op[None]:
        """Begin what clean-ups there are places for."""
        if self._claiming:
            yield from self._engine.cleaning.begin()

    def hand_back(self, *claims: Guard, unbegun: bool = False) -> Op[None]:
        """Return workflows that nobody here runs to the queue."""
        yield from ask(HandBack(self.id, claims, unbegun))
        self._engine.nudge()

    def _first_due(self) -> float | None:
        dues = (*self._own_dues[:1], self._next_due, self._scheduler.at, self._sweep_at)
        return min((due for due in dues if due is not None), default=None)

    def _ready(self) -> frozenset[bool]:
        with self._lock:
            now = self._clock.monotonic()
            if any(due is not None and due <= now for due in (*self._own_dues[:1], self._next_due)):
                while self._own_dues and self._own_dues[0] <= now:
                    heappop(self._own_dues)
                self._next_due = None if self._next_due is None or self._next_due <= now else self._next_due
                self._nudged = COLOURS
                self._comes_due = True
            if self._scheduler.due:
                self._nudged = COLOURS
            nudged, self._nudged = self._nudged, frozenset()
            return nudged if self._claiming else frozenset()

    def _claim(self, colours: frozenset[bool]) -> Op[None]:
        yield from self._attempt(self._scheduler.fire())
        news, self._news = self._news, False
        claimed = 0
        yield from self._attempt(self._ripen())
        for asynchronous in sorted(colours):
            claimed += (yield from self._attempt(self._claim_colour(asynchronous=asynchronous))) or 0
        if self._comes_due or (self._was_due and claimed):
            self._heartbeat.hurry()  # to learn when the next one is due, now that this one is not any more
        self._comes_due = self._was_due = False
        queues = self._queues()
        if queues and not self.backlog:
            opening = yield from self._attempt(ask(Opening(queues)))
            if opening is not None:
                self.nudge(max(opening, SOON))
        if news and (self.backlog or not claimed):
            self._engine.store.shout("ready")

    def _ripen(self) -> Op[None]:
        """Let begin what has enough company for a batch."""
        functions = self._engine.program.functions.items()
        batches = tuple((name, it.rules.batch.size, it.rules.batch.wait) for name, it in functions if it.rules.batch)
        if batches and (queues := self._queues()):
            yield from ask(Ripen(queues, batches))

    def _claim_colour(self, *, asynchronous: bool) -> Op[int]:
        """Claim what is ready of one colour, as far as there is room; answers how many."""
        functions = self._engine.program.functions
        names = tuple(name for name, it in functions.items() if it.asynchronous is asynchronous and it.kind != "step")
        claimed = 0
        while names:
            free = self._engine.places.free(asynchronous=asynchronous)
            room = JOURNALS - self._engine.weights.total
            if free <= 0 or room <= 0:
                if asynchronous in self.backlog:
                    break
                self.backlog |= {asynchronous}  # from here on, who gives a place back says so
                continue
            free = min(free, max(1, int(room / self._weight))) if self._weight else free
            queues = tuple((name, free) for name in self._queues())
            found = yield from ask(
                Claim(self.id, names, self._engine.program.instances(), self._engine.version, free, queues, room)
            )
            for it in found:
                yield from self._run_here(it)
            claimed += len(found)
            weight = sum(it.weight for it in found)
            self._weight = weight / len(found) if found else 0.0
            if len(found) < free and weight < room:
                self.backlog -= {asynchronous}
                break
        return claimed

    def _queues(self) -> tuple[str, ...]:
        """The queues that this process runs."""
        only = self._settings.only
        return tuple(self._engine.program.limits) if only is None else only

    def _run_here(self, it: Claimed) -> Op[None]:
        function = self._engine.program.functions[it.row.name]
        if (
            not self._claiming or self._engine.reserve(function, it.row.nonce, inline=False) is None
        ):  # a start was faster
            yield from self.hand_back(Guard(it.row.id, it.row.claim), unbegun=True)
            return
        self._engine.spawn(it, function)

    # ── The heartbeat ────────────────────────────────────────────────────────────────────────────────────────────────

    def _enlist(self) -> Op[None]:
        host, pid, born = self._engine.machine.identity()
        process = Process(self._engine.name, host, pid, born, self._engine.version, self._settings.ttl)
        self.id = yield from ask(Enlist(process))
        self.alive = True
        self._receive((yield from self._beat()))

    def _beat(self) -> Op[Pulse]:
        asked = self._clock.monotonic()
        pulse = yield from ask(Beat(self.id, self._settings.ttl, self._scheduler.fires()))
        self._offset.looked(pulse.now, asked)
        return pulse

    def _receive(self, pulse: Pulse) -> None:
        """Take in a heartbeat: what is to be done about it is the other service's work."""
        self._scheduler.receive(pulse)
        self._pulse = pulse
        self._wakeup.set()

    def _parts(self, pulse: Pulse) -> Iterator[Op[Any]]:
        """What is to be done about a heartbeat."""
        if not pulse.alive:
            yield self._reborn()
            return
        self._await_due(pulse)
        if back := self._offset.put_back():
            yield self._rewind(back)
        yield self._watch(pulse)
        yield self._leave_lost()
        yield self._reconcile(pulse)
        if pulse.untidy:
            yield self._tidy()
        yield self._unrunnable.look(due=pulse.due is not None and pulse.due <= 0 and not self.backlog)
        if pulse.stirred:
            yield ask(Wake(None))
            yield self._take_over()

    def _await_due(self, pulse: Pulse) -> None:
        ready = pulse.due is not None and pulse.due <= 0
        self._next_due = None if pulse.due is None or ready else self._clock.monotonic() + pulse.due
        self._was_due = self._was_due or ready
        if ready or (pulse.lined and self._queues()):
            self.nudge(colours=COLOURS - self.backlog)

    def _rewind(self, back: float) -> Op[None]:
        """Go on where the store's clock was put back: what was ready is ready, and the dead live no longer for it."""
        log.warning("The database's clock was put back, by up to %.1f seconds.", back)
        yield from ask(Rewind(back, self._settings.ttl))
        yield from self._scheduler.rewind()
        self.nudge()
        self._heartbeat.hurry()

    def _reborn(self) -> Op[None]:
        """Stop everything: this executor was declared dead, and others run its workflows by now."""
        if (yield from self._beat()).alive:
            return  # that was about who this was before
        log.warning("Executor %d was declared dead, having been out of touch; enlisting anew.", self.id)
        self.alive = False
        for run in self._engine.runs.all():
            self._engine.kill(run, Suspended(f"{run.id} was taken over."))
        yield from self._enlist()
        yield from self._take_over()

    def _watch(self, pulse: Pulse) -> Op[None]:
        """Bury the peers whose lease has run out and whose beat stands still, whatever the store's clock shows."""
        now = self._clock.monotonic()
        self._suspects = {seen: self._suspects.get(seen, now) for seen in pulse.expired}
        patience = STILL * self._settings.ttl / BEATS_A_LEASE
        still = tuple(seen for seen, since in self._suspects.items() if now - since >= patience)
        if not still:
            return
        if (yield from ask(Bury(still))):
            yield from self._take_over()

    def _bury_the_gone(self) -> Op[None]:
        """Bury the peers of this machine whose process provably is no more; no lease is waited for."""
        gone = self._engine.machine.gone
        peers = yield from ask(Executors())
        dead = tuple((peer.id, peer.beat) for peer in peers if peer.alive and peer.id != self.id and gone(peer))
        if dead:
            yield from ask(Bury(dead, proven=True))

    def _take_over(self) -> Op[None]:
        most = self._settings.poison
        reason = WorkflowHeld(
            f"it was taken over {'once' if most == 1 else f'{most} times'} from executors that died: it may be what "
            "kills them, or ran beside that."
        )
        error = self._engine.codec.encode_error(reason, home="operon", where="a held workflow")
        taken = SWEEP
        while taken == SWEEP:
            taken = yield from ask(TakeOver(SWEEP, self._settings.poison, error))
            self.nudge(news=taken > 0)

    def _leave_lost(self) -> Op[None]:
        """Hand back what ran on a loop that its owner has closed while this app is launched."""
        if lost := self._engine.loop.lost():
            log.warning("The event loop of %d async workflows is closed; others may run them.", len(lost))
            yield from self.hand_back(*lost)
        before, self._kept_waiting = self._kept_waiting, self._engine.loop.kept_waiting()
        if self._kept_waiting > before:
            log.warning(
                "The event loop that %s was launched on does not run, and async workflows wait for it (%d). Enter the "
                "app with `async with app:` on the loop that is used, or with `with app:`, which has its own.",
                self._engine.name,
                self._kept_waiting,
            )

    def _reconcile(self, pulse: Pulse) -> Op[None]:
        """Compare what the store says that runs here with what does; act on what stays different for two beats."""
        here = self._engine.runs.claims()
        if pulse.running == len(here) and not self._strays:
            return
        found = yield from ask(Running(self.id))
        rows = frozenset((row.id, row.claim) for row in found if row.nonce not in self._engine.places.starting)
        here &= self._engine.runs.claims()
        strays = rows ^ here
        lasting = strays & self._strays
        self._strays = strays - lasting
        if lost := [Guard(workflow_id, claim) for workflow_id, claim in sorted(lasting & rows)]:
            yield from self.hand_back(*lost)
        yield from self._dismiss(lasting & here)

    def _dismiss(self, strays: frozenset[tuple[str, int]] = frozenset()) -> Op[None]:
        """Stop the runs here that the store no longer gives to this executor, `strays` among them."""
        runs = self._engine.runs.all()
        to_come = {Guard(*claim) for claim in self._engine.runs.claims()} - {run.guard for run in runs}
        ids = (*(run.id for run in runs), *(guard.workflow_id for guard in to_come))
        outcomes: Mapping[str, Outcome] = (yield from ask(Look(ids))) if ids else {}
        self._engine.revoke(it for it in to_come if it.workflow_id in outcomes and _over(outcomes[it.workflow_id]))
        for run in runs:
            workflow_id, outcome = run.id, outcomes.get(run.id)
            stray = (run.id, run.guard.claim) in strays
            if outcome is not None and outcome.status is Status.RUNNING and not stray:
                continue
            cancelled = outcome is None or outcome.status is Status.CANCELLED
            why = f"{workflow_id} was cancelled." if cancelled else f"{workflow_id} is no longer run here."
            if outcome is not None and outcome.status is Status.CANCELLED:
                self._engine.waits.ended(workflow_id, outcome)
            self._engine.kill(run, Cancelled(why) if cancelled else Suspended(why))


def _over(outcome: Outcome) -> bool:
    return outcome.status is Status.CANCELLED
