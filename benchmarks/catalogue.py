"""Which workloads there are, where each makes sense, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass

BOTH = ("postgres", "sqlite")
OTHERS = ("absurd", "restate", "temporal")
"""Peers with steps, beside dbos."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure of ours is to reach: `case` is how its case begins."""

    case: str
    limit: float
    against: str = ""
    """Nothing: a value. The floor: at most so many times worse. A peer: it is to be so many times worse than we."""

    @property
    def text(self) -> str:
        """Say it."""
        if not self.against:
            return f"{self.limit:g}"
        return f"{self.limit:g} x {self.against}"


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of work, and the program that measures it."""

    title: str
    module: str
    floor: str = ""
    databases: tuple[str, ...] = BOTH
    goals: tuple[Goal, ...] = ()
    patience: float = 600.0
    """Seconds after which its program, if it has said nothing, is ended."""
    logged: bool = False
    """Whether the server logs each statement."""


WORKLOADS: dict[str, Workload] = {
    "w1": Workload(
        "latency of one workflow",
        "latency",
        "a bare commit for its start and for each step",
        goals=(Goal("", 1.5, "floor"), Goal("", 5, "dbos"), Goal("", 3, "restate")),
    ),
    "w2": Workload(
        "many workflows at once",
        "throughput",
        "the same rows, the nth of all workflows in one commit; of a start, a bare commit",
        goals=(
            Goal("10 steps, sync", 500),
            Goal("10 steps, sync", 14, "dbos"),
            *(Goal("10 steps, sync", 5, peer) for peer in OTHERS),
            Goal("10 steps, async", 4_000),
            Goal("10 steps, async", 100, "dbos"),
            *(Goal("10 steps, async", 14, peer) for peer in OTHERS),
            Goal("a start", 1.0),
        ),
    ),
    "w3": Workload(
        "queues",
        "queues",
        "the same rows inserted, and taken by hundreds",
        goals=(
            Goal("enqueue one", 3_000),
            Goal("enqueue many", 50_000),
            Goal("drain", 20_000),
            Goal("wake an idle worker, p50", 5.0),
        ),
    ),
    "w4": Workload(
        "a workflow of one transaction",
        "latency",
        "the user's own transaction with one insert more",
        goals=(Goal("alone", 1.6, "floor"), Goal("many", 2_000)),
    ),
    "w5": Workload(
        "at rest",
        "resting",
        "Python alone; of the full queue, the idle process",
        goals=(
            Goal("import, CPU", 0.12),
            Goal("idle, statements", 1.0),
            Goal("idle, CPU", 0.1),
            Goal("full queue, statements", 1.0, "floor"),
        ),
        logged=True,
    ),
    "w6": Workload("takeover of interrupted workflows", "takeover", goals=(Goal("from the first", 0.5),)),
    "w7": Workload("sleepers due at one second", "sleepers", patience=1_800.0, goals=(Goal("all running", 20.0),)),
    "w8": Workload("workflows that come at random", "throughput"),
    "w9": Workload(
        "a long history",
        "takeover",
        "the first hundred steps",
        goals=(Goal("last steps", 1.2, "floor"), Goal("resume", 1.0)),
        patience=900.0,
    ),
    "w10": Workload(
        "POST with an idempotency key",
        "serving",
        "FastAPI and SQLAlchemy with the same insert",
        goals=(Goal("", 1.5, "floor"),),
    ),
    "w11": Workload("several processes on one database", "throughput", "one process"),
    "w12": Workload(
        "beside many finished workflows",
        "ageing",
        "the same on an empty table",
        goals=(Goal("", 1.2, "floor"),),
        patience=3_600.0,
    ),
    "lifetime": Workload(
        "what many workflows leave",
        "lifetime",
        "the rows in a new table; all deleted by a statement a table",
        databases=("postgres",),
        patience=3_600.0,
    ),
    "claims": Workload(
        "a claim before a long line", "queues", "a claim of 8 from a line of 8", databases=("postgres",)
    ),
    "heartbeat": Workload("a heartbeat while many wait for others", "store", "while nobody waits"),
    "lanes": Workload("the store alone", "store", "bare commits", databases=("postgres",)),
}
MISSING = {"w13": "messages and streams are not in the product yet"}
