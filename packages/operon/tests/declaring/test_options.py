"""What a decorator is told: an option of another kind, or one that cannot be meant, is refused where it is written."""

from __future__ import annotations

from typing import Any

import pytest

import operon
from operon import Operon
from operon.app.options import OPTIONS
from operon.errors import BadValue, DeclarationError, NotFound

FITTING: dict[str, Any] = {
    "name": "other",
    "timeout": 5,
    "raises": [OSError],
    "aliases": ["old"],
    "roles": ["clerk"],
    "pin": True,
    "keep": 60,
    "batch": 3,
    "batch_wait": 1,
    "isolation": "read committed",
    "read_only": True,
    "datasource": "other",
    "retries": 3,
    "backoff": 1.0,
    "factor": 2.0,
    "cap": 60.0,
    "jitter": False,
    "retry_on": (OSError, ValueError),
    "ignore": ["items"],
}


def declare(kind: str, **options: Any) -> Any:
    def function(items: list[int]) -> list[int]:
        return items

    return getattr(Operon("app", database="memory:"), kind)(**options)(function)


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("option", FITTING)
def test_an_option_is_taken_by_the_kinds_that_have_it_and_refused_by_the_others(kind: str, option: str) -> None:
    """None is accepted and ignored."""
    given = {option: FITTING[option]} | ({"batch": 3} if option == "batch_wait" and kind == "workflow" else {})
    if option in OPTIONS[kind]:  # type: ignore[index]  # it is one of them
        assert declare(kind, **given).function.kind == kind
        return
    with pytest.raises(DeclarationError, match=rf"A {kind} has no option {option}=, which .* may have\. Its own are "):
        declare(kind, **given)


def test_what_each_kind_has_is_tried() -> None:
    assert {*FITTING} == {option for options in OPTIONS.values() for option in options}


@pytest.mark.parametrize(
    ("kind", "options", "complaint"),
    [
        ("step", {"max_retries": 3}, r"has no option max_retries=\. Its own are retries"),
        ("step", {"retry_on": "OSError"}, r"retry_on='OSError' of a step must be an exception class"),
        ("step", {"retry_on": [OSError]}, "a tuple of them"),
        ("step", {"retry_on": (OSError, 1)}, "a tuple of them"),
        (
            "step",
            {"raises": "OSError"},
            r"raises= of a step must be a list of exception classes, and 'OSError' is none",
        ),
        ("workflow", {"raises": [1]}, "and 1 is none"),
        ("step", {"ignore": ["client"]}, "names 'client', and its function has no such parameter"),
        ("step", {"ignore": "items"}, "takes several texts"),
        ("transaction", {"isolation": "snapshot"}, "'snapshot' of a transaction must be one of 'serializable'"),
        ("transaction", {"isolation": None}, "isolation=None"),
        ("workflow", {"batch_wait": 1}, "needs batch="),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name_and_value(kind: str, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DeclarationError, match=complaint):
        declare(kind, **options)


def test_one_error_may_be_given_without_a_list() -> None:
    assert declare("step", raises=OSError).function.rules.raises == (OSError,)


def test_what_is_no_handle_is_named_and_a_handle_is_told_from_its_id() -> None:
    app = Operon("app", database="memory:")
    gather: Any = operon.gather
    describe: Any = operon.describe

    @app.workflow
    def flow() -> int:
        return 1

    with app:
        handle = operon.start(flow)
        for wrong in ([handle], flow, "w"):
            with pytest.raises(BadValue, match=r"gather\(\) takes handles, gather\(\*handles\), and .* is none"):
                gather(wrong)
        with pytest.raises(NotFound, match=r"; write its \.id\."):
            describe(handle)


@pytest.mark.parametrize(
    ("run", "complaint"), [("emails", "run= takes several texts"), (5, "run="), (["mails"], "no queue 'mails'")]
)
def test_queues_to_run_are_a_list_of_those_that_are_there(run: Any, complaint: str) -> None:
    app = Operon("app", database="memory:")
    app.queue("emails")
    with pytest.raises(DeclarationError, match=complaint):
        app.launch(run=run)
