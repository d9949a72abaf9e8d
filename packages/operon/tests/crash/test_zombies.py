"""Workers that are stopped in the middle, taken for dead, and come back: they change nothing any more."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from crash.fleet import Worker
from crash.points import Point
from crash.proxy import Fault, Proxy, Rule
from crash.stage import BEATS, Stage
from crash.worker import Order

ORDER = Order("order-1", "order", ("order-1", 1))
PLAIN = Order("plain-1", "plain", (3,))
MOVE = Order("move-1", "move", ("move-1", 1, 5, []), call=True)
COMMIT = b"commit\x00"
BEAT = b", renewed as ("
RUNNING, SUCCEEDED = 1, 4


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", ["record", "fence", "commit", "end", "park"])
def test_a_zombie_changes_nothing(kind: str, after: bool, postgres_url: str, tmp_path: Path) -> None:
    """Stopped before or after a commit or the fence within it, and taken over: awake again, it records nothing."""
    with Stage(postgres_url, tmp_path) as stage:
        other = stage.worker()
        zombie = stage.worker(Point(kind, after, signal=signal.SIGSTOP))
        stage.watch(zombie)
        stage.give(zombie, ORDER)
        stage.until(zombie.stopped, "the zombie stops")
        _taken_over(stage, other, stage.beats())
        _wake(stage, zombie)


@pytest.mark.parametrize(("kind", "order"), [("begin", ORDER), ("record", PLAIN), ("end", PLAIN), ("Start", ORDER)])
def test_who_has_lost_the_claim_writes_nothing(kind: str, order: Order, postgres_url: str, tmp_path: Path) -> None:
    """Only its heartbeat is lost, so it does not know; and the heir has the claim, but has written nothing yet."""
    beat = Rule(BEAT, Fault.HELD, armed=False)
    with Stage(postgres_url, tmp_path) as stage, Proxy(postgres_url, beat) as proxy:
        heir = stage.worker(Point("Claim", after=True, signal=signal.SIGSTOP))
        nth = 2 if kind == "Start" else 1  # the first is the order's own
        loser = stage.worker(Point(kind, after=False, nth=nth, signal=signal.SIGSTOP), url=proxy.url)
        stage.give(loser, order)
        stage.until(loser.stopped, "the loser stops")
        beat.armed = True
        stage.until(heir.stopped, "the heir has claimed")
        records, moves = stage.database.records(), stage.database.moves()
        loser.signal(signal.SIGCONT)
        beat.await_met()
        stage.give(loser, Order("plain-9", "plain", (3,)))
        stage.until(lambda: _status(stage, "plain-9") == SUCCEEDED, "the loser has come to its next work")
        assert _status(stage, order.key) == RUNNING
        assert [it for it in stage.database.records() if it.workflow != "plain-9"] == list(records)
        assert stage.database.moves() == moves
        beat.released.set()
        heir.signal(signal.SIGCONT)
        stage.ended()
        assert not stage.violations()


@pytest.mark.parametrize("fault", [Fault.HELD, Fault.ANSWER_HELD], ids=["not yet sent", "not yet answered"])
def test_a_zombie_in_the_middle_of_a_commit_commits_at_most_once(
    fault: Fault, postgres_url: str, tmp_path: Path
) -> None:
    """COMMIT is under way when the process is stopped: whoever takes over waits no longer than the lease for it."""
    rule = Rule(COMMIT, fault)
    with Stage(postgres_url, tmp_path) as stage, Proxy(postgres_url, rule) as proxy:
        other = stage.worker()
        zombie = stage.worker(url=proxy.url)
        stage.watch(zombie)
        stage.give(zombie, ORDER)
        rule.await_met()
        zombie.signal(signal.SIGSTOP)
        stage.until(zombie.stopped, "the zombie stops")
        _taken_over(stage, other, stage.beats())
        rule.released.set()
        _wake(stage, zombie)


def test_a_zombie_in_a_transaction_of_its_own_commits_at_most_once(postgres_url: str, tmp_path: Path) -> None:
    """A one-transaction workflow is not taken over: its caller tries again, and it is applied once."""
    with Stage(postgres_url, tmp_path) as stage:
        other = stage.worker()
        zombie = stage.worker(Point("commit", after=False, signal=signal.SIGSTOP))
        stage.give(zombie, MOVE)
        stage.until(zombie.stopped, "the zombie stops")
        stage.give(other, MOVE)
        stage.until(lambda: stage.told, "the second caller is answered")
        _wake(stage, zombie)
        stage.until(lambda: len(stage.told) == 2, "the first caller is answered, too")
        assert stage.told[0] == stage.told[1]


def _status(stage: Stage, workflow: str) -> int | None:
    return next((it.status for it in stage.database.workflows() if it.id == workflow), None)


def _taken_over(stage: Stage, other: Worker, stopped: dict[int, int]) -> None:
    """Wait until another has the order, and see that it was some heartbeats after the lease."""
    stage.until(lambda: _claimed(stage, other), "somebody takes over")
    for _, _, beats in stage.losses():
        assert beats[other.executor] - stopped[other.executor] <= BEATS


def _claimed(stage: Stage, other: Worker) -> bool:
    ended = ORDER.key in {it.id for it in stage.database.workflows() if it.status > 3}
    return ended or any(it.executor == other.executor for it in stage.claims(ORDER.key))


def _wake(stage: Stage, zombie: Worker) -> None:
    """Let the others finish, wake the zombie, give it work that shows it to be itself again, and hold the laws."""
    stage.ended()
    records = stage.database.records()
    zombie.signal(signal.SIGCONT)
    proof = Order("plain-2", "plain", (3,))
    stage.give(zombie, proof)
    stage.until(lambda: any(it.id == proof.key for it in stage.database.workflows()), "it works again")
    stage.ended()
    executors = {executor for executor, alive in stage.database.rows("select id, alive from $executors") if alive}
    stage.until(lambda: not stage.database.held_by(zombie.executor), "the zombie holds nothing")
    assert len(executors) >= 1
    assert [it for it in stage.database.records() if it.workflow != proof.key] == list(records)
    assert not stage.violations()
