"""Kill processes while they work, start them again, and hold what is left against the laws."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from children import PATIENCE
from crash.effects import Effect, Effects
from crash.evidence import Database, Evidence
from crash.fleet import Worker, first_words
from crash.laws import executions_again, replay_violations, violations
from crash.points import KINDS, RARE, Point
from crash.program import ACCOUNTS, SCHEMA
from crash.worker import Birth, Order, Word

STRANDED = 30.0
"""Seconds after the last fault in which everything must have ended."""
FLIGHT = 40
"""Workflows that may be unfinished before fewer orders are given."""
ORDERS = 5
UNREACHED = 1.0
"""Seconds in which a named point is reached, or the worker is killed wherever it is."""
PERSISTENT = 4
"""So many times the kills that are wanted, at most, until enough points were met."""
AT_RANDOM = 0.25
"""Seconds, drawn from zero up, that a worker has until it is killed at any instant."""


REWIND = (
    "update $workflows set status = 0, claim = claim + 1, executor = null, output = null, error = null, "
    "ended_at = null, ready_at = created_at where "
)
"""Makes workflows that have ended ready to be run, with all that they have recorded."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One death: where, when, and what the dead one ran, as (id, claim) of what had never been taken over before."""

    point: str
    at: float
    held: tuple[tuple[str, int], ...]


@dataclass(slots=True)
class Report:
    """What a campaign came to."""

    seed: int
    seconds: float = 0.0
    kills: list[Kill] = field(default_factory=list[Kill])
    workflows: int = 0
    again: int = 0
    replayed: int = 0
    takeovers: list[float] = field(default_factory=list[float])
    violations: list[str] = field(default_factory=list[str])

    def by_point(self) -> Counter[str]:
        """Count the kills of each point."""
        return Counter(kill.point for kill in self.kills)


