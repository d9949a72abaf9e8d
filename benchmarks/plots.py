"""Plots of a report, where matplotlib is installed."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import RATE
from benchmarks.report import Report, rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

COLOURS = ("#9aa0a6", "#1a73e8", "#e8710a", "#188038", "#a142f4", "#d93025", "#12858d", "#795548")


def possible() -> bool:
    """Tell whether there is something to draw with."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(name: str, reports: Sequence[Report], directory: Path) -> None:
    """Draw a panel for each database and unit, as PNG and as SVG."""
    mpl: Any = importlib.import_module("matplotlib")
    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "operon"  # the same figures give the same file
    plt: Any = importlib.import_module("matplotlib.pyplot")

    panels = [
        (report, unit)
        for report in reports
        for unit in dict.fromkeys(unit for (_, unit), values in report.values.items() if values)
    ]
    if not panels:
        return
    heights = [0.6 + 0.9 * sum(key[1] == unit for key in report.values) for report, unit in panels]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(9, 1 + sum(heights)), squeeze=False, height_ratios=heights, layout="constrained"
    )
    for (report, unit), (axis,) in zip(panels, axes, strict=True):
        panel(axis, report, unit)
    figure.suptitle(f"{name}: {reports[0].workload.title}")
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        figure.savefig(directory / f"{name}.{kind}", dpi=110, metadata=metadata)
    plt.close(figure)


def panel(axis: Any, report: Report, unit: str) -> None:
    """Draw bars, one for each subject of each case, on a logarithmic axis."""
    keys = [key for key in report.values if key[1] == unit]
    subjects = report.subjects
    width = 0.8 / len(subjects)
    for nth, subject in enumerate(subjects):
        found = [(at, value) for at, key in enumerate(keys) if (value := report.value(key, subject))]
        if not found:
            continue
        bars = axis.barh(
            [at + (nth - (len(subjects) - 1) / 2) * width for at, _ in found],
            [value for _, value in found],
            width * 0.9,
            label=subject,
            color=COLOURS[nth % len(COLOURS)],
        )
        axis.bar_label(bars, [rounded(value) for _, value in found], padding=3, fontsize=7)
    axis.set_yticks(range(len(keys)), [case for case, _ in keys])
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.margins(x=0.15)
    better = "more is better" if unit == RATE else "less is better"
    axis.set_xlabel(f"{'a second' if unit == RATE else unit} ({better})", fontsize=8)
    axis.set_title(report.database if report.database != "none" else "", fontsize=9, loc="left")
    axis.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
