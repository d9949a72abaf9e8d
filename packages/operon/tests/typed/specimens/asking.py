"""What is told of workflows has types: a status is one of a few texts."""

from __future__ import annotations

from typing import assert_type

from operon import Status, StepRecord, Unreadable, WorkflowRecord, describe, find, steps


def asked(key: str) -> bool:
    record = describe(key)
    assert_type(record, WorkflowRecord)
    assert_type(record.status, Status)
    text: str = record.status
    if record.status == "running" or record.status in {"queued", "waiting"}:
        return True
    if record.status is Status.HELD and not record.status.ended:
        return False
    assert_type([step.status for step in steps(key)], list[Status])
    assert_type(steps(key), list[StepRecord])
    if isinstance(record.output, Unreadable):
        assert_type(record.output.why, str)
    number: int = record.status  # E
    return text == "failed" and number > 0 and any(each.status == "succeeded" for each in find(status=record.status))
