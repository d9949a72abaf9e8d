"""The checker checked: sound evidence breaks no law, and each planted corruption breaks the one that is meant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from crash import laws
from crash.effects import Effect
from crash.evidence import Evidence, Move, Record, Workflow
from crash.laws import LAWS, Law, executions_again, replay_violations, violations
from crash.program import ACCOUNTS, OPENING

FLOW = Workflow("w", "plain", 4, 3, 2, None, 1, '["a", "m"]', None)
CHILD = Workflow("w.3", "parcel", 4, 1, 2, "w", 0, '["c"]', None)
FAILED = Record("w", "1#1", 1, "attempt", "shaky", 1, 1, None, '["Flaky", "f"]', None)
STEP = Record("w", "1", 2, "step", "shaky", 2, 3, '"a"', None, None)
MOVED = Record("w", "2", 3, "transaction", "move", 1, 3, '"m"', None, None)
BEGUN = Record("w", "3", 4, "start", "parcel", 1, 3, None, None, "w.3")
CHILDS = Record("w.3", "1", 1, "step", "token", 1, 1, '"c"', None, None)
EFFECTS = (
    Effect("step", "w", 1, "1", 1, "f", "w:1"),
    Effect("step", "w", 1, "1", 2, "lost", "w:1"),
    Effect("step", "w", 3, "1", 2, "a", "w:1"),
    Effect("seen", "w", 3, seen=("a",)),
    Effect("step", "w.3", 1, "1", 1, "c", "w.3:1"),
    Effect("move", "w", 1, token="rolled back"),
    Effect("move", "w", 3, token="m"),
    Effect("seen", "w", 3, seen=("a", "m")),
)
SOUND = Evidence(
    accepted=frozenset({"w"}),
    expected={"w/debit": (1, -100)},
    workflows=(FLOW, CHILD),
    records=(FAILED, STEP, MOVED, BEGUN, CHILDS),
    moves=(Move("w/debit", 1, -100),),
    balances=dict.fromkeys(range(ACCOUNTS), OPENING) | {1: OPENING - 100},
    effects=EFFECTS,
    told=(("w", ["a", "m"]), ("w", ["a", "m"])),
)

Corruption = Callable[[Evidence], Evidence]


def swapped(old: Record, new: Record) -> Corruption:
    """Put one record in another's place."""
    return lambda it: replace(it, records=tuple(new if record == old else record for record in it.records))


def ended(workflow: Workflow) -> Corruption:
    """Put another end to the workflow."""
    return lambda it: replace(it, workflows=(workflow, CHILD))


def happened(effect: Effect) -> Corruption:
    """Add what should not have happened."""
    return lambda it: replace(it, effects=(*it.effects, effect))


