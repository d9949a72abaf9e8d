"""What no crash may break: each law goes from the evidence to what broke it; must not know how it was gathered."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from crash.effects import Effect
from crash.evidence import ENDED, SUCCEEDED, Evidence, Record
from crash.program import ACCOUNTS, OPENING

Law = Callable[[Evidence], Iterator[str]]


def no_accepted_workflow_is_lost(evidence: Evidence) -> Iterator[str]:
    """What was acknowledged exists."""
    there = {workflow.id for workflow in evidence.workflows}
    for lost in sorted(evidence.accepted - there):
        yield f"{lost} was accepted and is gone"


def every_workflow_ends_well(evidence: Evidence) -> Iterator[str]:
    """Nothing is stranded, held or failed: each workflow here can succeed, and so must."""
    for workflow in evidence.workflows:
        if workflow.status not in ENDED:
            yield f"{workflow.id} is stranded in status {workflow.status}: {workflow.error}"
        elif workflow.status != SUCCEEDED:
            yield f"{workflow.id} ended in status {workflow.status}: {workflow.error}"


def transactions_apply_once(evidence: Evidence) -> Iterator[str]:
    """Each transfer that was ordered is there, once, as ordered; no other is."""
    times = Counter(move.key for move in evidence.moves)
    made = {move.key: (move.account, move.cents) for move in evidence.moves}
    for key, expected in evidence.expected.items():
        if times[key] != 1:
            yield f"the transfer {key} was applied {times[key]} times"
        elif made[key] != expected:
            yield f"the transfer {key} is {made[key]}, and was ordered as {expected}"
    for key in times.keys() - evidence.expected.keys():
        yield f"the transfer {key} was never ordered"


def sums_are_kept(evidence: Evidence) -> Iterator[str]:
    """What is on the accounts is what the transfers made of them."""
    sums = dict.fromkeys(range(ACCOUNTS), OPENING)
    for move in evidence.moves:
        sums[move.account] += move.cents
    for account, cents in sums.items():
        if evidence.balances.get(account) != cents:
            yield f"account {account} has {evidence.balances.get(account)} cents instead of {cents}"


def recorded_steps_ran(evidence: Evidence) -> Iterator[str]:
    """A step's record tells of an execution that took place, under the claim that wrote it, and of its output."""
    ran = {(it.workflow, it.position, it.attempt, it.claim): it.token for it in _steps(evidence)}
    for record in evidence.records:
        if record.kind not in ("step", "attempt"):
            continue
        token = ran.get((record.workflow, _position(record), record.attempt, record.claim))
        if token is None:
            yield f"{record.workflow} has a record at {record.position}, claim {record.claim}, of what never ran"
        elif token not in (record.output or "") + (record.error or ""):
            yield f"{record.workflow} has another output recorded at {record.position} than {token}"


def recorded_transactions_were_claimed(evidence: Evidence) -> Iterator[str]:
    """A transaction within a workflow was committed by the run that had the claim at that moment, and no other."""
    ran = {(it.workflow, it.claim, it.token) for it in evidence.effects if it.kind == "move"}
    alone = {it.id for it in evidence.workflows if it.name == "move"}
    for record in evidence.records:
        if record.kind == "transaction" and record.workflow not in alone:
            run = (record.workflow, record.claim, json.loads(record.output or "null"))
            if run not in ran:
                yield f"{record.workflow} has a transaction at {record.position} that its claim never ran: {run}"


def recorded_steps_never_run_again(evidence: Evidence) -> Iterator[str]:
    """No claim after the one that recorded a step runs it; that one ran it once. Earlier ones died, or were zombies."""
    records = {(it.workflow, _position(it), it.attempt): it for it in evidence.records}
    times = Counter((it.workflow, it.position, it.attempt, it.claim) for it in _steps(evidence))
    for (workflow, position, attempt, claim), count in times.items():
        where = f"{workflow} ran its step at {position}, attempt {attempt},"
        if count > 1:
            yield f"{where} {count} times under claim {claim}"
        record = records.get((workflow, position, attempt))
        if record is not None and claim > record.claim:
            yield f"{where} under claim {claim}, with a record from claim {record.claim}"


def later_attempts_follow_recorded_ones(evidence: Evidence) -> Iterator[str]:
    """An attempt begins only when the one before it is recorded, so that no crash gives a step more of them."""
    failures = {(it.workflow, _position(it), it.attempt): it.claim for it in evidence.records if it.kind == "attempt"}
    for effect in _steps(evidence):
        before = failures.get((effect.workflow, effect.position, effect.attempt - 1), effect.claim + 1)
        if effect.attempt > 1 and before > effect.claim:
            yield f"{effect.workflow} made attempt {effect.attempt} at {effect.position} without a record of the last"


