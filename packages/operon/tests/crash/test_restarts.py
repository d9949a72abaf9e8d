"""The database goes away in the middle, in an orderly way or not: work waits and goes on, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import chosen, serve
from crash.campaign import Campaign
from operon.embedded import Postgres

RESTARTS = 6


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server of the test's own, for no other test survives what is done to it."""
    yield from serve(chosen(), fsync=False)


def test_the_database_restarts_in_the_middle(own_postgres: Postgres, tmp_path: Path) -> None:
    """Stopped and started, and killed and recovered, in turn, while workers work, one of which dies each time."""
    server = own_postgres
    campaign = Campaign(server.create_database("crash"), tmp_path, workers=2, seed=3)
    try:
        for n in range(RESTARTS):
            campaign.kill(named=False)
            for worker in campaign.workers:
                campaign.order(3, worker)
            campaign.listen(campaign.chance.random() * 0.2)
            if n % 2 == 0:
                server.restart()
            else:
                server.kill()
                server.start()
        campaign.settle()
        report = campaign.judge()
    finally:
        campaign.close()
    assert not report.violations
    assert report.workflows > 6 * RESTARTS
