"""Section 7 of the contract: secrets, and errors that say what they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_type

from operon import Handle, Operon, OperonError, Secret, start
from operon.errors import KeyConflict, StepFailed, WorkflowFailure

app = Operon("values", encryption_key=bytes(32))


@dataclass(frozen=True)
class Card:
    number: Secret[str]
    limit: int = 0


class CardError(Exception):
    pass


@app.step(raises=(CardError,), retry_on=lambda error: isinstance(error, OSError))
def charge(card: Card, cents: int) -> set[int]:
    assert_type(card.number, Secret[str])
    assert_type(card.number.reveal(), str)
    return {cents}


@app.workflow
def order(card: Card, lines: dict[str, tuple[int, bytes]]) -> set[int]:
    del lines
    return charge(card, 7)


card = Card(Secret("4242"))
assert_type(start(order, card, {"x": (1, b"y")}), Handle[set[int]])
start(order, card, {"x": (1, "y")})  # E
start(order, "4242", {})  # E
Card(Secret(4242))  # E
card.number.reveal().bit_length()  # E


@app.step(raises=[int])  # E
def wrong() -> None: ...


try:
    order(card, {})
except KeyConflict as conflict:
    wider: OperonError = conflict
except WorkflowFailure as failure:
    assert_type(failure.workflow_id, str)
except StepFailed as failed:
    assert_type(failed.type, str)
    assert_type(failed.message, str)
