"""How soon the work of the dead goes on: by lease where others live, at once where the death is provable."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from crash.points import Point
from crash.stage import BEATS, Stage
from crash.worker import Order


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_the_living_take_over_soon(after: bool, postgres_url: str, tmp_path: Path) -> None:
    """After kill -9, some heartbeats after the lease of a second: nobody is told, nothing is restarted."""
    with Stage(postgres_url, tmp_path) as stage:
        heir = stage.worker()
        order = Order("plain-3", "plain", (3,))
        victim = stage.worker(Point("record", after=after))
        stage.watch(victim)
        stage.give(victim, order)
        victim.ends()
        died = stage.beats()
        stage.until(partial(stage.claims, order.key), "the heir takes over")
        (claim,) = stage.claims(order.key)
        assert claim.executor == heir.executor
        ((_, _, beats),) = stage.losses()
        assert beats[heir.executor] - died[heir.executor] <= BEATS
        stage.ended()
        assert not stage.violations()


def test_a_restart_takes_over_at_once(tmp_path: Path) -> None:
    """The old process is provably gone, so its lease, however long, is not waited for; and so again and again."""
    with Stage(f"sqlite:///{tmp_path}/test.db", tmp_path, lease=600.0) as stage:
        order = Order("plain-3", "plain", (3,))
        victim = stage.worker(Point("record", after=True))
        stage.give(victim, order)
        victim.ends()
        heir = stage.worker()
        stage.ended()
        assert [claim.executor for claim in stage.claims(order.key)] == [heir.executor]
        assert not stage.violations()


def test_a_child_is_not_run_again_by_a_parent_that_finds_it(postgres_url: str, tmp_path: Path) -> None:
    """A parent dies between its child's start and the record of it: the replay joins the child, wherever it runs."""
    with Stage(postgres_url, tmp_path) as stage:
        order = Order("order-1", "order", ("order-1", 1))
        victim = stage.worker(Point("Start", after=True, nth=3))
        stage.give(victim, order)
        victim.ends()
        stage.worker()
        stage.ended()
        assert not stage.violations()
