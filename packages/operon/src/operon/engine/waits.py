"""Waiting: for an instant, for other workflows to end; and leaving the process when it takes long.

A wait costs a future while it is short. Once a run has done nothing but wait for the grace time, it is parked: its
row waits, and the run leaves its function by `Suspended`, to be replayed when the wait is over. Whether it is parked
the commit alone decides; until that is known, no wait of the run ends otherwise.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from operon.core.commands import Look
from operon.core.journal import Run
from operon.core.recording import Wait
from operon.core.rows import Advanced, Outcome, Park
from operon.core.states import Status
from operon.core.store import Store
from operon.engine.timerthread import Timer, Timers
from operon.errors import NotLaunched, Suspended
from operon.promises import Promise

Seen = dict[str, Outcome]
REMEMBERED, LONGEST = 1024, 4096
"""Outcomes that are kept for whoever is about to wait, and the characters of each; what is longer is asked for."""
FIRST_LOOK, SLOWEST_LOOK = 0.02, 1.0


class Parker(Protocol):
    """Who can submit a run's parking to the store."""

    def park(self, run: Run, park: Park) -> Future[Advanced]:
        """Submit it."""
        ...

    def quietly(self, run: Run, call: Callable[[], None]) -> None:
        """Call this when no line of the run's body is being executed on a loop, or is about to be."""
        ...

    def now(self) -> float:
        """Estimate the store's clock."""
        ...

    def executes(self, workflow_id: str) -> bool:
        """Whether it runs in this process, and so tells its end here."""
        ...


@dataclass(eq=False, slots=True)
class Waiting:
    """One wait that is under way in this process."""

    wait: Wait
    on_loop: bool = False
    """A task waits, which can be cancelled."""
    future: Promise[Seen] = field(default_factory=Promise[Seen])
    timer: Timer | None = None
    over: bool = False