class Campaign:
    """Some workers on one database, orders for them, and their deaths."""

    def __init__(self, url: str, directory: Path, *, workers: int, seed: int, lease: float = 1.2) -> None:
        self.database = Database(url)
        self.database.create(SCHEMA)
        self.effects = Effects(directory / "effects.jsonl")
        self.birth = Birth(url, self.effects.path, lease, log=directory / "workers.log")
        self.chance = random.Random(seed)
        self.report = Report(seed)
        self.orders: dict[str, Order] = {}
        self.open: dict[str, Order] = {}
        """Orders that nobody has acknowledged."""
        self.accepted: set[str] = set()
        self.told: list[tuple[str, object]] = []
        self._numbers = count(1)
        self._points = self._shuffled()
        self.workers = [self.start() for _ in range(workers)]

    # ── Working ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, point: Point | None = None) -> Worker:
        """Start a worker, trapped or not."""
        return Worker(Birth(self.birth.url, self.birth.effects, self.birth.lease, point, self.birth.log))

    def order(self, orders: int, victim: Worker) -> None:
        """Give new orders, of every kind in turn, to the one that will die."""
        for _ in range(orders):
            order = self._draw(next(self._numbers))
            self.orders[order.key] = self.open[order.key] = order
            victim.give(order)

    def _draw(self, n: int) -> Order:
        kind = ("order", "move", "branched", "plain", "start")[n % 5]
        key = f"{kind}-{n}"
        if kind in ("move", "start"):
            return Order(key, "move", (key, n % ACCOUNTS, n, []), call=kind == "move")
        return Order(key, kind, (key, n) if kind == "order" else (n,))

    def listen(self, seconds: float = 0.0) -> None:
        """Hear the workers, and note what they acknowledge."""
        for word in first_words([it for it in self.workers if it.alive], seconds):
            self._heard(word)

    def _heard(self, word: Word) -> None:
        order = word.order
        if order is None:
            return
        if word.what == "failed":
            self.report.violations.append(f"{order.key} was refused: {word.value}")
        self.open.pop(order.key, None)
        self.accepted.add(order.key)
        if word.what == "answered":
            self.told.append((order.key, word.value))

    # ── Killing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def kill(self, *, named: bool) -> None:
        """End one worker, at a named point or at any instant, and start another in its place."""
        dead = [place for place, worker in enumerate(self.workers) if not worker.alive]
        place = self.chance.choice(dead or range(len(self.workers)))
        victim = self.workers[place]
        self._await_ready(victim)
        self.order(ORDERS if self.database.unfinished() < FLIGHT else 1, victim)
        point = victim.birth.point
        self._until_dead(victim, UNREACHED if point is not None else self.chance.random() * AT_RANDOM)
        reached = point is not None and not victim.alive
        victim.kill()
        self._mourn(victim, str(point) if reached else "any instant")
        self.workers[place] = heir = self.start(next(self._points) if named else None)
        for order in victim.orders.values():
            heir.give(order)

    def _await_ready(self, worker: Worker) -> None:
        """Wait until a worker runs, or has met its point on the way."""
        deadline = time.monotonic() + PATIENCE
        while worker.alive and not worker.executor and time.monotonic() < deadline:
            for word in worker.words(0.2):
                self._heard(word)
        if worker.alive and not worker.executor:
            raise AssertionError(f"worker {worker.pid} did not start: {_tail(self.birth.log)}")

    def _until_dead(self, worker: Worker, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while worker.alive and (left := deadline - time.monotonic()) > 0:
            self.listen(left)

    def _mourn(self, victim: Worker, point: str) -> None:
        at = time.monotonic()
        for word in victim.words():
            self._heard(word)
        held = self.database.held_by(victim.executor) if victim.executor else []
        victim.close()
        self.report.kills.append(
            Kill(point, at, tuple((key, claim) for key, claim, takeovers in held if not takeovers))
        )

    def _shuffled(self) -> Iterator[Point]:
        """Every point in turn, in an order of chance, each time at another commit of its kind."""
        while True:
            points = [(kind, after) for kind in KINDS for after in (False, True)]
            self.chance.shuffle(points)
            for kind, after in points:
                yield Point(kind, after, 1 if kind in RARE else self.chance.randint(1, 5))

    # ── Judging ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def settle(self) -> None:
        """Kill no more; wait until everything that was accepted, or may have been, has ended."""
        for place, worker in enumerate(self.workers):
            if worker.birth.point is not None:
                self._await_ready(worker)
                worker.kill()
                self._mourn(worker, "any instant")
                self.workers[place] = self.start()
        lost = [order for order in self.open.values() if not any(order.key in it.orders for it in self.workers)]
        for order in lost:
            self.chance.choice(self.workers).give(order)
        self._until(lambda: not self.open and not self.database.unfinished(), STRANDED + self.database.patience())
        self.report.violations += [f"{key} was never acknowledged" for key in self.open]

    def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not condition():
            self.listen(0.05)

    def replay(self) -> None:
        """Run everything that has ended once more: the journals are complete, so nothing happens, and all is equal."""
        before = self.evidence()
        for generation in ("parent is null", "parent is not null"):
            self.database.rows(REWIND + generation)
            self._until(lambda: not self.database.unfinished(), STRANDED + 0.05 * len(before.workflows))
        self.report.replayed = len(before.workflows)
        self.report.violations += replay_violations(before, self.evidence())

    def evidence(self) -> Evidence:
        """Gather everything."""
        expected: dict[str, tuple[int, int]] = {}
        for order in self.orders.values():
            expected |= transfers(order)
        return Evidence(
            frozenset(self.accepted),
            expected,
            self.database.workflows(),
            self.database.records(),
            self.database.moves(),
            self.database.balances(),
            tuple(self.effects.read()),
            tuple(self.told),
        )

    def judge(self) -> Report:
        """Hold the evidence against the laws; if it is sound, replay everything."""
        evidence = self.evidence()
        self.report.workflows = len(evidence.workflows)
        self.report.again = executions_again(evidence)
        self.report.violations += violations(evidence)
        self.report.takeovers = sorted(_takeovers(self.report.kills, evidence))
        if not self.report.violations:
            self.replay()
        return self.report

    def close(self) -> None:
        """End every process."""
        for worker in self.workers:
            worker.close()
        self.effects.close()


def run(campaign: Campaign, kills: int, points: int = 0) -> Report:
    """Kill so many times, at named points and at any instant in turn, and judge what is left.

    On a slow machine, workers are killed before they come to their points: it goes on until so many of these were met,
    but not for ever.
    """
    begun = time.monotonic()
    try:
        for n in range(kills * PERSISTENT):
            if n >= kills and len(campaign.report.by_point()) > points:  # one of them is "any instant"
                break
            campaign.kill(named=n % 2 == 0)
        campaign.settle()
        report = campaign.judge()
    finally:
        campaign.close()
    report.seconds = time.monotonic() - begun
    return report


def transfers(order: Order) -> dict[str, tuple[int, int]]:
    """Say which transfers an order makes, once it is done: the account and the cents of each key."""
    if order.kind == "move":
        key, account, cents, _ = order.args
        return {key: (account, cents)}
    if order.kind != "order":
        return {}
    key, n = order.args
    return {
        f"{key}/debit": (n % ACCOUNTS, -100),
        f"{key}/credit": ((n + 3) % ACCOUNTS, 100),
        f"{key}/inline/parcel": (n % ACCOUNTS, 7),
        f"{key}/behind/parcel": ((n + 1) % ACCOUNTS, 7),
    }


def _takeovers(kills: list[Kill], evidence: Evidence) -> Iterator[float]:
    """Measure, from each death on, how soon others ran again what had never been taken over before."""
    claims: dict[str, list[Effect]] = defaultdict(list)
    for effect in evidence.effects:
        if effect.kind == "claim":
            claims[effect.workflow].append(effect)
    for kill in kills:
        for workflow, claim in kill.held:
            later = [it.at for it in claims[workflow] if it.claim > claim]
            if later:
                yield min(later) - kill.at


def _tail(log: Path | None) -> str:
    return log.read_text()[-2000:] if log is not None and log.exists() else "it said nothing"
