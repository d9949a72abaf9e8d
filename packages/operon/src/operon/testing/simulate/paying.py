"""Workflows whose steps are transactions: they race, are refused, break constraints, and are given too little time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from operon import aio
from operon.app.app import Operon
from operon.core import context
from operon.testing.simulate.database import DatabaseError
from operon.testing.simulate.datasource import Connection
from operon.testing.simulate.deciding import NAP
from operon.testing.simulate.user_tables import PURSES

SHORT = 0.02
"""Seconds: some transactions take longer, others do not."""
HABITS = ("pays", "pays", "refuses", "breaks")


class Actions(Protocol):
    """What bodies are made of."""

    def seen(self, value: str) -> str:
        """See a value arrive."""
        ...

    def transacts(self, key: str) -> str:
        """See a transaction's code run; gives what it is to return."""
        ...

    async def noted(self, what: str) -> str:
        """Do a step that is given what the body was told."""
        ...


def paying(app: Operon, actions: Actions) -> Sequence[Any]:
    """Declare them, and the transactions."""
    pay, remit, look = verbs = transactions(app, actions)
    return *verbs[:2], *payers(app, actions, pay, remit, look)


def transactions(app: Operon, actions: Actions) -> Sequence[Any]:
    """Declare one in the journal's database, one in another, and one that only looks."""

    async def spend(tx: Connection, purse: str, habit: str) -> str:
        doing = context.step()
        assert doing is not None
        key = doing.idempotency_key
        value = actions.transacts(key)
        left = await tx.look(purse)
        if left <= 0 or habit == "refuses":
            raise ValueError(f"The {purse} purse is empty.")
        await tx.spend(purse, left - 1, key, value)
        if habit == "breaks":
            await tx.orphan()
        return value

    @app.transaction(name="pay")
    async def pay(tx: Connection, purse: str, habit: str) -> str:
        return await spend(tx, purse, habit)

    @app.transaction(name="remit", datasource="bank")
    async def remit(tx: Connection, purse: str, habit: str) -> str:
        return await spend(tx, purse, habit)

    @app.transaction(name="look", read_only=True)
    async def look(tx: Connection, purse: str) -> int:
        return await tx.look(purse)

    return pay, remit, look


def payers(app: Operon, actions: Actions, pay: Any, remit: Any, look: Any) -> Sequence[Any]:
    """Declare who calls them, one after the other, with too little time, and side by side."""

    async def told(verb: Any, purse: str, habit: str) -> str:
        try:
            actions.seen(await verb(purse, habit))
        except ValueError:
            return "refused"
        except DatabaseError:
            return "broken"
        return "paid"

    @app.workflow(name="payer")
    async def payer(n: int) -> list[str]:
        notes: list[str] = []
        for verb in (pay, remit, pay):
            notes.append(await actions.noted(await told(verb, PURSES[n % 2], HABITS[n % 4])))
            notes.append(await actions.noted(f"{await look(PURSES[n % 2])} left"))
        return notes

    @app.workflow(name="impatient")
    async def impatient(n: int) -> list[str]:
        notes: list[str] = []
        for verb in (pay, remit)[n % 2 :]:
            try:
                async with asyncio.timeout(SHORT):
                    what = await told(verb, PURSES[n % 2], HABITS[n])
            except TimeoutError:
                what = "late"
            notes.append(await actions.noted(what))
            await aio.sleep(NAP)
        return notes

    @app.workflow(name="family")
    async def family(n: int) -> list[str]:
        members = [told(verb, PURSES[n % 2], "pays") for verb in (pay, remit, pay)]
        notes = list(await asyncio.gather(*members))
        await actions.noted(" ".join(notes))
        await aio.sleep(NAP)
        return [*notes, await actions.noted(await told(pay, PURSES[2], HABITS[n]))]

    return payer, impatient, family
