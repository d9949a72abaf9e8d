"""How often things go wrong in a world, and how badly; drawn once, and over at the end."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(slots=True)
class Faults:
    """Chances are from 0 to 1, durations in seconds."""

    delay: float = 0.001
    """What a message takes on average."""
    slow: float = 0.0
    """A message takes seconds."""
    lost_before: float = 0.0
    """A connection is lost before the database has the statement."""
    lost_after: float = 0.0
    """A connection is lost after the commit and before its answer."""
    arrives_late: float = 0.0
    """What was lost on its way arrives in the end, and is carried out when nobody waits for it any more."""
    tries: int = 8
    """How often a store tries before it gives up."""
    locked: float = 0.0
    """Somebody else has locked a row, or a queue, which is skipped."""
    pauses: float = 0.0
    """A process stands still as it sends a command."""
    kills: float = 0.0
    """A process dies as its command comes to the database, or as the answer leaves it."""
    notices_lost: float = 0.0
    """A notice between processes is lost."""
    notices_late: float = 1.0
    """How many times longer a notice takes than a message."""
    conflicts: float = 0.0
    """A transaction of the user's fails though nobody was in its way, as serializable ones may."""
    standby: bool = False
    """The user's connections find a database that is read-only."""
    unreachable: bool = False
    """Nobody reaches the database."""


def remaining(faults: Faults) -> Faults:
    """Give what stays at the end: locks and lost notices are no faults, and nothing may depend on them."""
    lost, late = faults.notices_lost, faults.notices_late
    return Faults(delay=faults.delay, locked=faults.locked, notices_lost=lost, notices_late=late)


def delays(chance: Random) -> Faults:
    """Draw a world in which nothing is lost, only late."""
    return Faults(delay=chance.choice((0.0005, 0.002, 0.02)))


def losses(chance: Random) -> Faults:
    """Draw a world in which messages and notices are lost."""
    return Faults(
        delay=chance.choice((0.0005, 0.002, 0.02)),
        slow=chance.choice((0.0, 0.0, 0.05)),
        lost_before=chance.choice((0.0, 0.02, 0.1)),
        lost_after=chance.choice((0.0, 0.02, 0.1)),
        arrives_late=chance.choice((0.0, 0.3)),
        tries=chance.choice((1, 3, 8)),
        locked=chance.choice((0.0, 0.2)),
        notices_lost=chance.choice((0.0, 0.3, 1.0)),
        notices_late=chance.choice((1.0, 30.0)),
        conflicts=chance.choice((0.0, 0.2)),
    )


def crashes(chance: Random) -> Faults:
    """Draw a world in which processes also stop in the middle of a write, and messages take longer than the grace."""
    faults = losses(chance)
    faults.delay = chance.choice((faults.delay, 0.1))
    faults.pauses = chance.choice((0.0, 0.003, 0.01))
    faults.kills = chance.choice((0.0, 0.002))
    return faults
