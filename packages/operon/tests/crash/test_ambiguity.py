"""Connections lost with a commit pending, before the server had it or after it did it: everything happens once."""

from __future__ import annotations

from pathlib import Path

import pytest

from crash.points import Point
from crash.proxy import Fault, Proxy, Rule
from crash.stage import Stage
from crash.worker import Order

LOSSES = pytest.mark.parametrize("fault", [Fault.LOST, Fault.ANSWER_LOST], ids=["before", "after"])

START = b"\x00start\x00"
"""How a prepared statement is named in the message that runs it."""
RECORD = b"\x00write\x00"
END = b"\x00write_and_finish\x00"
COMMIT = b"commit\x00"
CLAIM = b"with picked as materialized"


@LOSSES
@pytest.mark.parametrize(
    ("match", "order"),
    [
        (START, Order("plain-3", "plain", (3,))),
        (START, Order("plain-3", "plain", (3,), reject=True)),
        (RECORD, Order("plain-3", "plain", (3,))),
        (END, Order("plain-4", "plain", (4,))),
        (COMMIT, Order("order-1", "order", ("order-1", 1))),
        (COMMIT, Order("move-1", "move", ("move-1", 1, 5, []), call=True)),
        (COMMIT, Order("move-1", "move", ("move-1", 1, 5, []), call=True, reject=True)),
    ],
    ids=["start", "start, or reject", "record", "end", "transaction", "alone", "alone, or reject"],
)
def test_what_may_have_committed_happens_once(
    fault: Fault, match: bytes, order: Order, postgres_url: str, tmp_path: Path
) -> None:
    """The connection is lost with the commit pending: it is done once, and its caller hears that it is."""
    rule = Rule(match, fault)
    with Stage(postgres_url, tmp_path) as stage, Proxy(postgres_url, rule) as proxy:
        worker = stage.worker(url=proxy.url)
        stage.give(worker, order)
        rule.await_met()
        word = worker.until("answered" if order.call else "accepted")
        if order.call:
            stage.told.append((order.key, word.value))
        stage.ended()
        steps = [(it.position, it.attempt) for it in stage.steps(order.key)]
        assert len(set(steps)) == len(steps), "a step ran again, and no process had died"
        assert not stage.violations()


def test_a_key_that_is_taken_is_refused_for_another(postgres_url: str, tmp_path: Path) -> None:
    """`on_duplicate="reject"` is for others: once it was told that it started, a second caller is refused."""
    order = Order("plain-3", "plain", (3,), reject=True)
    with Stage(postgres_url, tmp_path) as stage:
        worker = stage.worker()
        stage.give(worker, order)
        worker.until("accepted")
        stage.give(worker, order)
        worker.until("duplicate")
        stage.ended()


def test_a_claim_whose_answer_was_lost_is_found_by_a_heartbeat(postgres_url: str, tmp_path: Path) -> None:
    """The database says that it runs here, and it does not: the heartbeat finds that out, and it is run."""
    order = Order("plain-3", "plain", (3,))
    rule = Rule(CLAIM, Fault.ANSWER_LOST)
    with Stage(postgres_url, tmp_path) as stage, Proxy(postgres_url, rule) as proxy:
        dead = stage.worker(Point("record", after=False))
        stage.give(dead, order)
        dead.ends()
        worker = stage.worker(url=proxy.url)
        rule.await_met()
        stage.until(lambda: stage.claims(order.key), "it is claimed again")
        stage.ended()
        beats = stage.database.rows("select claim & 1048575, attempts from $workflows where id = ?", order.key)
        assert beats == [(4, 3)], "the first claim, the takeover, the lost claim, and the one that counted"
        assert worker.alive
        assert not stage.violations()