CORRUPTIONS: dict[str, tuple[Law, Corruption]] = {
    "an accepted workflow is gone": (
        laws.no_accepted_workflow_is_lost,
        lambda it: replace(it, accepted=it.accepted | {"x"}),
    ),
    "stranded": (laws.every_workflow_ends_well, ended(replace(FLOW, status=1))),
    "held": (laws.every_workflow_ends_well, ended(replace(FLOW, status=3, error="poison"))),
    "failed": (laws.every_workflow_ends_well, ended(replace(FLOW, status=5, error="why"))),
    "applied twice": (laws.transactions_apply_once, lambda it: replace(it, moves=it.moves * 2)),
    "applied never": (laws.transactions_apply_once, lambda it: replace(it, moves=())),
    "applied otherwise": (laws.transactions_apply_once, lambda it: replace(it, moves=(Move("w/debit", 1, -99),))),
    "applied unasked": (laws.transactions_apply_once, lambda it: replace(it, moves=(*it.moves, Move("x", 1, 0)))),
    "half a transaction": (laws.sums_are_kept, lambda it: replace(it, balances=it.balances | {1: OPENING})),
    "recorded and never run": (laws.recorded_steps_ran, lambda it: replace(it, effects=it.effects[1:])),
    "recorded under another claim": (laws.recorded_steps_ran, swapped(STEP, replace(STEP, claim=2))),
    "another output recorded": (laws.recorded_steps_ran, swapped(STEP, replace(STEP, output='"lost"'))),
    "committed by another claim": (laws.recorded_transactions_were_claimed, swapped(MOVED, replace(MOVED, claim=1))),
    "committed by an attempt that was rolled back": (
        laws.recorded_transactions_were_claimed,
        swapped(MOVED, replace(MOVED, output='"rolled back"')),
    ),
    "run again after its record": (
        laws.recorded_steps_never_run_again,
        happened(Effect("step", "w", 4, "1", 2, "b", "w:1")),
    ),
    "run twice under one claim": (
        laws.recorded_steps_never_run_again,
        happened(Effect("step", "w", 3, "1", 2, "b", "w:1")),
    ),
    "a failed attempt made again": (
        laws.recorded_steps_never_run_again,
        happened(Effect("step", "w", 3, "1", 1, "b", "w:1")),
    ),
    "an attempt without the last": (
        laws.later_attempts_follow_recorded_ones,
        lambda it: replace(it, records=it.records[1:]),
    ),
    "an attempt before the last was recorded": (
        laws.later_attempts_follow_recorded_ones,
        swapped(FAILED, replace(FAILED, claim=2)),
    ),
    "another key for the same step": (laws.keys_are_stable, happened(Effect("step", "w", 2, "1", 2, "b", "w:9"))),
    "the same key for another step": (laws.keys_are_stable, happened(Effect("step", "w", 2, "9", 2, "b", "w:1"))),
    "seen and not recorded": (
        laws.later_code_saw_what_is_recorded,
        happened(Effect("seen", "w", 1, seen=("lost",))),
    ),
    "the result is not what was seen": (laws.results_are_made_of_records, ended(replace(FLOW, output='["a"]'))),
    "told otherwise": (laws.one_outcome_for_all, lambda it: replace(it, told=(("w", ["b"]),))),
    "told of what is not there": (laws.one_outcome_for_all, lambda it: replace(it, told=(("x", ["b"]),))),
    "an ordinal twice": (laws.journals_are_whole, swapped(MOVED, replace(MOVED, ordinal=2))),
    "a journal without a workflow": (laws.journals_are_whole, swapped(CHILDS, replace(CHILDS, workflow="x"))),
}


def test_sound_evidence_breaks_no_law() -> None:
    """A step that ran again because its process died before the record is allowed, and counted."""
    assert violations(SOUND) == []
    assert executions_again(SOUND) == 1


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_planted_corruption_is_caught(name: str) -> None:
    """The law that is meant notices, whatever others do."""
    law, corrupt = CORRUPTIONS[name]
    assert list(law(corrupt(SOUND)))


def test_every_law_has_its_corruption() -> None:
    assert {law for law, _ in CORRUPTIONS.values()} == set(LAWS)


REPLAYS: dict[str, Corruption] = {
    "a step ran again": happened(Effect("step", "w", 4, "1", 2, "b", "w:1")),
    "money moved": lambda it: replace(it, moves=it.moves * 2),
    "the journal grew": lambda it: replace(it, records=(*it.records, replace(STEP, position="4", ordinal=5))),
    "the journal was rewritten": swapped(STEP, replace(STEP, output='"b"')),
    "another result": ended(replace(FLOW, output='["b"]')),
    "another end": ended(replace(FLOW, status=3, error="divergence")),
    "gone": lambda it: replace(it, workflows=(CHILD,)),
}


def test_a_faithful_replay_changes_nothing() -> None:
    claimed = happened(Effect("claim", "w", 5))
    assert replay_violations(SOUND, claimed(SOUND)) == []


@pytest.mark.parametrize("name", REPLAYS)
def test_an_unfaithful_replay_is_caught(name: str) -> None:
    """Whatever a replay does besides reading its journal is a violation."""
    assert replay_violations(SOUND, REPLAYS[name](SOUND))
