"""Processes killed with SIGKILL, at any instant and before and after each commit: nothing is lost, or done twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from crash.campaign import Campaign, run
from crash.points import KINDS

KILLS = 52


@pytest.mark.slow
def test_nothing_is_lost_on_sqlite(tmp_path: Path) -> None:
    """One process, killed and started again: what it left goes on at once."""
    report = run(Campaign(f"sqlite:///{tmp_path}/crash.db", tmp_path, workers=1, seed=1), KILLS, len(KINDS))
    assert not report.violations
    _was_no_idle_threat(len(report.kills), report.workflows, report.by_point().keys() - {"any instant"})


@pytest.mark.slow
def test_nothing_is_lost_on_postgres(postgres_url: str, tmp_path: Path) -> None:
    """Three processes share a database and its work; they die in turn, and take over from each other."""
    report = run(Campaign(postgres_url, tmp_path, workers=3, seed=2), KILLS, len(KINDS))
    assert not report.violations
    _was_no_idle_threat(len(report.kills), report.workflows, report.by_point().keys() - {"any instant"})


def _was_no_idle_threat(kills: int, workflows: int, points: set[str]) -> None:
    """A campaign that killed nobody, or nobody who worked, proves nothing."""
    assert kills >= KILLS
    assert workflows >= 2 * KILLS
    assert len(points) >= len(KINDS)
