"""What was found, as a table on the terminal and as a file of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.catalogue import Goal, Workload
from benchmarks.figures import FLOOR, OURS, RATE, Figure, Finding, Missing, times_worse

Key = tuple[str, str]
"""A case and its unit."""


@dataclass(slots=True)
class Report:
    """All that was found of one workload on one database, in all rounds."""

    name: str
    workload: Workload
    database: str
    values: dict[Key, dict[str, list[float]]] = field(default_factory=dict[Key, dict[str, list[float]]])
    missing: list[str] = field(default_factory=list[str])
    notes: Mapping[str, str] = field(default_factory=dict[str, str])
    """What a reader is to know of a subject."""

    def add(self, findings: Iterable[Finding]) -> None:
        """Note the findings of a round."""
        for found in findings:
            if isinstance(found, Missing):
                sentence = f"{found.subject}: {found.missing}"
                if sentence not in self.missing:
                    self.missing.append(sentence)
            else:
                self._add(found)

    def _add(self, figure: Figure) -> None:
        subjects = self.values.setdefault((figure.case, figure.unit), {})
        subjects.setdefault(figure.subject, []).append(figure.value)

    @property
    def subjects(self) -> list[str]:
        """Who was measured: the floor, us, and then the peers in their order."""
        found = list(dict.fromkeys(subject for values in self.values.values() for subject in values))
        return sorted(found, key=lambda subject: (subject != FLOOR, subject != OURS))

    def value(self, key: Key, subject: str) -> float | None:
        """Give the median of the rounds."""
        values = self.values[key].get(subject)
        return median(values) if values else None

    def ratio(self, key: Key, subject: str) -> float | None:
        """Say how many times worse we are than the floor, or a peer than we are."""
        value, other = self.value(key, subject), self.value(key, FLOOR if subject == OURS else OURS)
        if value is None or other is None or subject == FLOOR:
            return None
        return times_worse(value, other, key[1])

    def verdicts(self, key: Key) -> Iterator[tuple[str, bool]]:
        """Say which goals a case has, and whether each is reached."""
        for goal in self.workload.goals:
            if key[0].startswith(goal.case) and (value := self._judged(key, goal)) is not None:
                more = goal.against not in {"", FLOOR} or (key[1] == RATE and not goal.against)
                yield f"{'>=' if more else '<='} {goal.text}", value >= goal.limit if more else value <= goal.limit

    def _judged(self, key: Key, goal: Goal) -> float | None:
        if not goal.against:
            return self.value(key, OURS)
        return self.ratio(key, OURS if goal.against == FLOOR else goal.against)


def show(report: Report, console: Console) -> None:
    """Print a table: medians, how far we are from the floor, and how far each peer is from us."""
    workload = report.workload
    title = f"{report.name}: {workload.title}" + ("" if report.database == "none" else f", {report.database}")
    notes = [f"floor: {workload.floor}"] if workload.floor else []
    notes += [f"{subject}: {note}" for subject in report.subjects if (note := report.notes.get(subject))]
    table = Table(title=title, caption="\n".join(notes), title_justify="left", caption_justify="left")
    table.add_column("case", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for subject in report.subjects:
        table.add_column(subject, justify="right", no_wrap=True)
    table.add_column("goal", no_wrap=True)
    for key in report.values:
        cells = [cell(report.value(key, subject), report.ratio(key, subject)) for subject in report.subjects]
        goals = (f"{text}: {'met' if met else 'missed'}" for text, met in report.verdicts(key))
        table.add_row(*key, *cells, "\n".join(goals))
    if report.values:
        console.print(table)
    for sentence in report.missing:
        console.print(f"  not measured: {sentence}", markup=False, highlight=False)


def cell(value: float | None, ratio: float | None) -> str:
    """Write a value, and how many times worse it is than what it is compared with."""
    if value is None:
        return "-"
    return rounded(value) + ("" if ratio is None else f" ({rounded(ratio)}x)")


def rounded(value: float) -> str:
    """Write three digits that count."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write(name: str, reports: list[Report], facts: dict[str, str | int | float], directory: Path) -> Path:
    """Write all of a workload into one file."""
    text = {
        "workload": name,
        "title": reports[0].workload.title,
        "floor": reports[0].workload.floor,
        "machine": facts,
        "databases": {report.database: written(report) for report in reports},
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.json"
    path.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
    return path


def written(report: Report) -> dict[str, object]:
    """Give a report as JSON has it."""
    cases = [
        {
            "case": key[0],
            "unit": key[1],
            "subjects": {
                subject: {"median": report.value(key, subject), "times_worse": report.ratio(key, subject), "runs": runs}
                for subject, runs in subjects.items()
            },
            "goals": [{"goal": text, "met": met} for text, met in report.verdicts(key)],
        }
        for key, subjects in report.values.items()
    ]
    notes = {subject: note for subject in report.subjects if (note := report.notes.get(subject))}
    return {"cases": cases, "missing": report.missing, "notes": notes}
