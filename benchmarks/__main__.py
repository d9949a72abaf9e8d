"""Measure, and report: `make bench`, `make bench BENCH="w1 w2" PEERS=1`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks import plots, report, syncing
from benchmarks.catalogue import MISSING, WORKLOADS
from benchmarks.children import ROOT, Child, surroundings
from benchmarks.databases import Databases
from benchmarks.figures import OURS, Finding, Missing, read
from benchmarks.machine import facts
from benchmarks.peers import environments
from benchmarks.program import Task
from benchmarks.sizes import QUICK, Size
from operon.embedded import Postgres

CACHE = ROOT / ".operon" / "benchmarks"
REPORTS = ROOT / "docs" / "reports" / "benchmarks"
SETTINGS = {"max_connections": "300", "shared_buffers": "1GB"}


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is measured: us, or a peer."""

    name: str
    command: tuple[str, ...]
    """A Python, and where its programs are."""
    environment: Mapping[str, str]

    def measure(self, task: Task, program: str, patience: float) -> Iterator[Finding]:
        """Run a program to its end, and give what it found; say so if it did not get there."""
        child = Child([*self.command, program, task.written()], self.environment, group=True)
        try:
            for line in child.lines(patience):
                try:
                    yield read(line)
                except (ValueError, TypeError):
                    continue  # a library that prints
            code = child.process.wait(30)
            if code:
                print(child.complaint(), file=sys.stderr)
                yield Missing(f"its program failed with exit code {code}", self.name)
        except TimeoutError:
            print(child.complaint(), file=sys.stderr)
            yield Missing(f"its program said nothing for {patience:.0f} s and was ended", self.name)
        finally:
            child.close(0)


@dataclass(frozen=True, slots=True)
class Run:
    """What one run measures, and where."""

    databases: Databases
    size: Size
    rounds: int
    peers: tuple[Subject, ...]
    absent: tuple[Missing, ...]
    notes: Mapping[str, str]

    def reports(self, name: str, kinds: tuple[str, ...]) -> Iterator[report.Report]:
        """Measure one workload on each database: us and the peers by turns, so that all see the same machine."""
        workload = WORKLOADS[name]
        for kind in workload.databases:
            if kind not in kinds:
                continue
            found = report.Report(name, workload, kind, notes=self.notes)
            for _ in range(self.rounds):
                for subject, program in self._subjects(name, kind):
                    with self.databases.fresh(kind, logged=workload.logged) as url:
                        task = Task(
                            name, kind, url, self.size, str(self.databases.directory), str(self.databases.server.log)
                        )
                        found.add(subject.measure(task, program, workload.patience))
            if any(name in environments.PEERS[it.subject].workloads for it in self.absent):
                found.add(self.absent)
            yield found

    def _subjects(self, name: str, kind: str) -> Iterator[tuple[Subject, str]]:
        yield ours(), f"benchmarks.workloads.{WORKLOADS[name].module}"
        for peer in self.peers:
            if kind in environments.PEERS[peer.name].workloads.get(name, ()):
                yield peer, f"benchmarks.peers.{peer.name}"


def ours() -> Subject:
    """Give this checkout."""
    return Subject(OURS, (sys.executable, "-m"), surroundings())


def peers(names: list[str], console: Console) -> Iterator[Subject | Missing]:
    """Make the environments that are not there; what cannot be had is named."""
    for name in names:
        console.print(f"Looking for {name} ...", highlight=False)
        try:
            python = environments.python_of(name)
        except environments.Unobtainable as error:
            yield Missing(str(error), name)
        else:
            yield Subject(name, (str(python), "-m"), environments.environment())


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {' '.join(WORKLOADS)}; default: all")
    parser.add_argument("--peers", nargs="*", metavar="PEER", help=f"compare with {' '.join(environments.PEERS)}")
    parser.add_argument("--database", choices=["postgres", "sqlite"], action="append", help="only this one")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--size", default="", help="sizes by name: 'sleepers=5000 finished=10000000'")
    parser.add_argument("--rounds", type=int, help="how often all is measured; medians are shown (3; 1 if quick)")
    parser.add_argument("--directory", type=Path, help="where the databases are: on which disk, or in memory")
    parser.add_argument("--fsync-us", type=int, help="simulate a disk whose syncs take so many microseconds")
    parser.add_argument("--output", type=Path, help="where the report goes")
    given = parser.parse_args()
    known = {*WORKLOADS, *MISSING}
    if unknown := [name for name in given.workloads if name not in known]:
        parser.error(f"There is no workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}.")
    if unknown := [name for name in given.peers or () if name not in environments.PEERS]:
        parser.error(f"There is no peer {unknown[0]!r}; there are {', '.join(environments.PEERS)}.")
    given.kinds = (*(given.database or ("postgres", "sqlite")), *(() if given.database else ("none",)))
    given.output = given.output or (CACHE / "quick" if given.quick else REPORTS)
    return given


def main() -> None:
    """Measure what was asked for."""
    given = arguments()
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        size = (QUICK if given.quick else Size()).but(given.size)
    except ValueError as error:
        sys.exit(str(error))
    wanted = given.peers or (list(environments.PEERS) if given.peers is not None else [])
    found = list(peers(wanted, console))
    place = given.directory or (CACHE if given.fsync_us is None else syncing.MEMORY)
    place.mkdir(parents=True, exist_ok=True)
    with (
        syncing.simulated(given.fsync_us),
        tempfile.TemporaryDirectory(dir=place) as directory,
        Postgres(Path(directory) / "postgres", settings=SETTINGS) as server,
    ):
        subjects = tuple(it for it in found if isinstance(it, Subject))
        known = facts(server, Path(directory))
        if given.fsync_us is not None:
            if not syncing.reaches(server.pid):
                sys.exit("The simulated disk did not reach the server: its account could not load the library.")
            known |= {"fsync_us": given.fsync_us, "fsync": "simulated"}
        known["sizes"] = "quick" if given.quick else given.size or "full"
        known |= {f"version of {it.name}": environments.version(it.name) for it in subjects}
        run = Run(
            Databases(server, Path(directory)),
            size,
            given.rounds or (1 if given.quick else 3),
            subjects,
            tuple(it for it in found if isinstance(it, Missing)),
            environments.notes(simulated=given.fsync_us is not None),
        )
        console.print("  ".join(f"{name} {value}" for name, value in known.items()), highlight=False)
        measure(run, given, known, console)


def measure(run: Run, given: argparse.Namespace, known: dict[str, str | int | float], console: Console) -> None:
    """Measure one workload after the other, and report each as soon as it is done."""
    if not plots.possible():
        console.print("No plots: matplotlib is not installed; `pip install --group bench` brings it.")
    for name in given.workloads or (*WORKLOADS, *MISSING):
        if why := MISSING.get(name):
            console.print(f"{name}: not measured: {why}", highlight=False)
            continue
        reports = list[report.Report]()
        for each in run.reports(name, given.kinds):
            reports.append(each)
            report.show(each, console)
        if not reports:
            continue
        report.write(name, reports, known, given.output)
        if plots.possible():
            plots.draw(name, reports, given.output)
    console.print(f"Written to {os.path.relpath(given.output, ROOT)}", highlight=False)


if __name__ == "__main__":
    main()
