"""How often things go wrong in a world, and how badly; drawn once, and fine for good at the end."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(slots=True)
class Weather:
    """Chances are from 0 to 1, durations in seconds."""

    delay: float = 0.001
    """What a message takes on average."""
    slow: float = 0.0
    """A message takes seconds."""
    lost_before: float = 0.0
    """A connection is lost before the database has the statement."""
    lost_after: float = 0.0
    """A connection is lost after the commit and before its answer."""
    straggles: float = 0.0
    """What was lost on its way arrives in the end, and is carried out when nobody waits for it any more."""
    tries: int = 8
    """How often a store tries before it gives up."""
    locked: float = 0.0
    """Somebody else has locked a row, or a queue, which is skipped."""
    ambush: float = 0.0
    """A process stands still with a command on its lips."""
    strike: float = 0.0
    """A process dies as its command comes to the database, or as the answer leaves it."""
    deaf: float = 0.0
    """A word is not heard."""
    late: float = 1.0
    """How many times longer a word takes than a message."""
    conflicts: float = 0.0
    """A transaction of the user's fails though nobody was in its way, as serializable ones may."""
    standby: bool = False
    """The user's connections find a database that is read-only."""
    out: bool = False
    """Nobody reaches the database."""


def cleared(weather: Weather) -> Weather:
    """What stays when the storm is over: locks and lost words are no accidents, and nothing may depend on them."""
    return Weather(delay=weather.delay, locked=weather.locked, deaf=weather.deaf, late=weather.late)


def fine(chance: Random) -> Weather:
    """Draw a day on which nothing is lost, only late."""
    return Weather(delay=chance.choice((0.0005, 0.002, 0.02)))


def foul(chance: Random) -> Weather:
    """Draw a day on which messages and words are lost."""
    return Weather(
        delay=chance.choice((0.0005, 0.002, 0.02)),
        slow=chance.choice((0.0, 0.0, 0.05)),
        lost_before=chance.choice((0.0, 0.02, 0.1)),
        lost_after=chance.choice((0.0, 0.02, 0.1)),
        straggles=chance.choice((0.0, 0.3)),
        tries=chance.choice((1, 3, 8)),
        locked=chance.choice((0.0, 0.2)),
        deaf=chance.choice((0.0, 0.3, 1.0)),
        late=chance.choice((1.0, 30.0)),
        conflicts=chance.choice((0.0, 0.2)),
    )


def harsh(chance: Random) -> Weather:
    """Draw a day on which processes stop in the middle of a write, too, and messages take longer than the grace."""
    weather = foul(chance)
    weather.delay = chance.choice((weather.delay, 0.1))
    weather.ambush = chance.choice((0.0, 0.003, 0.01))
    weather.strike = chance.choice((0.0, 0.002))
    return weather