class Waits:
    """Every wait of this process."""

    def __init__(self, timers: Timers, store: Store, parker: Parker, grace: float) -> None:
        self._timers = timers
        self._store = store
        self._parker = parker
        self._grace = grace
        self._lock = threading.RLock()
        self._watchers: dict[str, dict[Waiting, None]] = {}
        self._rounds: dict[float, list[Waiting]] = {}
        """Who looks together next, by how long each has waited for that look."""
        self._recent: OrderedDict[str, tuple[float, Outcome | None]] = OrderedDict()
        """What has ended here, when by this process's clock, and how, unless that is long."""
        self._closed = False

    def begin(self, wait: Wait, *, on_loop: bool = False) -> Waiting:
        """Begin to wait; the future is done when it is over."""
        waiting, run = Waiting(wait, on_loop), wait.run
        with self._lock:
            known = [(target, *self._recent[target]) for target in wait.awaits if target in self._recent]
            seen = {target: outcome for target, at, outcome in known if at >= wait.since}
            if self._closed or (run is not None and run.dead is not None):
                waiting.future.set_exception((run and run.dead) or NotLaunched("The app was closed."))
            elif seen or (wait.until is not None and wait.until <= self._parker.now()):
                waiting.future.set_result({target: it for target, it in seen.items() if it is not None})
            if waiting.future.done():
                waiting.over = True
                return waiting
            for target in wait.awaits:
                self._watchers.setdefault(target, {})[waiting] = None
            if run is not None:
                run.waits[waiting] = None
            self._wind(waiting)
        if wait.awaits:
            self._look_later(waiting, FIRST_LOOK)
        if run is not None:
            self.stir(run)
        return waiting

    def _wind(self, waiting: Waiting) -> None:
        if waiting.timer is not None:
            waiting.timer.cancel()
        if waiting.wait.until is not None:
            left = waiting.wait.until - self._parker.now()
            waiting.timer = self._timers.after(left, lambda: self.end(waiting, {}))

    def end(self, waiting: Waiting, seen: Seen | BaseException) -> None:
        """End a wait, unless it has ended, or a parking under way is to decide that."""
        run = waiting.wait.run
        with self._lock:
            if waiting.over or (run is not None and run.parking and not isinstance(seen, BaseException)):
                return
            waiting.over = True
            if waiting.timer is not None:
                waiting.timer.cancel()
            for target in waiting.wait.awaits:
                self._watchers[target].pop(waiting, None)
                if not self._watchers[target]:
                    del self._watchers[target]
            if run is not None:
                run.waits.pop(waiting, None)
        if isinstance(seen, BaseException):
            waiting.future.set_exception(seen)
        else:
            waiting.future.set_result(seen)
        if run is not None:
            self.stir(run)

    def ended(self, workflow_id: str, outcome: Outcome) -> None:
        """Tell all who wait here that a workflow has ended, or is held."""
        with self._lock:
            if outcome.status.ended:
                short = len(outcome.output or "") + len(outcome.error or "") <= LONGEST
                self._recent[workflow_id] = (self._timers.clock.monotonic(), outcome if short else None)
                self._recent.move_to_end(workflow_id)
            if len(self._recent) > REMEMBERED:
                self._recent.popitem(last=False)
            watchers = tuple(self._watchers.get(workflow_id, ()))
        for waiting in watchers:
            self.end(waiting, {workflow_id: outcome})

    def abandon(self, run: Run, cause: BaseException, *, on_loop: bool = True) -> None:
        """End the waits of a run that is dead; those on its loop, too, unless its tasks are cancelled."""
        with self._lock:
            waits = tuple(waiting for waiting in run.waits if on_loop or not waiting.on_loop)
        for waiting in waits:
            self.end(waiting, cause)

    def close(self) -> None:
        """End every wait, and begin no other: nobody looks any more."""
        with self._lock:
            self._closed = True
            waits = dict.fromkeys(waiting for watchers in self._watchers.values() for waiting in watchers)
        for waiting in waits:
            self.end(waiting, NotLaunched("The app was closed while its result was waited for."))

    # ── Looking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def look(self) -> None:
        """Ask at once: somebody said that something has ended otherwise than by itself."""
        with self._lock:
            waits = tuple(dict.fromkeys(it for watchers in self._watchers.values() for it in watchers if not it.over))
        if waits:
            self._ask(waits)

    def _look_later(self, waiting: Waiting, seconds: float) -> None:
        """Join those who look after so many seconds: the safety net, ever more slowly, and one statement for all."""
        with self._lock:
            together = self._rounds.setdefault(seconds, [])
            together.append(waiting)
            if len(together) == 1:
                self._timers.after(seconds, lambda: self._look(seconds))

    def _look(self, seconds: float) -> None:
        """Ask the store whether what is awaited has ended elsewhere."""
        with self._lock:
            waits = [waiting for waiting in self._rounds.pop(seconds) if not waiting.over]

        def looked(_: object) -> None:
            for waiting in waits:
                if not waiting.over:
                    self._look_later(waiting, min(seconds * 2, SLOWEST_LOOK))

        here = self._parker.executes
        if elsewhere := [it for it in waits if not all(map(here, it.wait.awaits))]:  # what ends here is told here
            self._ask(elsewhere).add_done_callback(looked)
        else:
            looked(None)

    def _ask(self, waits: Sequence[Waiting]) -> Future[Mapping[str, Outcome]]:
        """Ask the store where those stand that are awaited, and tell who waits for what is over."""

        def looked(answer: Future[Mapping[str, Outcome]]) -> None:
            if answer.exception() is None:
                self._tell(waits, answer.result())

        targets = dict.fromkeys(target for waiting in waits for target in waiting.wait.awaits)
        asked = self._store.submit(Look(tuple(targets)))
        asked.add_done_callback(looked)
        return asked

    def _tell(self, waits: Sequence[Waiting], there: Mapping[str, Outcome]) -> None:
        """End the waits for what has ended; and those for what is not there any more, whose waiter looks again."""
        final = {key: it for key, it in there.items() if it.status.ended or it.status is Status.HELD}
        for waiting in waits:
            over = {target: final[target] for target in waiting.wait.awaits if target in final}
            if over or not there.keys() >= set(waiting.wait.awaits):
                self.end(waiting, over)

    # ── Parking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def enter(self, run: Run) -> None:
        """Note that a run does something, and so cannot be parked until it `leave`s that."""
        with self._lock:
            run.busy += 1

    def leave(self, run: Run) -> None:
        """Note that it has done it."""
        with self._lock:
            run.busy -= 1
        if run.waits:  # who waits later stirs it then
            self.stir(run)

    def stir(self, run: Run) -> None:
        """Note that a run did something; if all it does now is to wait, it rests from here on."""
        run.stirred = self._timers.clock.monotonic()
        if run.waits and not run.busy:
            self._settle(run)

    def _settle(self, run: Run, *, rested: bool = False, ahead: Seen | None = None) -> None:
        """Park a run that has rested for the grace time, or see to it that somebody comes back to look.

        One on a loop may have to hear of something in the loop's next turn, of a timeout that is over: first that.

        Args:
            run: rests, or not.
            rested: no line of it is being executed on a loop, or is about to be.
            ahead: where those stand that it will wait for next; None before anybody has looked.
        """
        with self._lock:
            if run.dead is not None or run.busy or run.parking or run.settling or not run.waits:
                return
            awaits = run.forked or any(waiting.wait.awaits for waiting in run.waits)
            left = run.stirred + (self._grace if awaits else 0.0) - self._timers.clock.monotonic()
            if left > 0:
                run.settling = True
                self._timers.after(left, lambda: self._parker.quietly(run, lambda: self._again(run, ahead)))
                return
            gathering = _gathering(run)
            if gathering is not None and ahead is None:
                run.settling = True
                self._look_ahead(run, gathering.then)
                return
            if run.tasks and not rested:
                run.settling = True
                self._parker.quietly(run, lambda: self._again(run, ahead))
                return
            instants = [waiting.wait.until for waiting in run.waits if waiting.wait.until is not None]
            instants += [timer.until for timer in tuple(run.timers)]
            until = min(instants, default=None)
            if until is not None and until - self._parker.now() <= self._grace:
                return  # whoever ends that wait comes here again
            if gathering is not None:
                park = _for_all(gathering, until, ahead or {})
            else:
                park = Park(until, tuple(sorted({target for it in run.waits for target in it.wait.awaits})))
            run.parking = True
        self._parker.park(run, park).add_done_callback(lambda it: self._parked(run, it))

    def _again(self, run: Run, ahead: Seen | None) -> None:
        run.settling = False
        self._settle(run, rested=True, ahead=ahead)

    def _look_ahead(self, run: Run, next_ones: tuple[str, ...]) -> None:
        """Ask where those stand that a run will wait for next, and come back."""

        def looked(answer: Future[Mapping[str, Outcome]]) -> None:
            run.settling = False
            self._settle(run, ahead={} if answer.exception() else dict(answer.result()))

        self._store.submit(Look(next_ones)).add_done_callback(looked)

    def _parked(self, run: Run, answer: Future[Advanced]) -> None:
        """Leave with a parked run; one that was refused has an awaited workflow that has ended, and goes on."""
        error = answer.exception()
        if error is not None or answer.result().parked:
            self.abandon(run, error or run.die(Suspended(f"{run.id} waits.")))
            return
        with self._lock:
            run.parking = False
            waits = tuple(run.waits)
        for waiting in waits:
            if waiting.wait.awaits:
                self.end(waiting, {})
            else:
                self._wind(waiting)


def _gathering(run: Run) -> Wait | None:
    """Give the wait of a run that waits for one workflow, and will for others next, in the order of its code."""
    awaiting = [waiting.wait for waiting in run.waits if waiting.wait.awaits]
    return awaiting[0] if len(awaiting) == 1 and awaiting[0].then else None


def _for_all(wait: Wait, until: float | None, ahead: Seen) -> Park:
    """Say what wakes a run that waits for many: it is to be replayed once, and not once for each.

    So it is parked for the last that has not ended; and where it goes on at the first that fails, for the failure of
    those before it.
    """
    targets = [*wait.awaits]
    for target in wait.then:
        outcome = ahead.get(target)
        lives = outcome is not None and not outcome.status.ended and outcome.status is not Status.HELD
        if lives and target not in targets:
            targets.append(target)
        elif not lives and wait.fail_fast and (outcome is None or outcome.status is not Status.SUCCEEDED):
            break
    if wait.fail_fast:
        return Park(until, tuple(targets), tuple(targets[:-1]))
    return Park(until, (targets[-1],))
