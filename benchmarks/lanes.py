"""What a journal record costs the lanes of Postgres: `python -m benchmarks.lanes URL`, an empty database of your own.

Processor time, not the clock's: of the threads that work the lanes, of the thread that submits, and of the server. The
threads share the interpreter with everybody's workflows, so what a lane takes is missing there.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import psycopg

from operon.core.commands import Advance, Enlist, Start
from operon.core.rows import Entry, Kind, NewWorkflow, Outcome, Process
from operon.core.states import Status
from operon.stores.postgres import PostgresStore, lanes

EXECUTOR = Process("benchmark", "here", 1, "now", "v1", 3600.0)
CLAIM = 1
DONE = Outcome(Status.SUCCEEDED, output="1")
WAIT = 60.0
MICRO = 1e6


@dataclass(slots=True)
class Bill:
    """Seconds of processor time."""

    records: int = 0
    clock: float = 0.0
    lanes: float = 0.0
    caller: float = 0.0
    server: float = 0.0
    calls: Counter[str] = field(default_factory=Counter[str])

    def line(self, what: str) -> str:
        """Say what one record costs, in microseconds."""
        each = MICRO / self.records
        return (
            f"{what:<24} lanes {self.lanes * each:6.2f}   caller {self.caller * each:6.2f}   "
            f"server {self.server * each:6.2f}   clock {self.clock * each:6.2f} us a record"
        )


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("url")
    words.add_argument("--workflows", type=int, default=1_000, help="that write at once")
    words.add_argument("--rounds", type=int, default=20, help="records of each")
    words.add_argument("--lanes", type=int, default=2)
    words.add_argument("--largest", type=int, default=lanes.LARGEST, help="commands a commit")
    words.add_argument("--calls", action="store_true", help="count the calls of the lanes' threads, and nothing else")
    given = words.parse_args()
    lanes.LARGEST = given.largest
    with closing(PostgresStore(given.url, lanes=given.lanes)) as store:
        store.open()
        executor = store.ask(Enlist(EXECUTOR))
        if given.calls:
            show_calls(store, executor, given.workflows, given.rounds)
            return
        for _ in range(2):
            ids = fresh(given.workflows)
            starts, records, ends = bills(store, given.url, executor, ids, given.rounds)
            print(starts.line("starts"), records.line("records"), ends.line("last records and ends"), sep="\n")


def bills(store: PostgresStore, url: str, executor: int, ids: list[str], rounds: int) -> tuple[Bill, Bill, Bill]:
    """Start workflows, have each write a record a round, and end with the last one."""
    starts, records, ends = Bill(), Bill(), Bill()
    with psycopg.connect(url, autocommit=True) as connection:
        with charged(starts, connection, len(ids)):
            wait([store.submit(start(key, executor)) for key in ids])
        for turn in range(rounds):
            commands = [record(key, turn) for key in ids]
            with charged(records, connection, len(ids)):
                wait([store.submit(command) for command in commands])
        commands = [record(key, rounds, DONE) for key in ids]
        with charged(ends, connection, len(ids)):
            wait([store.submit(command) for command in commands])
    return starts, records, ends


def show_calls(store: PostgresStore, executor: int, workflows: int, rounds: int) -> None:
    """Print what is called how often for a record, by the lanes."""
    ids, calls = fresh(workflows), Counter[str]()
    with counted(calls):  # before the threads are made
        wait([store.submit(start(key, executor)) for key in ids])
        calls.clear()
        for turn in range(rounds):
            wait([store.submit(record(key, turn)) for key in ids])
    records = workflows * rounds
    print(f"{calls.total() / records:.2f} calls a record")
    for name, number in calls.most_common(25):
        print(f"  {number / records:6.3f} {name}")


def fresh(number: int) -> list[str]:
    stem = f"01a{time.time_ns():x}"
    return [f"{stem}-{n:06x}" for n in range(number)]


def start(key: str, executor: int) -> Start:
    return Start(NewWorkflow(key, "flow", "[10]", "0123456789abcdef", nonce=1, executor=executor, version="v1"))


def record(key: str, turn: int, end: Outcome | None = None) -> Advance:
    entry = Entry(str(turn + 1), turn + 1, Kind.STEP, "one", "0123456789abcdef", str(turn), version="v1", elapsed=0.001)
    return Advance(key, CLAIM, (entry,), end)


def wait(futures: list[Any]) -> None:
    for future in futures:
        answer = future.result(WAIT)
        assert getattr(answer, "written", True)


@contextmanager
def charged(bill: Bill, connection: psycopg.Connection[Any], records: int) -> Generator[None]:
    """Add to a bill what is used meanwhile."""
    before = used(connection), time.thread_time(), time.perf_counter()
    yield
    after = used(connection), time.thread_time(), time.perf_counter()
    bill.records += records
    bill.lanes += after[0][0] - before[0][0]
    bill.server += after[0][1] - before[0][1]
    bill.caller += after[1] - before[1]
    bill.clock += after[2] - before[2]


def used(connection: psycopg.Connection[Any]) -> tuple[float, float]:
    """What the lanes' threads have used until now, and the processes of the server that serve them."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("operon-lane")]
    clocks = [time.pthread_getcpuclockid(thread.ident) for thread in threads if thread.ident]
    pids = connection.execute("select pid from pg_stat_activity where application_name = 'operon lane'").fetchall()
    return sum(map(time.clock_gettime, clocks)), sum(time.clock_gettime(clock_of(pid)) for (pid,) in pids)


def clock_of(pid: int) -> int:
    """The clock of another process' processor time, as `clock_getcpuclockid(3)` spells it; Linux only."""
    return (~pid << 3) | 2


@contextmanager
def counted(calls: Counter[str]) -> Generator[None]:
    """Count the calls of the lanes' threads that begin meanwhile."""

    def seen(frame: FrameType, event: str, what: Any) -> None:
        if event == "call":
            calls[f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_code.co_qualname}"] += 1
        elif event == "c_call":
            calls[f"C {getattr(what, '__qualname__', what)}"] += 1

    def begun(*_: object) -> None:
        ours = threading.current_thread().name.startswith("operon-lane")
        sys.setprofile(seen if ours else None)

    profile: Callable[..., Any] = begun
    threading.setprofile(profile)
    try:
        yield
    finally:
        threading.setprofile(None)


if __name__ == "__main__":
    main()