def keys_are_stable(evidence: Evidence) -> Iterator[str]:
    """Every execution of one step is given the same idempotency key, and no other step is given it."""
    steps: dict[str, set[tuple[str, str]]] = defaultdict(set)
    keys: dict[tuple[str, str], set[str]] = defaultdict(set)
    for effect in _steps(evidence):
        steps[effect.key].add((effect.workflow, effect.position))
        keys[effect.workflow, effect.position].add(effect.key)
    for clash in (*(it for it in steps.items() if len(it[1]) > 1), *(it for it in keys.items() if len(it[1]) > 1)):
        yield f"idempotency keys clash: {clash}"


def later_code_saw_what_is_recorded(evidence: Evidence) -> Iterator[str]:
    """Whatever later code was given, in whichever process, is what the journal has."""
    outputs: dict[str, set[str]] = defaultdict(set)
    for record in evidence.records:
        outputs[record.workflow].add(_plain(record.output))
    results = {it.id: set(_list(it.output)) for it in evidence.workflows}
    parents = {record.child: record.workflow for record in evidence.records if record.child}
    for child, parent in parents.items():
        outputs[parent] |= results.get(child, set())
    for effect in evidence.effects:
        if effect.kind == "seen" and (unknown := set(effect.seen) - outputs[effect.workflow]):
            yield f"{effect.workflow} saw, under claim {effect.claim}, what is not recorded: {sorted(unknown)}"


def results_are_made_of_records(evidence: Evidence) -> Iterator[str]:
    """A workflow's result holds what its last run saw, and each caller was given that result."""
    last: dict[str, set[str]] = {}
    for effect in evidence.effects:
        if effect.kind == "seen":
            last.setdefault(effect.workflow, set()).update(effect.seen)
    for workflow in evidence.workflows:
        result = set(_list(workflow.output))
        if workflow.status == SUCCEEDED and (missing := last.get(workflow.id, set()) - result):
            yield f"the result of {workflow.id} lacks what its code saw: {sorted(missing)}"


def one_outcome_for_all(evidence: Evidence) -> Iterator[str]:
    """Whoever was told a workflow's result, and whenever: it was the one that is recorded."""
    outputs = {workflow.id: workflow.output for workflow in evidence.workflows}
    for workflow, value in evidence.told:
        if json.loads(outputs.get(workflow) or "null") != value:
            yield f"somebody was told that {workflow} gave {value!r}, and it is {outputs.get(workflow)}"


def journals_are_whole(evidence: Evidence) -> Iterator[str]:
    """Within a workflow every ordinal is there once, and belongs to a workflow that exists."""
    ordinals: dict[str, list[int]] = defaultdict(list)
    for record in evidence.records:
        ordinals[record.workflow].append(record.ordinal)
    there = {workflow.id for workflow in evidence.workflows}
    for workflow, found in ordinals.items():
        if workflow not in there:
            yield f"the journal of {workflow} has no workflow"
        if len(set(found)) != len(found):
            yield f"the journal of {workflow} has an ordinal twice: {sorted(found)}"


LAWS: tuple[Law, ...] = (
    no_accepted_workflow_is_lost,
    every_workflow_ends_well,
    transactions_apply_once,
    sums_are_kept,
    recorded_steps_ran,
    recorded_transactions_were_claimed,
    recorded_steps_never_run_again,
    later_attempts_follow_recorded_ones,
    keys_are_stable,
    later_code_saw_what_is_recorded,
    results_are_made_of_records,
    one_outcome_for_all,
    journals_are_whole,
)


def violations(evidence: Evidence) -> list[str]:
    """Hold the evidence against every law."""
    return [f"{law.__name__}: {broken}" for law in LAWS for broken in law(evidence)]


def replay_violations(before: Evidence, after: Evidence) -> list[str]:
    """Everything that a replay of all workflows, whose journals were complete, changed or did again."""
    since = after.effects[len(before.effects) :]
    found = [f"a replay ran a step again: {effect}" for effect in since if effect.kind == "step"]
    if before.moves != after.moves:
        found.append("a replay moved money")
    journals = set(before.records) ^ set(after.records)
    found += [f"a replay changed the journal: {record}" for record in sorted(journals, key=repr)]
    was = {it.id: (it.status, it.output, it.error) for it in before.workflows}
    now = {it.id: (it.status, it.output, it.error) for it in after.workflows}
    changed = [(key, then, now.get(key)) for key, then in was.items() if now.get(key) != then]
    return found + [f"a replay of {key} gave {new} instead of {then}" for key, then, new in changed]


def executions_again(evidence: Evidence) -> int:
    """Count the executions that were repeated because a crash came before their record; these are allowed."""
    times = Counter((it.workflow, it.position, it.attempt) for it in _steps(evidence))
    return sum(count - 1 for count in times.values())


def _steps(evidence: Evidence) -> Iterator[Effect]:
    return (effect for effect in evidence.effects if effect.kind == "step")


def _position(record: Record) -> str:
    return record.position.partition("#")[0]


def _plain(output: str | None) -> str:
    """What a record's output is to the code that gets it, as text."""
    value = json.loads(output or "null")
    return value if isinstance(value, str) else str(value)


def _list(output: str | None) -> list[str]:
    value: list[object] | str | None = json.loads(output or "null")
    return [str(item) for item in value] if isinstance(value, list) else []
