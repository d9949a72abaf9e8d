"""When the branches of a run have come to rest, those on the loop and those on threads."""

from __future__ import annotations

from typing import Any

from operon.core.journal import Run

ECHOES = 4
"""As many futures, each of which waits for the next, may stand between two branches."""
RESTLESS = 100
"""Turns of the loop that other branches are given to come to rest."""
CHAIN = 50
"""As many callbacks, each given to the loop by the one before, are waited for; a chain that never ends is not."""


class Repose:
    """Whether all branches of a run have come to rest; to be asked once a turn of the loop, until it is so.

    It is not enough that each waits at one instant: what has ended is told by one future to the next (a gather to the
    gather around it, shielded), one a turn. If a branch spins, that is not waited for for ever.
    """

    __slots__ = ("_but", "_patience", "_quiet", "run")

    def __init__(self, run: Run, but: object = None) -> None:
        self.run = run
        self._but = but
        self._quiet = 0
        self._patience = RESTLESS

    def reached(self) -> bool:
        """Look again."""
        run = self.run
        called = not run.calls or self._patience < RESTLESS - CHAIN
        rests = called and run.lines.at_rest() and all(it is self._but or at_rest(it) for it in tuple(run.tasks))
        self._quiet = self._quiet + 1 if rests else 0
        self._patience -= 1
        return self._quiet > ECHOES or self._patience < 0


def at_rest(task: Any) -> bool:
    """Whether a task waits for something that has not come."""
    waiter = task._fut_waiter  # noqa: SLF001 - what a task waits for, in both of asyncio's implementations
    return waiter is not None and not waiter.done()  # one that is done has still to say so
