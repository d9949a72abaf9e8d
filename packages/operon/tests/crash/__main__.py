"""`make crash KILLS=1000 [DATABASE=postgres|sqlite|both] [SEED=n]`: kill at length, and print what came of it."""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from crash.campaign import Campaign, Report, run
from operon.embedded import Postgres

EPISODE = 100
"""Kills on one database; then a fresh one begins, so that judging never takes longer than killing."""
WORKERS = {"sqlite": 1, "postgres": 3}


def main() -> int:
    """Run the campaigns; the exit code is 1 if any law was broken."""
    options = _options()
    databases = ["sqlite", "postgres"] if options.database == "both" else [options.database]
    directory = Path(tempfile.mkdtemp(prefix="operon-crash-"))
    print(f"seed {options.seed}; workers log to {directory}", flush=True)
    broken = False
    for database in databases:
        reports = list(_episodes(database, options.kills // len(databases), options.seed, directory))
        _print(database, reports)
        broken = broken or any(report.violations for report in reports)
    if not broken:
        shutil.rmtree(directory)
    return int(broken)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="in all")
    parser.add_argument("--database", choices=["sqlite", "postgres", "both"], default="both")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    return parser.parse_args()


def _episodes(database: str, kills: int, seed: int, directory: Path) -> Iterator[Report]:
    with _databases(database, directory) as urls:
        for first in range(0, kills, EPISODE):
            place = directory / f"{database}-{first}"
            place.mkdir()
            campaign = Campaign(next(urls), place, workers=WORKERS[database], seed=seed + first)
            report = run(campaign, min(EPISODE, kills - first))
            state = f"{len(report.violations)} violations" if report.violations else "sound"
            print(f"{database}: {first + len(report.kills)} kills, {report.seconds:.0f} s, {state}", flush=True)
            yield report


@contextmanager
def _databases(database: str, directory: Path) -> Generator[Iterator[str]]:
    """Give fresh databases, one after the other."""
    if database == "sqlite":
        yield (f"sqlite:///{directory}/crash-{n}.db" for n in range(sys.maxsize))
        return
    with Postgres(directory / "postgres", fsync=False) as server:
        yield (server.create_database(f"crash_{n}") for n in range(sys.maxsize))


def _print(database: str, reports: list[Report]) -> None:
    points = sum((report.by_point() for report in reports), Counter[str]())
    takeovers = sorted(second for report in reports for second in report.takeovers) or [0.0]
    violations = [broken for report in reports for broken in report.violations]
    facts = {
        "kills": points.total(),
        "workflows": sum(report.workflows for report in reports),
        "executions of steps repeated (allowed)": sum(report.again for report in reports),
        "workflows replayed": sum(report.replayed for report in reports),
        "taken over, first time": len(takeovers),
        "  seconds to go on, median": f"{median(takeovers):.2f}",
        "  seconds to go on, longest": f"{takeovers[-1]:.2f}",
        "stranded": sum("stranded" in broken for broken in violations),
        "violations": len(violations),
    }
    print(f"\n{database}")
    for name, value in (*((f"  killed {point}", n) for point, n in sorted(points.items())), *facts.items()):
        print(f"  {name:<44}{value:>10}")
    for broken in violations[:50]:
        print(f"  VIOLATION {broken}")
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
