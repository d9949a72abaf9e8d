"""This process as an executor: it holds a lease, claims what is ready, and takes over from those whose lease ran out.

One heartbeat statement renews the lease, compares what the store says that runs here with what does, sees expired
peers, and learns when something will be ready. Must not know what a workflow is made of.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from operon.core.commands import Beat, Bury, Claim, Enlist, Executors, Look, Opening, Retire, Running, TakeOver, Wake
from operon.core.rows import Outcome, Process, Pulse, WorkflowRow
from operon.core.states import Status
from operon.engine import processes
from operon.errors import Cancelled, StoreError, Suspended, WorkflowHeld

if TYPE_CHECKING:
    from operon.engine.engine import Engine

log = logging.getLogger("operon")
BEATS_A_LEASE = 5
SWEEP = 500
SOON = 0.001
"""Seconds that a window which is about to open is given, so that it is open."""


class Executor:
    """The service thread of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._settings = engine.settings
        self._clock = engine.settings.clock
        self._changed = threading.Condition()
        self._nudged = True
        self._news = False
        self._doubted = False
        self._due: float | None = None
        self._beat_at = 0.0
        self._claiming = engine.settings.run
        self._stopped = False
        self._suspects: dict[int, int] = {}
        self._strays: frozenset[str] = frozenset()
        self._offset = 0.0
        self._thread = threading.Thread(target=self._run, name="operon-executor", daemon=True)
        self.id = 0
        self.backlog = False
        """Whether more was ready than could be claimed."""

    def now(self) -> float:
        """Estimate the store's clock from the last heartbeat."""
        return self._offset + self._clock.monotonic()

    def start(self) -> None:
        """Enlist, bury what is provably gone, and begin to beat and claim."""
        self._enlist()
        self._bury_the_gone()
        self._take_over()
        self._thread.start()

    def look(self) -> None:
        """Learn the store's clock, without a lease."""
        self._offset = self._engine.store.ask(Beat(0, 0.0)).now - self._clock.monotonic()

    def nudge(self, delay: float = 0.0, *, news: bool = False) -> None:
        """Say that something will be ready in so many seconds; news is passed on if it cannot all be claimed here."""
        with self._changed:
            self._news = self._news or news
            if delay <= 0:
                self._nudged = True
            else:
                due = self._clock.monotonic() + delay
                self._due = due if self._due is None else min(self._due, due)
            self._changed.notify()

    def doubt(self) -> None:
        """Say that what runs here may have been cancelled: look at once, and not at the next heartbeat."""
        with self._changed:
            self._doubted = True
            self._changed.notify()

    def beat(self) -> None:
        """Say that something will be ready at a time that only the store knows: beat now, and not in a while."""
        with self._changed:
            self._beat_at = 0.0
            self._changed.notify()

    def stop_claiming(self) -> None:
        """Claim nothing more; the lease is still renewed."""
        self._claiming = False

    def close(self) -> None:
        """Hand back what is left, and end the lease."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self._engine.store.ask(Retire(self.id))
            self._engine.store.shout("ready")
        except StoreError as error:
            log.warning("Could not say goodbye to the database (%s); the lease will run out by itself.", error)

    # ── The thread ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        interval = self._settings.ttl / BEATS_A_LEASE
        while not self._stopped:
            try:
                if self._clock.monotonic() >= self._beat_at:
                    self._beat_at = self._clock.monotonic() + interval
                    self._beat()
                if self._doubted:
                    self._doubted = False
                    self._dismiss()
                if self._ready():
                    self._claim()
            except StoreError as error:
                log.warning("The database did not answer (%s); trying again.", error)
            except Exception:
                log.exception("The executor stumbled, and goes on.")
            with self._changed:
                if not (self._nudged or self._doubted or self._stopped):
                    left = min(self._beat_at, self._due or self._beat_at) - self._clock.monotonic()
                    self._clock.wait(self._changed, max(0.0, left))

    def _ready(self) -> bool:
        with self._changed:
            due = self._due is not None and self._due <= self._clock.monotonic()
            ready = (self._nudged or due) and self._claiming
            self._nudged = False
            if due:
                self._due = None
            return ready

    def _claim(self) -> None:
        self.backlog = False
        news, self._news = self._news, False
        claimed = sum(self._claim_colour(asynchronous=it) for it in (False, True))
        queues = self._queues()
        if queues and not self.backlog and (opening := self._engine.store.ask(Opening(queues))) is not None:
            self.nudge(max(opening, SOON))
        if news and (self.backlog or not claimed):
            self._engine.store.shout("ready")

    def _claim_colour(self, *, asynchronous: bool) -> int:
        """Claim what is ready of one colour, as far as there is room; answers how many."""
        functions = self._engine.program.functions
        names = tuple(name for name, it in functions.items() if it.asynchronous is asynchronous and it.kind != "step")
        claimed = 0
        while names:
            free = self._engine.free(asynchronous=asynchronous)
            if free <= 0:
                self.backlog = True
                break
            queues = tuple((name, free) for name in self._queues())
            rows = self._engine.store.ask(
                Claim(self.id, names, self._engine.program.instances(), self._engine.version, free, queues)
            )
            for row in rows:
                self._run_here(row)
            claimed += len(rows)
            if len(rows) < free:
                break
        return claimed

    def _queues(self) -> tuple[str, ...]:
        """The queues that this process runs."""
        only = self._settings.only
        return tuple(self._engine.program.limits) if only is None else only

    def _run_here(self, row: WorkflowRow) -> None:
        function = self._engine.program.functions[row.name]
        if self._engine.reserve(function, inline=True) is None:
            self._engine.hand_back((row.id,))
            return
        self._engine.spawn(row, function)

    # ── The heartbeat ────────────────────────────────────────────────────────────────────────────────────────────────

    def _enlist(self) -> None:
        host, pid, born = processes.identity()
        process = Process(self._engine.name, host, pid, born, self._engine.version, self._settings.ttl)
        self.id = self._engine.store.ask(Enlist(process))
        self._pulse(self._engine.store.ask(Beat(self.id, self._settings.ttl)))

    def _beat(self) -> None:
        pulse = self._engine.store.ask(Beat(self.id, self._settings.ttl))
        if not pulse.alive:
            self._reborn()
            return
        self._pulse(pulse)
        self._watch(pulse)
        self._reconcile(pulse)
        if pulse.stirred:
            self._engine.store.ask(Wake(None))
            self._take_over()

    def _pulse(self, pulse: Pulse) -> None:
        now = self._clock.monotonic()
        self._offset = pulse.now - now
        if pulse.due is not None and not (pulse.due <= 0 and self.backlog):
            self.nudge(pulse.due)

    def _reborn(self) -> None:
        """Stop everything: this executor was declared dead, and others run its workflows by now."""
        log.warning("Executor %d was declared dead, having been out of touch; enlisting anew.", self.id)
        with self._engine.lock:
            runs = tuple(self._engine.runs.values())
        for run in runs:
            self._engine.kill(run, Suspended(f"{run.id} was taken over."))
        self._enlist()
        self.nudge()

    def _watch(self, pulse: Pulse) -> None:
        """Bury the peers whose lease has run out and whose beat stood still since our last one."""
        still = tuple((peer, beat) for peer, beat in pulse.expired if self._suspects.get(peer) == beat)
        self._suspects = dict(pulse.expired)
        if not still:
            return
        buried = self._engine.store.ask(Bury(still))
        if buried:
            self._take_over()

    def _bury_the_gone(self) -> None:
        """Bury the peers of this machine whose process provably is no more; no lease is waited for."""
        peers = self._engine.store.ask(Executors())
        gone = tuple(
            (peer.id, peer.beat) for peer in peers if peer.alive and peer.id != self.id and processes.gone(peer)
        )
        if gone:
            self._engine.store.ask(Bury(gone, proven=True))

    def _take_over(self) -> None:
        reason = WorkflowHeld(
            f"it was taken over {self._settings.poison} times from executors that died: it may be what kills them."
        )
        error = self._engine.codec.encode_error(reason, home="operon", where="a held workflow")
        taken = SWEEP
        while taken == SWEEP:
            taken = self._engine.store.ask(TakeOver(SWEEP, self._settings.poison, error))
            self.nudge(news=taken > 0)

    def _reconcile(self, pulse: Pulse) -> None:
        """Compare what the store says that runs here with what does; act on what stays different for two beats."""
        here = frozenset(self._engine.runs)
        if pulse.running == len(here) and not self._strays:
            return
        rows = {row.id for row in self._engine.store.ask(Running(self.id))}
        here &= frozenset(self._engine.runs)
        strays = frozenset((rows | here) - (rows & here))
        lasting = strays & self._strays
        self._strays = strays - lasting
        lost = tuple(sorted(lasting - here))
        if lost:
            self._engine.hand_back(lost)
        if lasting & here:
            self._dismiss()

    def _dismiss(self) -> None:
        """Stop the runs here that the store no longer gives to this executor."""
        ids = tuple(self._engine.runs)
        outcomes: Mapping[str, Outcome] = self._engine.store.ask(Look(ids)) if ids else {}
        for workflow_id in ids:
            run = self._engine.runs.get(workflow_id)
            outcome = outcomes.get(workflow_id)
            if run is None or (outcome is not None and outcome.status is Status.RUNNING):
                continue
            cancelled = outcome is None or outcome.status is Status.CANCELLED
            why = f"{workflow_id} was cancelled." if cancelled else f"{workflow_id} is no longer run here."
            if outcome is not None and outcome.status is Status.CANCELLED:
                self._engine.waits.ended(workflow_id, outcome)
            self._engine.kill(run, Cancelled(why) if cancelled else Suspended(why))
