"""Commands that arrive together are committed together, and answered one by one."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from children import PATIENCE
from conformance.world import SUCCESS, World, start, step, together
from operon.core.commands import Advance, Command, Count, Describe, Find, Load
from operon.core.rows import Filter, Guard, Outcome
from operon.core.states import Status
from operon.errors import StoreError

BAD = "lone surrogate \ud800"
"""An id that no driver can encode; above the store it is refused before it gets here."""


def test_each_of_many_threads_gets_its_own_answers(world: World) -> None:
    executor = world.enlist()

    def live(key: str) -> list[str]:
        guard = world.run(key, executor=executor)
        assert all(world.write(guard, step(str(n))).written for n in range(1, 4))
        assert world.end(guard, Outcome(Status.SUCCEEDED, output=key)).written
        return world.positions(key)

    keys = [f"w{n}" for n in range(64)]
    assert together([partial(live, key) for key in keys]) == [["1", "2", "3"]] * 64
    assert {row.id: row.output for row in world.ask(Find(Filter(limit=100)))} == {key: key for key in keys}


def test_what_is_submitted_is_answered_in_any_number(world: World) -> None:
    futures = [world.store.submit(start(f"w{n}")) for n in range(1000)]
    assert all(future.result(PATIENCE).created for future in futures)
    assert world.store.submit(Count(Filter())).result(PATIENCE) == 1000


def test_submitted_commands_of_one_workflow_keep_their_order(world: World) -> None:
    executor = world.enlist()
    begun = world.store.submit(start("w", executor=executor))
    steps = [world.store.submit(Advance("w", 1, (step(str(n)),))) for n in range(1, 50)]
    ended = world.store.submit(Advance("w", 1, (), SUCCESS))
    late = world.store.submit(Advance("w", 1, (step("99"),)))
    assert begun.result(PATIENCE).created
    assert all(future.result(PATIENCE).written for future in [*steps, ended])
    assert not late.result(PATIENCE).written


def test_a_bad_command_fails_alone(durable: World) -> None:
    """Its neighbours in the batch commit as if it had not been there."""
    guard = durable.run("w")
    commands = [start(f"w{n}") for n in range(20)]
    commands[7:7] = [start(BAD)]
    good = [durable.store.submit(command) for command in commands]
    bad = good.pop(7)
    steps = [durable.store.submit(Advance("w", 1, (step("1"), step("2", child=BAD)), SUCCESS))]
    steps += [durable.store.submit(Advance("w", 1, (step("1", output="mine"),)))]
    assert all(future.result(PATIENCE).created for future in good)
    for future in (bad, steps[0]):
        with pytest.raises(StoreError):
            future.result(PATIENCE)
    assert steps[1].result(PATIENCE).written
    assert (durable.status(), durable.ask(Load("w"))[0].output) == ("running", "mine")
    assert guard == Guard("w", 1)


@pytest.mark.parametrize("command", [start(BAD), Describe(BAD)])
def test_a_bad_command_alone_is_refused_and_the_store_goes_on(durable: World, command: Command[Any]) -> None:
    with pytest.raises(StoreError):
        durable.ask(command)
    with pytest.raises(StoreError):
        durable.store.submit(command).result(PATIENCE)
    assert durable.start("w").created


def test_a_future_cannot_be_cancelled_once_its_command_is_on_the_way(durable: World) -> None:
    """A caller that stops waiting does not undo, nor disturb, the batch."""
    futures = [durable.store.submit(start(f"w{n}")) for n in range(50)]
    cancelled = [future.cancel() for future in futures]
    durable.store.close()
    assert not any(cancelled)
    assert all(future.result(PATIENCE).created for future in futures)


def test_closing_finishes_what_was_submitted_and_may_be_repeated(durable: World) -> None:
    futures = [durable.store.submit(start(f"w{n}")) for n in range(300)]
    durable.store.close()
    assert all(future.result(timeout=0).created for future in futures)
    durable.store.close()


def test_a_closed_store_says_so(durable: World) -> None:
    durable.store.close()
    with pytest.raises(StoreError):
        durable.start("w")
    with pytest.raises(StoreError):
        durable.row("w")
